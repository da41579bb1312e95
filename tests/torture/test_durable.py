"""Promises 1, 3 and 8 at their root: reserving, writing, deleting and journaling on volumes that are really full.

What `tests/test_durable.py` fakes with limits on a file's length is done here on a full tmpfs and a full ext4.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from outlast import durable, journal
from outlast.checkpoints import Keep, Reservation, ReservedFile, Vault
from outlast.host import room
from tests.builders import events, make_vault, names, opened_by_another_process, undeletable

MIB = 1 << 20
Volume = Callable[..., Path]
both = pytest.mark.parametrize("kind", ["tmpfs", "ext4"])


def free(place: Path) -> int:
    found = room(place, []).free_bytes
    assert found is not None
    return found


def fill_up(place: Path, *, but: int = 0) -> Path:
    """Another process's file that takes all room that is left."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (MIB, 4096, 1):
            try:
                while free(place) - size >= but and file.write(bytes(size)):
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC
    return filler


@both
def test_a_reservation_that_does_not_fit_leaves_the_room_to_others(volume: Volume, kind: str) -> None:
    """Attacks: a save is admitted before it starts; a failed one takes nothing (ext4 keeps what a failed call got)."""
    place = volume("16m", kind)
    before = free(place)
    fd = os.open(place / "part", os.O_WRONLY | os.O_CREAT)
    try:
        with pytest.raises(OSError) as caught:
            durable.allocate(fd, before + MIB)
    finally:
        os.close(fd)
    assert caught.value.errno == errno.ENOSPC
    assert before - free(place) < 64 * 1024 and (place / "part").stat().st_size == 0


@both
def test_of_several_reservations_none_stays_when_one_fails(volume: Volume, kind: str) -> None:
    """Attacks: a save that is not admitted leaves no debris."""
    place = volume("16m", kind)
    with pytest.raises(OSError):
        Reservation(place, [5 * MIB, 20 * MIB])
    assert not list(place.glob(".reserved-*")) and free(place) > 10 * MIB


@both
def test_a_save_goes_whole_into_its_reservation_on_a_volume_that_another_has_filled(volume: Volume, kind: str) -> None:
    """Attacks: a process that fills the volume after the reservation cannot hurt the save."""
    place = volume("16m", kind)
    reservation = Reservation(place, [6 * MIB])
    fill_up(place)
    reservation.claim(place / "part", 6 * MIB)
    data = os.urandom(MIB) * 6
    with ReservedFile(place / "part", digests=True) as file:
        file.write(data)
    durable.sync_file(place / "part")
    durable.replace(place / "part", place / "model")
    assert (place / "model").read_bytes() == data


@both
def test_the_seal_that_does_not_fit_leaves_the_old_one(volume: Volume, kind: str) -> None:
    """Attacks: a small file is replaced as a whole or not at all."""
    place = volume("16m", kind)
    durable.write_bytes(place / "seal", b"old")
    fill_up(place)
    with pytest.raises(OSError) as caught:
        durable.write_bytes(place / "seal", bytes(MIB))
    assert caught.value.errno == errno.ENOSPC
    assert (place / "seal").read_bytes() == b"old" and sorted(p.name for p in place.iterdir() if p.is_file()) == [
        "filler",
        "seal",
    ]


@both
def test_deleting_works_on_a_full_volume_and_frees_what_it_says(volume: Volume, kind: str) -> None:
    """Attacks: making room must itself need none (mkdir fails on a full ext4)."""
    place = volume("16m", kind)
    vault = make_vault(place / "runs", [10, 20], model=2 * MIB, moments=3 * MIB)
    fill_up(place)
    before = free(place)
    (removal,) = vault.prune(Keep(last=1))
    assert removal.reason is None and names(vault) == ["checkpoint-20"]
    assert free(place) - before >= 5 * MIB - 64 * 1024 and removal.freed_bytes >= 5 * MIB
    measured = events(vault, "deleted")[0].get("measured_bytes")
    assert abs(measured - removal.freed_bytes) <= 64 * 1024


def test_what_an_open_file_still_holds_is_not_deleted_in_the_first_place(volume: Volume) -> None:
    """Attacks: an unlinked file that is open frees nothing, so its room would be counted twice."""
    place = volume("16m")
    make_vault(place / "runs", [10, 20], model=2 * MIB, moments=3 * MIB)
    vault = Vault(place / "runs", budgets=[])
    before = free(place)
    with opened_by_another_process(place / "runs" / "checkpoint-10" / "model.bytes"):
        (removal,) = vault.prune(Keep(last=1))
    assert removal.freed_bytes == 0 and removal.held_bytes >= 5 * MIB
    assert before - free(place) < 64 * 1024


def test_what_is_immutable_is_reported_and_the_rest_of_the_room_is_found(volume: Volume) -> None:
    """Attacks: a deletion that did not happen is not silent."""
    place = volume("16m", "ext4")
    vault = make_vault(place / "runs", [10, 20, 30], model=MIB, moments=2 * MIB)
    with undeletable(place / "runs" / "checkpoint-10"):
        removals = {removal.name: removal for removal in vault.prune(Keep(last=1))}
    assert "immutable" in (removals["checkpoint-10"].reason or "") and removals["checkpoint-20"].reason is None
    assert names(vault) == ["checkpoint-10", "checkpoint-30"]


@both
def test_the_journal_goes_on_when_the_volume_is_full(volume: Volume, kind: str) -> None:
    """Attacks: it says what it did; the ballast gives way so that each line is written whole."""
    place = volume("16m", kind)
    ballast = durable.Ballast(place / "ballast")
    assert ballast.fill(MIB)
    one = journal.Journal(place, spare=ballast.cut)
    one.write("first", text="x" * 1000)
    fill_up(place)
    for number in range(100):
        one.write("line", number=number, text="x" * 1000)
    found = journal.read(place, one.run)
    assert [event.get("number") for event in found] == [None, *range(100)]
    assert 0 < ballast.size_bytes < MIB


@both
def test_without_a_ballast_the_journal_waits_and_loses_nothing(volume: Volume, kind: str) -> None:
    """Attacks: writing never raises, and what was reserved ahead is no torn line."""
    place = volume("16m", kind)
    one = journal.Journal(place)
    filler = fill_up(place)
    for number in range(50):
        one.write("line", number=number, text="x" * 1000)
    filler.unlink()
    one.write("after")
    assert [event.get("number") for event in journal.read(place, one.run)] == [*range(50), None]


@both
def test_the_ballast_is_not_made_where_it_does_not_fit_and_takes_nothing(volume: Volume, kind: str) -> None:
    """Attacks: the reserve must not be what fills the volume."""
    place = volume("16m", kind)
    fill_up(place, but=MIB)
    ballast = durable.Ballast(place / "ballast")
    assert not ballast.fill(4 * MIB)
    assert free(place) > MIB // 2
