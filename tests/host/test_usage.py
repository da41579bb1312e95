"""What a tree really takes."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.host import allocated_bytes, largest, tree

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
    real = os.open

    def opened(path: str, *arguments: int) -> int:
        # Root opens a folder of mode 0 all the same.
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return real(path, *arguments)

    monkeypatch.setattr(os, "open", opened)
    for found in (tree(tmp_path), tree(tmp_path, threads=3), largest(tmp_path, 1).usage):
        assert found.unread == (str(tmp_path / "closed"),)
        assert (found.files, found.apparent_bytes) == (1, 5000)


def test_a_pipe_a_socket_and_a_strange_name_are_counted_and_nothing_hangs(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "line\nbreak \x1b[31m").write_bytes(b"x")
    (tmp_path / os.fsdecode(b"\xff\xfe")).write_bytes(b"x")
    found = tree(tmp_path)
    assert (found.files, found.apparent_bytes, found.unread) == (3, 2, ())


def test_a_folder_that_becomes_a_link_meanwhile_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "large").write_bytes(b"x" * 10**6)
    (tmp_path / "inside" / "folder").mkdir(parents=True)
    real = os.open

    def opened(path: str, *arguments: int) -> int:
        if str(path).endswith("folder") and os.path.isdir(path) and not os.path.islink(path):
            os.rmdir(path)
            os.symlink(tmp_path / "outside", path)
        return real(path, *arguments)

    monkeypatch.setattr(os, "open", opened)
    found = tree(tmp_path / "inside")
    assert found.apparent_bytes < 10**6 and found.unread == (str(tmp_path / "inside" / "folder"),)


def test_a_thread_that_dies_is_heard_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()

    def dies(path: object) -> None:
        raise MemoryError("not now")

    monkeypatch.setattr(os, "scandir", dies)
    with pytest.raises(MemoryError, match="not now"):
        tree(tmp_path, threads=2)


FILE = st.tuples(st.just("file"), st.integers(0, 70_000), st.booleans())
LINK = st.tuples(st.just("link"), st.integers(0, 30), st.booleans())
FOLDER = st.tuples(st.just("folder"), st.integers(0, 30), st.booleans())


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(st.one_of(FILE, LINK, FOLDER), max_size=25), threads=st.sampled_from([None, 1, 3]))
def test_it_is_what_du_says(steps: list[tuple[str, int, bool]], threads: int | None) -> None:
    with tempfile.TemporaryDirectory() as name:
        grow(Path(name), steps)
        found = tree(name, threads=threads)
        told = subprocess.run(["du", "-s", "--block-size=1", name], capture_output=True, text=True, check=True)
        assert found.allocated_bytes == int(told.stdout.split()[0])
        assert found == largest(name, 3).usage and found.unread == ()


def grow(top: Path, steps: list[tuple[str, int, bool]]) -> None:
    """A tree from numbers: sparse and dense files, hard links across folders, links, folders in folders."""
    folders, files = [top], []
    for number, (kind, size, flag) in enumerate(steps):
        place = folders[size % len(folders)] / f"{kind}{number}"
        if kind == "folder":
            place.mkdir()
            folders.append(place)
        elif kind == "file":
            with place.open("wb") as file:
                file.truncate(size) if flag else file.write(b"x" * size)
            files.append(place)
        elif flag and files:
            place.hardlink_to(files[size % len(files)])
        else:
            place.symlink_to(top)


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(0, 40), max_size=12), n=st.integers(1, 15))
def test_the_largest_are_those_of_a_full_list(sizes: list[int], n: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        for number, size in enumerate(sizes):
            folder = top / f"a{number % 3}" / f"b{number % 2}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"file{number}").write_bytes(b"x" * (size * 4096))
        found = largest(top, n)
        everything = list(top.rglob("*"))
        for items, paths in (
            (found.files, [path for path in everything if path.is_file() and os.stat(path).st_blocks]),
            (found.folders, [path for path in everything if path.is_dir()]),
        ):
            expected = sorted((tree(path).allocated_bytes for path in paths), reverse=True)[:n]
            assert [item.allocated_bytes for item in items] == [size for size in expected if size]
            assert all(tree(item.path).allocated_bytes == item.allocated_bytes for item in items)


def test_the_largest_of_a_file_is_that_file_and_of_nothing_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 5000)
    found = largest(tmp_path / "file", 5)
    assert [item.path for item in found.files] == [str(tmp_path / "file")] and found.folders == ()
    gone = largest(tmp_path / "gone", 5)
    assert gone.files == () and gone.usage.unread == (str(tmp_path / "gone"),)


def test_a_hard_linked_file_is_among_the_largest_once(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"x" * 50_000)
    (tmp_path / "two").hardlink_to(tmp_path / "one")
    assert len(largest(tmp_path, 5).files) == 1
