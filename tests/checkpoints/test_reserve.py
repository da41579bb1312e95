"""Reservations, and the file object that writes into them."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.checkpoints import Reservation, ReservedFile, digest, is_full, is_hidden_full

MIB = 1 << 20


def inode(path: Path) -> int:
    return path.stat().st_ino


# Reservation


def test_a_claimed_file_is_the_very_inode_that_was_reserved(tmp_path: Path) -> None:
    reservation = Reservation(tmp_path, [MIB])
    reserved = inode(tmp_path / ".reserved-0")
    reservation.claim(tmp_path / "part", MIB)
    assert inode(tmp_path / "part") == reserved
    assert reservation.unclaimed_bytes == 0


def test_a_claim_takes_the_smallest_that_holds_it_else_the_largest(tmp_path: Path) -> None:
    reservation = Reservation(tmp_path, [3 * MIB, MIB, 2 * MIB])
    reservation.claim(tmp_path / "fits", 1_500_000)
    assert reservation.unclaimed_bytes == 4 * MIB
    reservation.claim(tmp_path / "larger than any", 9 * MIB)
    assert reservation.unclaimed_bytes == MIB


def test_a_small_file_does_not_take_what_was_reserved_for_a_large_one(tmp_path: Path) -> None:
    reservation = Reservation(tmp_path, [MIB])
    reservation.claim(tmp_path / "small", 1000)
    assert reservation.unclaimed_bytes == MIB and not (tmp_path / "small").exists()


def test_with_nothing_left_to_claim_the_writer_makes_its_own_file(tmp_path: Path) -> None:
    reservation = Reservation(tmp_path, [MIB])
    reservation.claim(tmp_path / "one", MIB)
    reservation.claim(tmp_path / "two", MIB)
    assert not (tmp_path / "two").exists()


def test_what_was_not_claimed_is_given_back(tmp_path: Path) -> None:
    reservation = Reservation(tmp_path, [MIB, MIB])
    reservation.claim(tmp_path / "part", MIB)
    reservation.release()
    reservation.release()
    assert os.listdir(tmp_path) == ["part"]


def test_a_reservation_that_fails_halfway_leaves_nothing_reserved(tmp_path: Path) -> None:
    (tmp_path / ".reserved-1").touch()
    with pytest.raises(FileExistsError):
        Reservation(tmp_path, [MIB, MIB])
    assert os.listdir(tmp_path) == [".reserved-1"]


# ReservedFile


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.just("write"), st.sampled_from([0, 1, 500, MIB - 1, MIB, MIB + 7]), st.integers(0, 255))
        | st.tuples(st.just("seek"), st.integers(0, 2 * MIB), st.sampled_from([os.SEEK_SET, os.SEEK_END]))
        | st.tuples(st.just("flush"), st.just(0), st.just(0)),
        max_size=8,
    ),
    st.booleans(),
)
def test_it_writes_what_a_plain_file_would(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[str, int, int]], is_reserved: bool
) -> None:
    folder = tmp_path_factory.mktemp("reserved")
    plain = io.BytesIO()
    if is_reserved:
        Reservation(folder, [3 * MIB]).claim(folder / "part", 3 * MIB)
    file = ReservedFile(folder / "part", digests=True)
    for what, number, more in calls:
        if what == "write":
            assert file.write(bytes([more]) * number) == plain.write(bytes([more]) * number)
        elif what == "seek":
            # Past the end a BytesIO does not grow by itself; zip writers never go there.
            offset = -min(number, len(plain.getvalue())) if more else min(number, len(plain.getvalue()))
            assert file.seek(offset, more) == plain.seek(offset, more)
        else:
            file.flush()
        assert file.tell() == plain.tell()
    file.close()
    assert (folder / "part").read_bytes() == plain.getvalue()
    assert file.digest in (None, digest.of_bytes(plain.getvalue()))


def test_a_large_file_has_its_digest_when_it_is_closed(tmp_path: Path) -> None:
    data = os.urandom(MIB) * 17
    file = ReservedFile(tmp_path / "part", digests=True)
    for start in range(0, len(data), 3_000_000):
        file.write(data[start : start + 3_000_000])
    file.close()
    assert file.digest == digest.of_file(tmp_path / "part") == digest.of_bytes(data)


def test_a_file_that_was_patched_after_it_was_read_has_no_digest(tmp_path: Path) -> None:
    file = ReservedFile(tmp_path / "part", digests=True)
    file.write(bytes(MIB) * 17)
    file.seek(0)
    file.write(b"patched")
    file.close()
    assert file.digest is None and (tmp_path / "part").read_bytes().startswith(b"patched")


def test_it_is_cut_to_what_was_written_not_to_what_was_reserved(tmp_path: Path) -> None:
    Reservation(tmp_path, [MIB]).claim(tmp_path / "part", MIB)
    with ReservedFile(tmp_path / "part") as file:
        file.write(b"short")
    assert (tmp_path / "part").read_bytes() == b"short"


def test_it_remembers_the_errno_that_its_writer_loses(tmp_path: Path) -> None:
    (tmp_path / "part").symlink_to("/dev/full")
    file = ReservedFile(tmp_path / "part")
    with pytest.raises(OSError):
        file.write(bytes(2 * MIB))
    with pytest.raises(OSError):
        file.close()
    assert file.error is not None and file.error.errno == errno.ENOSPC


def test_a_full_volume_that_shows_only_at_close_is_an_error_too(tmp_path: Path) -> None:
    (tmp_path / "part").symlink_to("/dev/full")
    file = ReservedFile(tmp_path / "part")
    file.write(b"small")
    with pytest.raises(OSError):
        file.close()
    assert is_full(file.error) and file.closed


# What a full volume looks like


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "x"),
        OSError(errno.EDQUOT, "x"),
        RuntimeError("Error while serializing: IoError(Os { ... }) (os error 28)"),
        RuntimeError("failed: (os error 122)"),
        ValueError("[Errno 28] No space left on device: '/x'"),
        ValueError("Disk quota exceeded"),
        caused(RuntimeError("writer failed"), caused(ValueError("inner"), OSError(errno.ENOSPC, "x"))),
    ],
)
def test_a_full_volume_is_recognised_however_it_is_wrapped(error: BaseException) -> None:
    assert is_full(error)


@pytest.mark.parametrize(
    "error", [None, OSError(errno.EIO, "x"), ValueError("no"), RuntimeError("unexpected pos 64 vs 0"), OSError()]
)
def test_another_error_is_not_taken_for_a_full_volume(error: BaseException | None) -> None:
    assert not is_full(error)


def test_a_circle_of_causes_is_gone_through_once() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert not is_full(one)


def test_torchs_messages_for_any_failed_write_are_only_a_suspicion() -> None:
    assert is_hidden_full(RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 470"))
    assert is_hidden_full(RuntimeError("basic_ios::clear: iostream error"))
    assert not is_hidden_full(ValueError("unexpected pos")) and not is_hidden_full(RuntimeError("shape mismatch"))
