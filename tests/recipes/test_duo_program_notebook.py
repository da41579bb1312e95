"""The notebook runs from the first cell to the last, at toy size, without network and GPU."""

from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

SCRIPTS = Path(__file__).resolve().parents[2] / "recipes/duo/scripts"


@pytest.mark.filterwarnings("ignore")  # jupyter_client's and zmq's own
def test_the_notebook_trains_measures_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = nbformat.read(SCRIPTS / "kaggle_notebook.ipynb", as_version=4)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert cells[0].startswith("import outlast\n\noutlast.setup()")
    for name, value in {
        "OUTLAST_TOY": "1",
        "PLACE": str(tmp_path),
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }.items():
        monkeypatch.setenv(name, value)
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(SCRIPTS)}}
    )
    client.execute()
    run = tmp_path / "duo-run"
    assert json.loads((run / "perplexity.json").read_text())["step"] == 60
    assert json.loads((run / "samples.json").read_text())["samples"]
    assert sorted(path.name for path in (run / "checkpoints").glob("*.ckpt"))[-1] == "step=60.ckpt"
