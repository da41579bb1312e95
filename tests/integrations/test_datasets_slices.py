"""What a slice of the whole data set means on a subset of it."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from outlast.errors import BadInput
from outlast.integrations.datasets.slices import Slice, Span, place, shared

ROWS = st.integers(1, 10**7)
FRONT = st.integers(0, 10**9)
BACK = st.integers(-(10**9), -1)


def rows_of(asked: Slice, rows: int, is_whole: bool = False) -> Span:
    """The span, or an empty one where it is refused as empty."""
    try:
        return place(asked, rows, is_whole=is_whole)
    except BadInput:
        return Span(0, 0)


@pytest.mark.parametrize(
    ("asked", "rows", "start", "stop"),
    [
        (Slice("train"), 11_000, 0, 11_000),
        (Slice("train", stop=9_900), 11_000, 0, 9_900),
        (Slice("train", start=9_900), 11_000, 9_900, 11_000),
        (Slice("train", stop=-100_000), 11_000, 0, 9_900),
        (Slice("train", start=-100_000), 11_000, 9_900, 11_000),
        (Slice("train", stop=11_000), 11_000, 0, 11_000),
        (Slice("train", stop=50_000), 11_000, 0, 11_000),
        (Slice("train", start=-500), 11_000, 10_500, 11_000),
        (Slice("train", stop=90, is_percent=True), 11_000, 0, 9_900),
        (Slice("train", start=-10, is_percent=True), 11_000, 9_900, 11_000),
        (Slice("train", start=99, is_percent=True, drops_remainder=True), 11_050, 10_890, 11_050),
        (Slice("train", start=5, stop=5), 11_000, 5, 5),
        (Slice("train", stop=-100_000), 15, 0, 13),
    ],
)
def test_each_row_of_the_table(asked: Slice, rows: int, start: int, stop: int):
    assert place(asked, rows) == Span(start, stop)


@given(rows=ROWS, cut=st.one_of(FRONT, BACK), whole=st.booleans())
def test_two_slices_that_share_a_boundary_are_disjoint_and_complete(rows: int, cut: int, whole: bool):
    before, after = rows_of(Slice("t", stop=cut), rows, whole), rows_of(Slice("t", start=cut), rows, whole)
    assert before.rows + after.rows == rows
    assert before.rows == 0 or after.rows == 0 or before.stop == after.start


@given(rows=ROWS, cuts=st.lists(st.integers(0, 100), min_size=1), drops=st.booleans())
def test_percents_that_follow_each_other_cut_everything_once(rows: int, cuts: list[int], drops: bool):
    ends = [None, *sorted(cuts), None]
    parts = [rows_of(Slice("t", a, b, True, drops), rows) for a, b in zip(ends, ends[1:], strict=False)]
    assert sum(part.rows for part in parts) == rows
    filled = [part for part in parts if part.rows]
    assert all(a.stop == b.start for a, b in zip(filled, filled[1:], strict=False))


@given(rows=ROWS, cuts=st.lists(FRONT, min_size=1))
def test_slices_from_the_front_cut_everything_once(rows: int, cuts: list[int]):
    ends = [None, *sorted(cuts), None]
    parts = [rows_of(Slice("t", a, b), rows) for a, b in zip(ends, ends[1:], strict=False)]
    assert sum(part.rows for part in parts) == rows


@given(rows=st.integers(2, 10**7), front=FRONT, back=BACK)
def test_a_front_within_nine_tenths_never_meets_a_tail(rows: int, front: int, back: int):
    assume(front <= rows * 9 // 10)
    one, other = Slice("t", stop=front), Slice("t", start=back)
    assert rows_of(one, rows).stop <= rows_of(other, rows).start or rows_of(other, rows).rows == 0
    assert shared(one, other, rows) == 0


@given(rows=st.integers(2, 10**7), back=BACK)
def test_the_tail_is_there_and_at_most_a_tenth_rounded_up(rows: int, back: int):
    tail = place(Slice("t", start=back), rows)
    assert 1 <= tail.rows <= min(-back, -(-rows // 10))


@given(rows=ROWS, start=st.none() | FRONT | BACK, stop=st.none() | FRONT | BACK)
def test_a_span_lies_in_the_subset(rows: int, start: int | None, stop: int | None):
    span = rows_of(Slice("t", start, stop), rows)
    assert 0 <= span.start <= span.stop <= rows


@given(rows=ROWS, start=st.none() | st.integers(-(10**8), 10**8), stop=st.none() | st.integers(-(10**8), 10**8))
def test_where_the_subset_is_everything_a_slice_means_what_it_always_means(
    rows: int, start: int | None, stop: int | None
):
    assume(all(end is None or -rows < end for end in (start, stop)))
    span = place(Slice("t", start, stop), rows, is_whole=True)
    assert range(span.start, span.stop) == range(rows)[start:stop]


@pytest.mark.parametrize(
    ("asked", "need"),
    [
        (Slice("train", 20_000, 30_000), "30,000 rows"),
        (Slice("train", start=20_000), "20,001 rows"),
        (Slice("train", 20_000, -5), "20,001 rows"),
        (Slice("train", 99, 100, is_percent=True, drops_remainder=True), "more rows"),
    ],
)
def test_a_slice_behind_the_subset_is_refused_with_the_rows_it_needs(asked: Slice, need: str):
    with pytest.raises(BadInput) as caught:
        place(asked, 11_000 if not asked.is_percent else 60)
    assert f"nothing of {asked} is in a subset" in caught.value.message and caught.value.hint.endswith(f"of {need}")


def test_slices_that_were_apart_and_overlap_now_are_told_by_their_rows():
    assert shared(Slice("t", stop=10_500), Slice("t", start=-100_000), 11_000) == 600
    assert shared(Slice("t", start=-100_000), Slice("t", stop=10_500), 11_000) == 600
    assert shared(Slice("t"), Slice("t", start=-100_000), 11_000) == 0, "these overlap as written"
    assert shared(Slice("t", stop=10_500), Slice("v", start=-100_000), 11_000) == 0
