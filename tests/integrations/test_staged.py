"""While a guarded save is on, frameworks' own writers write into its reservation."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import safetensors.torch
import torch

from outlast.checkpoints import Reservation, Stage
from outlast.integrations import staged

MIB = 1 << 20
STATE = {"weights": torch.arange(MIB // 4, dtype=torch.float32)}


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """A stage with room for two files of a MiB."""
    folder = tmp_path / "stage" / "checkpoint-10"
    folder.mkdir(parents=True)
    return Stage(folder, "full", Reservation(folder.parent, [2 * MIB, 2 * MIB]))


def reserved(stage: Stage) -> set[int]:
    return {path.stat().st_ino for path in stage.path.parent.glob(".reserved-*")}


def test_torch_save_writes_into_the_reservation(stage: Stage) -> None:
    inodes = reserved(stage)
    with staged.staging(stage):
        torch.save(STATE, stage.path / "optimizer.pt")
    assert (stage.path / "optimizer.pt").stat().st_ino in inodes
    assert torch.equal(torch.load(stage.path / "optimizer.pt")["weights"], STATE["weights"])


def test_safetensors_writes_into_the_reservation_what_it_would_have_written(stage: Stage, tmp_path: Path) -> None:
    inodes = reserved(stage)
    safetensors.torch.save_file(STATE, tmp_path / "theirs", {"format": "pt"})
    with staged.staging(stage):
        safetensors.torch.save_file(STATE, stage.path / "model.safetensors", {"format": "pt"})
    assert (stage.path / "model.safetensors").stat().st_ino in inodes
    assert (stage.path / "model.safetensors").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_a_saved_model_with_tied_weights_is_staged_too(stage: Stage) -> None:
    net = torch.nn.ModuleDict({"a": torch.nn.Linear(300, 300), "b": torch.nn.Linear(300, 300)})
    net["b"].weight = net["a"].weight
    inodes = reserved(stage)
    with staged.staging(stage):
        safetensors.torch.save_model(net, str(stage.path / "model.safetensors"))
    assert (stage.path / "model.safetensors").stat().st_ino in inodes
    safetensors.torch.load_model(net, str(stage.path / "model.safetensors"))


def test_what_was_written_through_us_need_not_be_read_again_for_its_digest(stage: Stage) -> None:
    from outlast.checkpoints import digest

    stage.reservation = None
    large = {"weights": torch.arange(3 * MIB, dtype=torch.float32)}
    with staged.staging(stage):
        safetensors.torch.save_file(large, stage.path / "model.safetensors")
    known = stage.known()["model.safetensors"]
    assert known.digest == digest.of_file(stage.path / "model.safetensors")
    (stage.path / "model.safetensors").write_bytes(b"changed")
    assert stage.known() == {}


def test_a_path_outside_of_the_stage_goes_where_it_went_before(stage: Stage, tmp_path: Path) -> None:
    unclaimed = stage.reservation.unclaimed_bytes if stage.reservation else 0
    with staged.staging(stage):
        safetensors.torch.save_file(STATE, tmp_path / "elsewhere.safetensors")
        torch.save(STATE, tmp_path / "elsewhere.pt")
    assert stage.reservation is not None and stage.reservation.unclaimed_bytes == unclaimed
    assert (tmp_path / "elsewhere.safetensors").exists() and (tmp_path / "elsewhere.pt").exists()


def test_a_file_that_this_kind_does_without_is_not_written(stage: Stage) -> None:
    stage.skipped.add("optimizer.pt")
    with staged.staging(stage):
        torch.save(STATE, stage.path / "optimizer.pt")
        torch.save(STATE, stage.path / "scheduler.pt")
    assert [path.name for path in stage.path.iterdir()] == ["scheduler.pt"]


def test_the_errno_that_torch_loses_is_kept(stage: Stage) -> None:
    stage.reservation = None
    (stage.path / ".optimizer.pt.part").symlink_to("/dev/full")
    with staged.staging(stage), pytest.raises((RuntimeError, OSError)):
        torch.save(STATE, stage.path / "optimizer.pt")
    assert stage.error is not None and stage.error.errno == errno.ENOSPC
    assert not (stage.path / "optimizer.pt").exists()


def test_after_the_save_the_writers_are_as_they_were(stage: Stage) -> None:
    before = safetensors.torch.serialize_file
    with pytest.raises(ZeroDivisionError), staged.staging(stage):
        assert staged.is_on() and staged.stage_of(stage.path / "deep" / "file") is stage
        raise ZeroDivisionError
    assert safetensors.torch.serialize_file is before
    assert not staged.is_on() and staged.stage_of(stage.path / "file") is None
