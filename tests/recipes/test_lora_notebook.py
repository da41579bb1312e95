"""recipes/lora/lora.ipynb, executed at toy size."""

from __future__ import annotations

import os
from pathlib import Path

import nbclient
import nbformat
import pytest

from outlast.checkpoints import Vault

RECIPE = Path(__file__).parents[2] / "recipes/lora"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "run"
    told = {"OUTLAST_TOY": "1", "LORA_OUT": str(root), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    import outlast

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(outlast.__file__).parents[1])]))
    notebook = nbformat.read(RECIPE / "lora.ipynb", as_version=4)
    assert "outlast.setup()" in next(cell.source for cell in notebook.cells if cell.cell_type == "code")
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(RECIPE)}}
    ).execute()
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "finished at step 40" in said
    assert "learned:" in said
    assert [c.step for c in Vault(root).checkpoints() if Vault(root).check(c).is_whole] == [20, 30, 40]
    assert (root / "final/adapter_model.safetensors").exists()
