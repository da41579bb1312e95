from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import outlast

PLACE = Path(__file__).resolve().parents[2] / "recipes" / "legal" / "legal.ipynb"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the kernel's client
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_notebook_runs_from_its_first_cell_to_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = nbformat.read(PLACE, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert "outlast.setup()" in code[0].source
    assert all(cell.execution_count is None and not cell.outputs for cell in code), "it is kept without outputs"
    sources = str(Path(outlast.__file__).parents[1])
    for name, value in {
        "OUTLAST_TOY": "1", "LEGAL_WORK": str(tmp_path), "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path),
        "PYTHONPATH": os.pathsep.join([sources, str(PLACE.parent)]), "OMP_NUM_THREADS": "1",
        "IPYTHONDIR": str(tmp_path / "ipython"), "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(PLACE.parent)}}
    )
    client.execute()
    said = "".join(out.get("text", "") for cell in code for out in cell.outputs)
    assert "effective batch: 16, as before (8 x 2)" in said and "RAM" in said
    assert "TF-IDF + logistic regression" in said and "Rows: what it is" in said
    assert (tmp_path / "legal" / "best" / "model.safetensors").exists()
