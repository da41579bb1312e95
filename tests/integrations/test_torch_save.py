"""`torch.save` to a path, guarded: the old file survives whatever happens to the new one."""

from __future__ import annotations

import errno
import io
import os
import pickle
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.builders import python, undeletable

from outlast import durable, journal
from outlast.errors import NoRoom
from outlast.host import BUDGETS_VARIABLE
from outlast.integrations import torch_save
from outlast.journal import FOLDER


@pytest.fixture(autouse=True)
def guarded() -> Iterator[None]:
    """torch.save is guarded for the length of a test."""
    module = sys.modules["torch.serialization"]
    before = module.save, torch.save
    torch_save.install_here()
    yield
    module.save, torch.save = before  # type: ignore[attr-defined]


class Unpicklable:
    """An object that fails in the middle of being saved."""

    def __reduce__(self) -> Any:
        raise ZeroDivisionError


def state(value: float = 1.0) -> dict[str, Any]:
    return {"weights": torch.full((100, 100), value), "step": 7}


def load(path: Any) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(path)
    return found


@pytest.mark.parametrize("kind", ["text", "path", "relative", "relative with folder"])
def test_what_was_saved_loads_again_and_nothing_lies_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    where: Any = {
        "text": str(tmp_path / "model.pt"),
        "path": tmp_path / "model.pt",
        "relative": "model.pt",
        "relative with folder": Path("folder/model.pt"),
    }[kind]
    torch.save(state(), where)
    assert torch.equal(load(where)["weights"], state()["weights"])
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder", "model.pt"]


def test_the_file_is_one_that_torch_alone_would_have_written(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "model.pt")
    code = "import sys, torch; print(torch.load(sys.argv[1])['step'])"
    assert python(code, tmp_path / "model.pt").stdout == "7\n"


def test_torchs_own_options_are_passed_on(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save(state(), f=tmp_path / "named.pt", pickle_protocol=2)
    assert (tmp_path / "old.pt").read_bytes()[:2] != b"PK" and load(tmp_path / "old.pt")["step"] == 7
    assert load(tmp_path / "named.pt")["step"] == 7


def test_an_error_in_the_middle_leaves_the_old_file_and_no_debris(tmp_path: Path) -> None:
    torch.save(state(1.0), tmp_path / "model.pt")
    with pytest.raises(ZeroDivisionError):
        torch.save({**state(2.0), "odd": Unpicklable()}, tmp_path / "model.pt")
    assert load(tmp_path / "model.pt")["weights"][0, 0] == 1.0 and os.listdir(tmp_path) == ["model.pt"]


def test_a_folder_that_is_not_there_is_torchs_error_or_the_systems(tmp_path: Path) -> None:
    with pytest.raises((OSError, RuntimeError)):
        torch.save(state(), tmp_path / "gone" / "model.pt")
    assert os.listdir(tmp_path) == []


def test_the_new_file_keeps_the_permissions_of_the_old_one(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "model.pt")
    (tmp_path / "model.pt").chmod(0o640)
    torch.save(state(), tmp_path / "model.pt")
    assert stat.S_IMODE((tmp_path / "model.pt").stat().st_mode) == 0o640


def test_a_first_file_has_the_permissions_that_torch_would_give_it(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        torch.save(state(), tmp_path / "model.pt")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "model.pt").stat().st_mode) == 0o640


def test_behind_a_link_the_target_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    torch.save(state(1.0), tmp_path / "runs" / "model.pt")
    (tmp_path / "latest.pt").symlink_to("runs/model.pt")
    torch.save(state(2.0), tmp_path / "latest.pt")
    assert (tmp_path / "latest.pt").is_symlink()
    assert load(tmp_path / "runs" / "model.pt")["weights"][0, 0] == 2.0


def test_a_name_with_signs_of_a_pattern_is_only_a_name(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "model[1]*.pt")
    torch.save(state(), tmp_path / "model[1]*.pt")
    assert os.listdir(tmp_path) == ["model[1]*.pt"]


