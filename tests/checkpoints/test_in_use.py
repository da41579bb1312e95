"""Which processes have something open."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.builders import opened_by_another_process

from outlast.checkpoints._in_use import users_of


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
