"""Which processes have something open."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.builders import opened_by_another_process

from outlast import durable
from outlast.host import OpenFiles, is_locked, lease, leases_are_safe, users_of


def test_a_process_with_a_file_open_below_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    with opened_by_another_process(tmp_path / "folder" / "file") as pid:
        assert [user.split()[0] for user in users_of(tmp_path / "folder")] == [str(pid)]
        assert users_of(tmp_path / "folder" / "file") == users_of(tmp_path / "folder")
    assert users_of(tmp_path / "folder") == ()


def test_a_file_whose_name_merely_begins_alike_is_another(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-1").touch()
    (tmp_path / "checkpoint-10").touch()
    with opened_by_another_process(tmp_path / "checkpoint-10"):
        assert users_of(tmp_path / "checkpoint-1") == ()


def test_a_mapped_file_is_in_use_though_its_descriptor_is_closed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(4096))
    code = (
        "import mmap, sys\n"
        "with open(sys.argv[1], 'rb') as file: mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)\n"
        "print('mapped', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "file"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == "mapped\n"
        users = users_of(tmp_path)
        child.communicate("\n")
    assert [user.split()[0] for user in users] == [str(child.pid)]


def test_a_path_through_a_link_is_the_real_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with (tmp_path / "real" / "file").open("w"):
        assert [user.split()[0] for user in users_of(tmp_path / "link")] == [str(os.getpid())]


def test_without_a_process_table_nobody_is_known(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w"):
        assert users_of(tmp_path, proc=tmp_path / "no proc") == ()


def test_one_look_answers_for_many_paths(tmp_path: Path) -> None:
    for name in ("a/x", "a/y", "ab/x", "b/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with opened_by_another_process(tmp_path / "a" / "y") as pid:
        seen = OpenFiles.now()
    owners = {name: seen.user_of(tmp_path / name) for name in ("a", "a/x", "a/y", "ab", "b", "gone")}
    assert {name for name, owner in owners.items() if owner} == {"a", "a/y"}
    assert str(owners["a"]).split()[0] == str(pid)


def test_a_lease_tells_who_has_it_open_or_mapped_and_breaks_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(4096))
    with leases_are_safe() as is_safe:
        assert is_safe and lease(path) is True and lease(path) is True
        with opened_by_another_process(path):
            assert lease(path) is False
        code = (
            "import mmap, sys\n"
            "with open(sys.argv[1], 'rb') as file: mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)\n"
            "print('mapped', flush=True); input()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None and child.stdout.readline() == "mapped\n"
            assert lease(path) is False
            child.communicate("\n")
        assert lease(path) is True


@pytest.mark.parametrize("kind", ["fifo", "link", "folder", "gone"])
def test_what_is_no_regular_file_has_no_lease_and_nothing_hangs(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        (tmp_path / "real").touch()
        path.symlink_to(tmp_path / "real")
    elif kind == "folder":
        path.mkdir()
    with leases_are_safe():
        assert lease(path) is None


def test_a_lock_file_that_is_held_is_in_use(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    assert not is_locked(lock)
    lock.touch()
    assert not is_locked(lock)
    with durable.locked(lock, wait=True):
        assert is_locked(lock)
