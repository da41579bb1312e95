"""What is told of a build that does not fit."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from outlast.host import Limit, Room
from outlast.integrations.datasets.building import Need, short, way_out

HUB, BUILDS = Path("/big/hub"), Path("/small/datasets")


def room(place: Path, free: dict[str, int | None]) -> Room:
    volume = place.parts[1]
    return Room(place, hash(volume), (Limit("statvfs", free[volume], None),), None)


def test_needs_on_one_volume_are_added_and_on_two_are_not():
    needs = [Need(HUB, 60, "downloaded"), Need(BUILDS, 60, "built")]
    assert short(needs, lambda place: room(place, {"big": 100, "small": 100})) is None
    together = [Need(BUILDS / "downloads", 60, "downloaded"), Need(BUILDS, 60, "built")]
    said = short(together, lambda place: room(place, {"small": 100}))
    assert said == "60 B downloaded + 60 B built to /small/datasets, where 100 B are free"


def test_the_volume_that_is_too_small_is_the_one_that_is_named():
    needs = [Need(HUB, 60, "downloaded"), Need(BUILDS, 150, "built")]
    said = short(needs, lambda place: room(place, {"big": 100, "small": 100}))
    assert said == "150 B built to /small/datasets, where 100 B are free"


@given(st.none() | st.integers(0, 10), st.none() | st.integers(0, 10), st.none() | st.integers(0, 20))
def test_what_is_not_known_is_told_of_nobody(travels, built, free):
    said = short([Need(HUB, travels, "a"), Need(HUB, built, "b")], lambda place: room(place, {"big": free}))
    assert (said is not None) == (free is not None and (travels or 0) + (built or 0) > free)


def test_the_way_out_names_the_data_set_and_for_openwebtext_its_variable():
    assert way_out("nyu-mll/glue") == "outlast run --subset nyu-mll/glue=ROWS -- ..."
    assert way_out("Skylion007/openwebtext").startswith("OWT_SUBSET_NUM=11000, or outlast run")
