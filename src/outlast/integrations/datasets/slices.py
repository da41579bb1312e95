"""What a slice of a whole data set means on a subset of it. Pure.

A script was written for all rows of a split; under a subset there are the first n of them. Each boundary as it was
written has its place among these n:

| boundary                          | place                                                                         |
|-----------------------------------|-------------------------------------------------------------------------------|
| none                              | 0 at the start, n at the end                                                  |
| k rows from the front (``9900``)  | k, at most n                                                                  |
| k rows from the end (``-100000``) | n - k, where k is at most a tenth of n, rounded up: a validation tail stays one |
| p percent (``90%``)               | p percent of n, rounded as `datasets` rounds                                  |

The places do not depend on the other boundary, so two slices that share one (``[:-100000]`` and ``[-100000:]``) stay
disjoint and complete. With n = 11,000: ``train[:-100000]`` is rows 0 to 9,900, ``train[-100000:]`` the other 1,100.
Where the subset is all of the split, a slice means what it always means, as long as the split has that many rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from outlast.errors import BadInput

TAIL = 10
"""A slice counted from the end is at most one in so many of the subset's rows."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A slice as a script wrote it, e.g. ``train[:-100000]``."""

    split: str
    """The split's name."""
    start: int | None = None
    """First row or percent; from the end below 0; None for the first there is."""
    stop: int | None = None
    """Row or percent after the last; from the end below 0; None for the last there is."""
    is_percent: bool = False
    """True when start and stop are percents."""
    drops_remainder: bool = False
    """True for the rounding ``pct1_dropremainder``: one percent is a whole number of rows, the same everywhere."""

    def __str__(self) -> str:
        if self.start is None and self.stop is None:
            return self.split
        unit = "%" if self.is_percent else ""
        ends = ("" if end is None else f"{end}{unit}" for end in (self.start, self.stop))
        return f"{self.split}[{':'.join(ends)}]"


@dataclass(frozen=True, slots=True)
class Span:
    """Rows of the subset."""

    start: int
    """First row, from 0."""
    stop: int
    """Row after the last; not below start."""

    @property
    def rows(self) -> int:
        """How many rows."""
        return self.stop - self.start


def place(asked: Slice, rows: int, *, is_whole: bool = False) -> Span:
    """The rows of a subset that a slice of the whole data set stands for.

    Args:
        asked: the slice as written.
        rows: rows of the subset.
        is_whole: True when the subset is all of the split.

    Raises:
        BadInput: when nothing of the slice is in the subset, but something would be in the whole data set.
    """
    start = 0 if asked.start is None else _place(asked, asked.start, rows, is_whole)
    stop = rows if asked.stop is None else _place(asked, asked.stop, rows, is_whole)
    if start >= stop and not is_whole and not _is_empty_anywhere(asked):
        need = asked.stop if asked.stop and asked.stop > rows else (asked.start or 0) + 1
        more = f"{need:,} rows" if not asked.is_percent and need > rows else "more rows"
        raise BadInput(f"nothing of {asked} is in a subset of {rows:,} rows", hint=f"ask for a subset of {more}")
    return Span(start, max(start, stop))


def _place(asked: Slice, boundary: int, rows: int, is_whole: bool) -> int:
    if asked.is_percent:
        boundary = _percent(boundary, rows, asked.drops_remainder)
        return min(boundary, rows) if boundary >= 0 else max(rows + boundary, 0)
    if boundary >= 0:
        return min(boundary, rows)
    tail = -boundary
    if is_whole and tail < rows:
        return rows - tail
    return rows - min(tail, -(-rows // TAIL))


def _percent(percent: int, rows: int, drops_remainder: bool) -> int:
    return percent * math.trunc(rows / 100) if drops_remainder else round(percent * rows / 100)


def _is_empty_anywhere(asked: Slice) -> bool:
    """True when the slice holds nothing however long the data set is: ``train[5:5]``, ``train[-1:-2]``."""
    if asked.start is None or asked.stop is None:
        return asked.stop == 0
    return (asked.start < 0) == (asked.stop < 0) and asked.start >= asked.stop


def shared(one: Slice, other: Slice, rows: int) -> int:
    """Rows that two slices share in a subset though they share none in a large data set; 0 where it is as written.

    That can be where one is counted from the front and the other from the end: ``train[:10500]`` and
    ``train[-100000:]`` of 11,000 rows.

    Args:
        one: a slice.
        other: another one.
        rows: rows of the subset.
    """
    if one.split != other.split or one.is_percent or other.is_percent:
        return 0
    first, second = sorted((one, other), key=lambda asked: _order(asked.start, at_end=False))
    if _order(first.stop, at_end=True) > _order(second.start, at_end=False):
        return 0
    early, late = place(first, rows), place(second, rows)
    return max(0, min(early.stop, late.stop) - max(early.start, late.start))


def _order(boundary: int | None, *, at_end: bool) -> tuple[int, int]:
    """Where a boundary lies in a data set longer than all of them: from the front, then from the end, then the end."""
    if boundary is None:
        return (2, 0) if at_end else (0, 0)
    return (0, boundary) if boundary >= 0 else (1, boundary)
