"""What ``--fix`` does, and that it can be taken back."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from outlast import journal
from outlast.doctor import Finding, Mend, Mended, Status, mend
from outlast.journal import Journal


def mended(tmp_path: Path, kind: str, path: Path) -> Mended:
    finding = Finding(Status.ERROR, "x", mend=Mend(kind, path), id="a-check")
    (done,) = mend([finding, Finding(Status.OK, "y")], Journal(tmp_path / "home"))
    return done


def undo(done: Mended) -> None:
    subprocess.run(["sh", "-c", str(done.undo)], check=True)


def test_a_missing_folder_is_made_and_can_be_taken_back(tmp_path: Path) -> None:
    done = mended(tmp_path, "make-folder", tmp_path / "a" / "b c")
    assert (tmp_path / "a" / "b c").is_dir()
    undo(done)
    assert not (tmp_path / "a").exists()


def test_our_folder_is_made_writable_and_gets_its_mode_back(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o555)
    done = mended(tmp_path, "let-write", folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    undo(done)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o555


def test_a_link_is_never_followed(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o555)
    (tmp_path / "cache").symlink_to("theirs")
    assert mended(tmp_path, "let-write", tmp_path / "cache").done is None
    assert stat.S_IMODE((tmp_path / "theirs").stat().st_mode) == 0o555


def test_a_dead_lock_is_renamed_and_can_be_put_back(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    done = mended(tmp_path, "set-aside", tmp_path / "lock")
    assert os.listdir(tmp_path / "home") and not (tmp_path / "lock").exists() and (tmp_path / "lock.stale").exists()
    undo(done)
    assert (tmp_path / "lock").exists()


def test_a_lock_that_a_build_has_taken_meanwhile_stays(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w"):
        done = mended(tmp_path, "set-aside", tmp_path / "lock")
    assert done.done is None and done.reason == "somebody has it open now" and (tmp_path / "lock").exists()


def test_a_change_that_fails_is_said_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = mended(tmp_path, "make-folder", tmp_path / "file" / "below")
    assert done.done is None and done.reason


@pytest.mark.parametrize("kind, last", [("make-folder", "mended"), ("set-aside", "mend_failed")])
def test_each_change_is_journaled_with_the_way_back(tmp_path: Path, kind: str, last: str) -> None:
    mended(tmp_path, kind, tmp_path / "new")
    (run,) = journal.runs(tmp_path / "home")
    events = journal.read(tmp_path / "home", run)
    assert [event.name for event in events] == ["mend_begun", last] and events[0].get("undo")
