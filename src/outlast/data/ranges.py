"""Which byte ranges of a Parquet file hold the wanted rows and columns, and in what requests to ask for them. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from outlast.data.index import Chunk, FileIndex, Run

GAP_BYTES = 64 * 1024
"""Bytes that nobody wants and that are read all the same, because another request would take longer."""
REQUEST_BYTES = 4 << 20
"""Most bytes of one request."""
_PART_BYTES = 1 << 20
"""Most bytes of one request into a row group of which only the first rows are wanted."""


_SMALL_BYTES = 256 * 1024
"""A column of a large row group with no more bytes is asked for together with its neighbours."""


@dataclass(frozen=True, slots=True)
class Block:
    """Bytes of one request."""

    start: int
    """First byte in the file."""
    stop: int
    """One past the last."""
    group: int
    """The last row group that needs it; once that is read it can go."""
    is_piece: bool = False
    """Part of one column of one row group: read once from its first byte to its last."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Rows of one row group that are wanted."""

    group: int
    """Its number in the file."""
    before: int
    """Rows of the file before it."""
    runs: tuple[tuple[int, int], ...]
    """First row and one past the last, counted in the group."""
    share: float
    """The part of its rows that must be read: up to the last wanted one."""


def wanted_groups(file: FileIndex, runs: Sequence[Run]) -> list[Wanted]:
    """Row groups that hold these rows.

    Args:
        file: with its row groups.
        runs: rows of this file, in order.
    """
    found, at, i = [], 0, 0
    for number, group in enumerate(file.groups or ()):
        end, inside = at + group.rows, []
        while i < len(runs) and runs[i].first < end:
            low, high = max(runs[i].first, at), min(runs[i].stop, end)
            if low < high:
                inside.append((low - at, high - at))
            if runs[i].stop > end:
                break
            i += 1
        if inside:
            found.append(Wanted(number, at, tuple(inside), inside[-1][1] / group.rows))
        at = end
    return found


def blocks(file: FileIndex, wanted: Sequence[Wanted], columns: frozenset[str] | None = None) -> list[Block]:
    """Requests for these row groups, in the order in which they will be needed.

    A row group of more than `REQUEST_BYTES` is asked for column by column, each in pieces, the pieces in the order of
    the rows that they hold; of one whose last rows nobody wants, the last pieces are left out. Smaller ones are
    asked for as a whole, neighbours together.
    """
    found: list[Block] = []
    for need in wanted:
        group = (file.groups or ())[need.group]
        chunks = [chunk for chunk in group.chunks if columns is None or chunk.column in columns]
        if sum(chunk.length for chunk in chunks) > REQUEST_BYTES:
            found += _pieces(chunks, need)
            continue
        for start, stop in merged((chunk.start, chunk.start + chunk.length) for chunk in chunks):
            last = found[-1] if found else None
            touches = last is not None and last.stop <= start <= last.stop + GAP_BYTES
            if last and touches and not last.is_piece and stop - last.start <= REQUEST_BYTES:
                found[-1] = Block(last.start, stop, need.group)
            else:
                found.append(Block(start, stop, need.group))
    return found


def _pieces(chunks: Sequence[Chunk], need: Wanted) -> list[Block]:
    small = [(chunk.start, chunk.start + chunk.length) for chunk in chunks if chunk.length <= _SMALL_BYTES]
    placed = [(0.0, Block(start, stop, need.group)) for start, stop in merged(iter(small))]
    for chunk in chunks:
        if chunk.length <= _SMALL_BYTES:
            continue
        length, start = chunk.length, chunk.start
        is_part = need.share < 1
        size = _PART_BYTES if is_part else REQUEST_BYTES
        for at in range(0, length, size):
            # A page more than the share says: pages are not cut where rows are wanted no more.
            if is_part and at >= math.ceil(need.share * length) + size // 4:
                break
            placed.append((at / length, Block(start + at, start + min(at + size, length), need.group, True)))
    return [block for _, block in sorted(placed, key=lambda pair: pair[0])]


def merged(spans: Iterator[tuple[int, int]], gap: int = GAP_BYTES) -> list[tuple[int, int]]:
    """Spans in order, those no more than a gap apart made one, as long as that is no more than a request."""
    found: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if found and start <= found[-1][1] + gap and stop - found[-1][0] <= REQUEST_BYTES:
            found[-1] = (found[-1][0], max(found[-1][1], stop))
        else:
            found.append((start, stop))
    return found


def size_of(blocks: Sequence[Block]) -> int:
    """Bytes of all of them."""
    return sum(block.stop - block.start for block in blocks)
