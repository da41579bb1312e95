"""Disk over time as blocks and as an SVG."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from hypothesis import given
from hypothesis import strategies as st

from outlast.cli._chart import Line, sparkline, svg

POINTS = st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 10**12)), min_size=1, max_size=50).map(sorted)


def test_each_block_is_the_most_of_its_part_of_the_run() -> None:
    assert sparkline([(0, 0), (1, 8), (2, 4), (3, 6)], 4, 8, width=4) == "▁█▅▇"


def test_between_points_the_level_holds() -> None:
    assert sparkline([(0, 4), (9, 4)], 10, 8, width=10) == "▅" * 10


def test_what_ended_before_is_crossed_out() -> None:
    assert sparkline([(0, 8), (4, 8)], 10, 8, width=10) == "█████×××××"


@given(POINTS, st.integers(1, 1000), st.floats(0, 1e13), st.integers(1, 80))
def test_it_is_as_wide_as_asked(points: list[tuple[int, int]], last: int, top: float, width: int) -> None:
    assert len(sparkline(points, last, top, width)) == width


@given(st.text(), st.lists(POINTS, min_size=1, max_size=3), st.none() | st.integers(1, 10**13))
def test_any_course_is_well_formed(title: str, courses: list[list[tuple[int, int]]], limit: int | None) -> None:
    printable = "".join(letter for letter in title if letter.isprintable())
    lines = [Line(printable, "#123456", points, points[-1][0]) for points in courses]
    root = ElementTree.fromstring(svg(printable, lines, 1000, limit))
    assert len(root.findall("{http://www.w3.org/2000/svg}polyline")) == len(courses)


def test_of_very_many_points_the_lowest_and_highest_of_each_part_are_drawn() -> None:
    points = [(step, 100.0 if step == 777 else 1.0) for step in range(100_000)]
    drawn = svg("t", [Line("a", "#000", points)], 100_000, None)
    places = drawn.partition('points="')[2].partition('"')[0].split()
    assert len(places) <= 1200
    heights = {float(place.partition(",")[2]) for place in places}
    assert len(heights) == 2
