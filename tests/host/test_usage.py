"""What a tree really takes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from outlast.host import allocated_bytes, tree

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts a volume")


def test_a_file_counts_by_its_blocks_and_by_its_length(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 5000)
    found = tree(tmp_path / "file")
    assert (found.apparent_bytes, found.files, found.unread) == (5000, 1, ())
    assert found.allocated_bytes == os.stat(tmp_path / "file").st_blocks * 512


def test_a_sparse_file_takes_its_blocks_not_its_length(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(10 << 20)
    found = tree(tmp_path / "sparse")
    assert found.apparent_bytes == 10 << 20 and found.allocated_bytes < 1 << 20


def test_a_hard_link_counts_once(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"x" * 50_000)
    alone = tree(tmp_path)
    (tmp_path / "two").hardlink_to(tmp_path / "one")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "three").hardlink_to(tmp_path / "one")
    linked = tree(tmp_path)
    assert (linked.files, linked.apparent_bytes) == (1, 50_000)
    assert linked.allocated_bytes - alone.allocated_bytes < 50_000


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "large").write_bytes(b"x" * 10**6)
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "inside" / "loop").symlink_to(tmp_path / "inside")
    assert tree(tmp_path / "inside").allocated_bytes < 100_000


@only_root
def test_another_mount_is_left_out(tmp_path: Path) -> None:
    place = tmp_path / "mounted"
    place.mkdir()
    (tmp_path / "mine").write_bytes(b"x" * 5000)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "outlast-test", place], check=True)
    try:
        (place / "theirs").write_bytes(b"x" * 10**6)
        found = tree(tmp_path)
    finally:
        subprocess.run(["umount", "-l", place], check=True)
    assert (found.files, found.apparent_bytes) == (1, 5000)


def test_the_newest_change_below_is_found(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.utime(tmp_path / "file", (4e9, 4e9))
    assert tree(tmp_path).newest == 4e9


def test_what_is_not_there_takes_nothing_and_is_named(tmp_path: Path) -> None:
    found = tree(tmp_path / "gone")
    assert found.unread == (str(tmp_path / "gone"),) and found.allocated_bytes == 0
    assert allocated_bytes(tmp_path / "gone") == 0


def test_what_cannot_be_read_is_named_and_the_rest_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "file").write_bytes(b"x" * 5000)
    real = os.scandir

    def scandir(path: str) -> object:
        # Root reads a folder of mode 0 all the same.
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = tree(tmp_path)
    assert found.unread == (str(tmp_path / "closed"),)
    assert (found.files, found.apparent_bytes) == (1, 5000)
