"""torch.distributed.checkpoint in one process: sealed, swapped whole, tried again; what is left alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import filesystem, state_dict_saver

from outlast.checkpoints import Vault
from outlast.integrations import torch_checkpoint
from outlast.journal import FOLDER

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def guarded_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As under `outlast run`, in a fresh process."""
    monkeypatch.setenv("OUTLAST_RUN", "test")
    monkeypatch.setenv("OUTLAST_DIR", str(tmp_path / "home"))
    monkeypatch.setattr(state_dict_saver, "save", state_dict_saver.save)
    monkeypatch.setattr(dcp, "save", dcp.save)
    torch_checkpoint._SAVERS.clear()
    torch_checkpoint.install(state_dict_saver)


def state(value: float) -> dict[str, Any]:
    return {"model": {"weight": torch.full((300, 300), value)}, "step": value}


def loaded(path: Path) -> float:
    target = {"model": {"weight": torch.zeros(300, 300)}}
    dcp.load(target, checkpoint_id=path)
    assert target["model"]["weight"].unique().numel() == 1, "two steps are mixed"
    return float(target["model"]["weight"][0, 0])


def left_alone(tmp_path: Path) -> list[str]:
    lines = [line for path in (tmp_path / "home" / FOLDER).rglob("*.jsonl") for line in path.read_text().splitlines()]
    return [event["why"] for event in map(json.loads, lines) if event["event"] == "left_to_framework"]


def test_a_save_is_sealed_and_loads(tmp_path: Path) -> None:
    dcp.save(state(1.0), checkpoint_id=tmp_path / "out" / "step_7")
    (checkpoint,) = Vault(tmp_path / "out").checkpoints()
    assert (checkpoint.step, checkpoint.kind) == (7, "full")
    assert loaded(checkpoint.path) == 1.0


def test_a_writer_of_ones_own_is_given_back_as_it_was(tmp_path: Path) -> None:
    writer = dcp.FileSystemWriter(tmp_path / "out" / "step_1")
    dcp.save(state(1.0), storage_writer=writer)
    assert writer.path == tmp_path / "out" / "step_1"
    assert loaded(tmp_path / "out" / "step_1") == 1.0


def test_a_failed_overwrite_leaves_the_old_step_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "out" / "now"
    dcp.save(state(1.0), checkpoint_id=place)

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("the writer broke")

    monkeypatch.setattr(filesystem.FileSystemWriter, "finish", fail)
    with pytest.raises(Exception, match="the writer broke"):
        dcp.save(state(2.0), checkpoint_id=place)
    assert loaded(place) == 1.0
    assert not list((tmp_path / "out" / FOLDER / "stage").iterdir())


def test_a_full_volume_is_read_off_the_text_and_the_save_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = filesystem.FileSystemWriter.finish
    calls = []

    def full_once(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise OSError(28, "No space left on device")
        return original(self, *args, **kwargs)

    monkeypatch.setattr(filesystem.FileSystemWriter, "finish", full_once)
    dcp.save(state(3.0), checkpoint_id=tmp_path / "out" / "step_1")
    assert len(calls) == 2
    assert loaded(tmp_path / "out" / "step_1") == 3.0


def test_async_save_goes_through_the_same_door(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=torch.distributed.HashStore())
    try:
        dcp.async_save(state(4.0), checkpoint_id=tmp_path / "out" / "step_4").result()
    finally:
        torch.distributed.destroy_process_group()
    assert [checkpoint.name for checkpoint in Vault(tmp_path / "out").checkpoints()] == ["step_4"]


def test_a_folder_with_other_things_in_it_is_left_to_dcp(tmp_path: Path) -> None:
    place = tmp_path / "out" / "now"
    place.mkdir(parents=True)
    (place / "notes.txt").write_text("mine")
    dcp.save(state(1.0), checkpoint_id=place)
    assert (place / "notes.txt").exists() and loaded(place) == 1.0
    assert "holds other things" in left_alone(tmp_path)[0]


def test_a_checkpoint_of_plain_dcp_is_adopted_not_set_aside(tmp_path: Path) -> None:
    place = tmp_path / "out" / "step-100"
    dcp.save(state(1.0), checkpoint_id=place)
    (place / "outlast.json").unlink()
    vault = Vault(tmp_path / "out")
    vault.recover()
    assert [(c.name, c.seal.made) for c in vault.checkpoints()] == [("step-100", "adopted")]
