"""Crash-safe file work."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast import durable
from tests.builders import undeletable


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def no_file_longer_than(size: int) -> Iterator[None]:
    """The kernel refuses to make a file longer: the one failure of fallocate that needs no small volume."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, before)


# allocate


def test_reserved_blocks_are_really_there(tmp_path: Path) -> None:
    with opened(tmp_path / "file") as fd:
        is_real = durable.allocate(fd, 1 << 20)
        blocks = os.fstat(fd).st_blocks * 512
    assert blocks >= (1 << 20 if is_real else 0)
    assert is_real or not blocks


def test_blocks_can_be_reserved_beyond_the_end_without_changing_the_length(tmp_path: Path) -> None:
    with opened(tmp_path / "file") as fd:
        os.write(fd, b"line\n")
        durable.allocate(fd, 1 << 16, offset=5, keep_length=True)
        assert os.fstat(fd).st_size == 5


def test_reserving_nothing_changes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "file") as fd:
        assert durable.allocate(fd, 0) and durable.allocate(fd, -5)
        assert os.fstat(fd).st_size == 0


def test_a_reservation_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    with opened(tmp_path / "file") as fd:
        os.write(fd, b"before")
        with no_file_longer_than(1 << 20), pytest.raises(OSError) as caught:
            durable.allocate(fd, 2 << 20)
        assert caught.value.errno == errno.EFBIG
        assert os.fstat(fd).st_size == 6


def test_where_nothing_can_be_reserved_it_says_so(tmp_path: Path) -> None:
    with open("/dev/null", "wb") as nowhere:
        assert durable.allocate(nowhere.fileno(), 4096) is False


# writing


def test_every_byte_is_written_through_a_pipe_that_takes_little_at_a_time() -> None:
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    data = os.urandom(100_000)
    code = f"import os, sys; sys.stdout.buffer.write(open({read}, 'rb').read())"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, pass_fds=[read]) as child:
        os.close(read)
        durable.write_all(write, memoryview(data))
        os.close(write)
        assert child.communicate()[0] == data


def test_a_full_device_comes_out_as_its_errno() -> None:
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OSError) as caught:
        durable.write_all(full.fileno(), b"x")
    assert caught.value.errno in durable.FULL


@given(old=st.binary(max_size=64), new=st.binary(max_size=64))
def test_a_small_file_is_replaced_as_a_whole(tmp_path_factory: pytest.TempPathFactory, old: bytes, new: bytes) -> None:
    path = tmp_path_factory.mktemp("small") / "seal.json"
    durable.write_bytes(path, old)
    durable.write_bytes(path, new)
    assert path.read_bytes() == new and os.listdir(path.parent) == ["seal.json"]


def test_a_small_file_that_cannot_be_written_leaves_the_old_one_and_no_debris(tmp_path: Path) -> None:
    durable.write_bytes(tmp_path / "seal.json", b"old")
    with no_file_longer_than(1000), pytest.raises(OSError):
        durable.write_bytes(tmp_path / "seal.json", b"x" * 5000)
    assert (tmp_path / "seal.json").read_bytes() == b"old" and os.listdir(tmp_path) == ["seal.json"]


def test_a_small_file_whose_place_is_taken_by_a_folder_leaves_no_debris(tmp_path: Path) -> None:
    (tmp_path / "seal.json").mkdir()
    with pytest.raises(OSError):
        durable.write_bytes(tmp_path / "seal.json", b"new")
    assert os.listdir(tmp_path) == ["seal.json"]


