"""How a subset is cut into shards. Pure.

A span is a part of the subset in source order; from one span comes at most one shard for each part of the split, so
that after an interruption whole spans are done and the rest is not. Spans depend on the rows wanted and on the first
file's means only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from outlast.data.choose import merged
from outlast.data.index import Probe, Run, count
from outlast.data.request import PARTS, Split
from outlast.data.split import by_order, parts_by_hash

SHARD_BYTES = 32 << 20
"""About what a shard takes on disk."""
_LEAST_ROWS, _MOST_ROWS, _STEP = 100, 1_000_000, 1000


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of a subset."""

    part: str
    """A name of `PARTS`."""
    number: int
    """In its part, from 0."""
    rows: int
    """Rows in it."""

    @property
    def name(self) -> str:
        """Its path below the subset's folder."""
        return f"{self.part}/part-{self.number:05d}.parquet"


@dataclass(frozen=True, slots=True)
class Span:
    """Rows that are fetched together."""

    runs: tuple[Run, ...]
    """In source order."""
    shards: tuple[Shard, ...]
    """What they become: one shard for each part that has rows here."""


def span_rows(probe: Probe) -> int:
    """Rows of a span: as many as a shard of about `SHARD_BYTES` holds, in thousands where there are thousands."""
    rows = int(SHARD_BYTES / max(probe.stored, 1.0))
    rows = min(max(rows, _LEAST_ROWS), _MOST_ROWS)
    return rows if rows < _STEP else rows // _STEP * _STEP


def cut(runs: Sequence[Run], split: Split, seed: int, paths: Sequence[str], size: int) -> list[Span]:
    """The spans of a subset.

    Args:
        runs: its rows in source order.
        split: how they are parted.
        seed: of a split by hash.
        paths: names of the source's files.
        size: rows of a span.
    """
    if not split.by_hash:
        spans = []
        for part, mine in by_order(runs, split):
            for number, piece in enumerate(_pieces(mine, size)):
                spans.append(Span(piece, (Shard(PARTS[part], number, count(piece)),)))
        return spans
    spans, numbers = [], [0] * len(split.shares)
    for piece in _pieces(runs, size):
        shards = []
        for part, mine in enumerate(part_runs(piece, split, seed, paths)):
            if mine:
                shards.append(Shard(PARTS[part], numbers[part], count(mine)))
                numbers[part] += 1
        spans.append(Span(piece, tuple(shards)))
    return spans


def _pieces(runs: Sequence[Run], size: int) -> list[tuple[Run, ...]]:
    """Runs cut into pieces of so many rows; in one pass, since there may be a run for each row."""
    pieces: list[tuple[Run, ...]] = []
    piece: list[Run] = []
    left = size
    for run in runs:
        first = run.first
        while first < run.stop:
            stop = min(run.stop, first + left)
            piece.append(Run(run.file, first, stop))
            left -= stop - first
            first = stop
            if left == 0:
                pieces.append(tuple(piece))
                piece, left = [], size
    if piece:
        pieces.append(tuple(piece))
    return pieces


def part_runs(runs: Sequence[Run], split: Split, seed: int, paths: Sequence[str]) -> list[list[Run]]:
    """The rows of each part of a split by hash."""
    found: list[list[Run]] = [[] for _ in split.shares]
    for file in sorted({run.file for run in runs}):
        rows = np.concatenate([np.arange(run.first, run.stop) for run in runs if run.file == file])
        parts = parts_by_hash(split, seed, paths[file], rows)
        for part, mine in enumerate(found):
            mine += as_runs(file, rows[parts == part])
    return found


def as_runs(file: int, rows: Any) -> list[Run]:
    """Runs of rising row numbers."""
    if not len(rows):
        return []
    breaks: Any = np.flatnonzero(np.diff(rows) != 1) + 1
    firsts = rows[np.concatenate([[0], breaks])]
    lasts = rows[np.concatenate([breaks - 1, [len(rows) - 1]])]
    return [Run(file, int(first), int(last) + 1) for first, last in zip(firsts, lasts, strict=True)]


def rows_of(runs: Sequence[Run], part: str, split: Split, seed: int, paths: Sequence[str]) -> list[Run]:
    """The rows of a span that go to one part."""
    if not split.by_hash:
        return merged(runs)
    return part_runs(runs, split, seed, paths)[PARTS.index(part)]