def test_a_file_object_is_left_to_torch(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(state(), buffer)
    buffer.seek(0)
    assert load(buffer)["step"] == 7
    with (tmp_path / "model.pt").open("wb") as file:
        number = os.fstat(file.fileno()).st_ino
        torch.save(state(), file)
    assert (tmp_path / "model.pt").stat().st_ino == number


@pytest.mark.parametrize("device", ["/dev/null", "/dev/full"])
def test_a_device_is_left_to_torch_and_stays_a_device(device: str) -> None:
    if device == "/dev/null":
        torch.save(state(), device)
    else:
        with pytest.raises(RuntimeError):
            torch.save(state(), device)
    assert stat.S_ISCHR(os.stat(device).st_mode)


def test_what_a_killed_process_left_of_this_file_is_swept_and_another_ones_is_not(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    (tmp_path / f".model.pt.{dead.pid}.part").touch()
    (tmp_path / f".model.pt.{os.getppid()}.part").touch()
    (tmp_path / f".other.pt.{dead.pid}.part").touch()
    torch.save(state(), tmp_path / "model.pt")
    assert sorted(os.listdir(tmp_path)) == sorted(
        ["model.pt", f".model.pt.{os.getppid()}.part", f".other.pt.{dead.pid}.part"]
    )


def test_in_a_folder_that_takes_no_new_file_the_old_one_is_written_as_without_outlast(tmp_path: Path) -> None:
    torch.save(state(1.0), tmp_path / "model.pt")
    with undeletable(tmp_path):
        torch.save(state(2.0), tmp_path / "model.pt")
    assert load(tmp_path / "model.pt")["weights"][0, 0] == 2.0 and os.listdir(tmp_path) == ["model.pt"]


def test_a_name_that_leaves_no_room_for_a_part_is_written_as_without_outlast(tmp_path: Path) -> None:
    name = "x" * 248 + ".pt"
    torch.save(state(1.0), tmp_path / name)
    assert load(tmp_path / name)["weights"][0, 0] == 1.0


def test_the_guarded_function_pickles_by_reference_for_workers_that_are_spawned() -> None:
    assert pickle.loads(pickle.dumps(torch.save)) is torch.save


def test_guarding_twice_is_guarding_once() -> None:
    guarded = torch.save
    torch_save.install_here()
    assert torch.save is guarded is sys.modules["torch.serialization"].save  # type: ignore[attr-defined]


def test_outside_of_a_guarded_run_no_journal_is_made(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "model.pt")
    assert not (tmp_path / FOLDER).exists()


def test_each_storage_counts_once_however_often_it_is_named() -> None:
    weight = torch.zeros(10, 10)
    layer = torch.nn.Linear(10, 10, bias=False)
    assert torch_save.tensor_bytes({"a": weight, "b": [weight, (weight.T, weight[0])]}) == 400
    assert torch_save.tensor_bytes([layer, layer.state_dict()]) == 400
    assert torch_save.tensor_bytes({"step": 3, "name": "x", "none": None}) == 0


def test_an_object_that_holds_itself_is_counted_once() -> None:
    circle: list[Any] = [torch.zeros(10)]
    circle.append(circle)
    assert torch_save.tensor_bytes(circle) == 40


# On a full volume


def full(times: int, path: Path) -> tuple[list[float], Any]:
    """A writer that meets a full volume so many times, and a wait in which another process gives way the third time."""
    waits: list[float] = []
    left = [times]

    def write(file: Any) -> None:
        if left[0]:
            left[0] -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        file.write(b"new")

    def wait(seconds: float) -> None:
        if seconds:
            waits.append(seconds)
        if len(waits) == 3:
            (path.parent / "filler").unlink(missing_ok=True)

    return waits, lambda: torch_save._replace(write, path, 1000, None, wait=wait)


def test_on_a_full_volume_it_waits_for_room_and_says_so_and_then_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Nothing at all is free, not even a byte: that is not the same as unknown.
    (tmp_path / "filler").write_bytes(bytes(2_000_000))
    monkeypatch.setenv(BUDGETS_VARIABLE, f"{tmp_path}=1000000")
    (tmp_path / "model.pt").write_bytes(b"old")
    waits, save = full(2, tmp_path / "model.pt")
    save()
    assert len(waits) == 3 and (tmp_path / "model.pt").read_bytes() == b"new"
    assert "training is paused" in capsys.readouterr().err


def test_a_volume_that_was_full_once_is_only_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    waits, save = full(1, tmp_path / "model.pt")
    save()
    assert waits == [] and os.listdir(tmp_path) == ["model.pt"] and capsys.readouterr().err == ""


def test_where_pausing_is_forbidden_it_is_an_error_and_the_old_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTLAST_FORBID", "9")
    (tmp_path / "model.pt").write_bytes(b"old")
    _, save = full(9, tmp_path / "model.pt")
    with pytest.raises(NoRoom, match="beside the old file"):
        save()
    assert (tmp_path / "model.pt").read_bytes() == b"old" and os.listdir(tmp_path) == ["model.pt"]


def test_below_a_guarded_run_the_ballast_gives_way_first_and_it_is_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTLAST_DIR", str(tmp_path))
    monkeypatch.setenv("OUTLAST_RUN", "run")
    (tmp_path / FOLDER).mkdir()
    ballast = durable.Ballast(tmp_path / FOLDER / "ballast")
    ballast.fill(100_000)
    _, save = full(1, tmp_path / "model.pt")
    save()
    assert ballast.size_bytes == 0
    assert [event.name for event in journal.read(tmp_path, "run")] == ["save_failed", "rung", "file_saved"]


def test_saves_below_a_guarded_run_are_counted_and_not_each_journaled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTLAST_DIR", str(tmp_path))
    monkeypatch.setenv("OUTLAST_RUN", "run")
    for _ in range(20):
        torch.save([1], tmp_path / "model.pt")
    told = [event for event in journal.read(tmp_path, "run") if event.name == "file_saved"]
    assert [(event.get("path"), event.get("count")) for event in told] == [(str(tmp_path / "model.pt"), 1)]