def test_a_copied_file_has_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"bytes")
    durable.copy_small(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"bytes" and sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_an_error_of_fsync_comes_out_at_the_end(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), durable.syncing([tmp_path / "gone"]):
        pass


def test_an_error_of_the_caller_is_not_hidden_by_one_of_fsync(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), durable.syncing([tmp_path / "gone"]):
        raise ZeroDivisionError


def test_the_fsync_thread_is_over_when_the_context_is(tmp_path: Path) -> None:
    import threading

    (tmp_path / "file").write_bytes(b"x")
    with durable.syncing([tmp_path / "file"]):
        pass
    assert "outlast-fsync" not in {thread.name for thread in threading.enumerate()}


# deleting


def test_a_tree_that_is_deleted_says_what_it_freed(tmp_path: Path) -> None:
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "file").write_bytes(b"x" * 50_000)
    removal = durable.remove_tree(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()
    assert removal.freed_bytes >= 50_000 and (removal.held_bytes, removal.reason) == (0, None)


def test_what_another_name_still_holds_is_not_counted_as_freed(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(b"x" * 50_000)
    (tmp_path / "elsewhere").hardlink_to(tmp_path / "tree" / "file")
    removal = durable.remove_tree(tmp_path / "tree")
    assert removal.freed_bytes < 50_000 and (tmp_path / "elsewhere").stat().st_size == 50_000


def test_a_link_is_unlinked_and_never_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").touch()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to(tmp_path / "outside")
    durable.remove_tree(tmp_path / "tree")
    assert not (tmp_path / "tree").exists() and (tmp_path / "outside" / "file").exists()


def test_what_cannot_be_deleted_is_named_and_the_rest_goes(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "held").mkdir(parents=True)
    (tree / "held" / "file").write_bytes(b"x" * 50_000)
    (tree / "other").write_bytes(b"x" * 90_000)
    with undeletable(tree / "held"):
        removal = durable.remove_tree(tree)
    assert (tree / "held" / "file").exists() and not (tree / "other").exists()
    assert removal.freed_bytes >= 90_000 and removal.held_bytes >= 50_000
    assert removal.reason is not None and "held/file" in removal.reason and "owner" in removal.reason


def test_something_in_the_trash_never_takes_anothers_name(tmp_path: Path) -> None:
    (tmp_path / "trash").mkdir()
    places = set()
    for _ in range(3):
        (tmp_path / "file").touch()
        places.add(durable.into_trash(tmp_path / "file", tmp_path / "trash"))
    assert len(places) == 3 and all(path.exists() for path in places)


@pytest.mark.parametrize(
    ("number", "words"), [(errno.EPERM, "immutable"), (errno.EROFS, "read-only"), (errno.EBUSY, "in use")]
)
def test_a_reason_for_people_says_what_stands_behind_the_kernels_words(number: int, words: str) -> None:
    assert words in durable.why_not(OSError(number, os.strerror(number)))


def test_a_reason_for_people_is_there_without_an_errno_too() -> None:
    assert durable.why_not(OSError("odd")) == "odd"


# locks


def _other_process_gets(path: Path) -> bool:
    code = (
        "import sys; from pathlib import Path; from outlast import durable\n"
        "with durable.locked(Path(sys.argv[1]), wait=False) as held: print(held)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    return done.stdout.strip() == "True"


def test_a_lock_keeps_another_process_out_until_it_is_given_back(tmp_path: Path) -> None:
    with durable.locked(tmp_path / "lock", wait=True) as held:
        assert held
        assert not _other_process_gets(tmp_path / "lock")
    assert _other_process_gets(tmp_path / "lock")


def test_a_lock_dies_with_its_holder(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from outlast import durable\n"
        "with durable.locked(Path(sys.argv[1]), wait=True): print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == "held\n"
        with durable.locked(tmp_path / "lock", wait=False) as held:
            assert not held
        child.kill()
        child.wait()
    with durable.locked(tmp_path / "lock", wait=False) as held:
        assert held


def test_a_lock_is_given_back_when_its_holder_raises(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), durable.locked(tmp_path / "lock", wait=True):
        raise KeyboardInterrupt
    with durable.locked(tmp_path / "lock", wait=False) as held:
        assert held


# ballast


def test_a_ballast_is_filled_cut_slice_by_slice_and_released(tmp_path: Path) -> None:
    ballast = durable.Ballast(tmp_path / "ballast")
    assert ballast.size_bytes == 0 and not ballast.cut()
    assert ballast.fill(200_000) and ballast.size_bytes == 200_000
    assert ballast.cut() and 0 < ballast.size_bytes < 200_000
    left = ballast.size_bytes
    assert ballast.release() == left and ballast.size_bytes == 0


def test_cutting_ends_when_nothing_is_left(tmp_path: Path) -> None:
    ballast = durable.Ballast(tmp_path / "ballast")
    ballast.fill(100_000)
    cuts = 0
    while ballast.cut():
        cuts += 1
        assert cuts < 10
    assert ballast.size_bytes == 0 and cuts == 2


def test_a_ballast_is_never_made_smaller_by_filling(tmp_path: Path) -> None:
    ballast = durable.Ballast(tmp_path / "ballast")
    ballast.fill(100_000)
    assert ballast.fill(10) and ballast.size_bytes == 100_000


def test_a_ballast_that_cannot_be_made_is_no_error(tmp_path: Path) -> None:
    assert not durable.Ballast(tmp_path / "gone" / "ballast").fill(100)


def test_a_ballast_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    (tmp_path / "ballast").symlink_to(tmp_path / "mine")
    assert not durable.Ballast(tmp_path / "ballast").fill(100_000)
    assert (tmp_path / "mine").read_bytes() == b"mine"


def test_a_ballast_for_which_there_is_no_room_takes_none(tmp_path: Path) -> None:
    with no_file_longer_than(1 << 20):
        assert not durable.Ballast(tmp_path / "ballast").fill(2 << 20)
    assert (tmp_path / "ballast").stat().st_blocks == 0
