"""What a subset will be and what it costs, before it is fetched. `decide` is pure; `plan` looks and calls it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from outlast.data.choose import choose
from outlast.data.cost import Cost, cost
from outlast.data.index import Index, Run, count
from outlast.data.request import Request, request
from outlast.data.spans import Span, cut, span_rows
from outlast.data.survey import about_rows
from outlast.host import room

_WORTH_MEASURING = 8 << 20
_BESIDE = 128 * 1024
"""Bytes for a manifest, a lock, folders."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A subset before it is fetched."""

    request: Request
    """What was asked for."""
    index: Index
    """The source as far as it had to be looked at."""
    rows: int | None
    """Rows of the subset; None where they must be counted first."""
    parts: tuple[tuple[str, int], ...]
    """Rows of each part of the split; empty where they must be counted first."""
    spans: tuple[Span, ...]
    """What is fetched, in order; empty where rows must be counted first."""
    cost: Cost
    """Bytes, memory, time."""
    room_bytes: int | None
    """Bytes that may be written where it goes: free, less what is to stay free; None when unknown."""
    rows_that_fit: int | None
    """How many rows fit there, about; None when unknown."""
    notes: tuple[str, ...]
    """What was left aside, or is not as asked; for the user."""

    @property
    def fits(self) -> bool | None:
        """Whether there is room; None when that is unknown."""
        return None if self.room_bytes is None else self.cost.disk_bytes <= self.room_bytes

    @property
    def must_count(self) -> bool:
        """Rows have to be counted, by reading all of the source, before they can be chosen."""
        return self.rows is None


def plan(source: str, *, out: str | Path | None = None, **wanted: Any) -> Plan:
    """What a subset of a source would be, and cost; reads footers or the first part of a text, downloads nothing.

    Args:
        source: a file, folder or pattern here, an address, or ``hf://datasets/org/name``.
        out: where it would go; for the room there, and for what is there already.
        wanted: ``rows``, ``columns``, ``split``, ``sample``, ``seed``, ``max_bytes``, ``keep_free``; see `request`.

    Raises:
        BadInput: what makes no sense, is not there, or is damaged.
        SourceFailed: the source does not answer.
    """
    from outlast.data.sources import open_source
    from outlast.data.survey import measure, surveyed

    asked = request(**wanted)
    with surveyed(open_source(source), asked) as survey:
        first = decide(survey.index, asked, free_bytes(out, asked), is_remote=survey.is_remote)
        if first.cost.read_bytes < _WORTH_MEASURING:
            return first
        index = replace(survey.index, bytes_per_second=measure(survey))
        return decide(index, asked, free_bytes(out, asked), is_remote=survey.is_remote)


def free_bytes(out: str | Path | None, asked: Request) -> int | None:
    """Bytes that a subset may take at a place."""
    free = room(Path(out or ".").expanduser()).free_bytes
    return None if free is None else max(0, free - asked.keep_free)


def decide(index: Index, asked: Request, room_bytes: int | None, *, is_remote: bool) -> Plan:
    """The plan for a source that was looked at. Pure."""
    notes = list(index.notes)
    runs = _runs(index, asked)
    if runs is None:
        return _uncounted(index, asked, room_bytes, notes, is_remote)
    spent = cost(index, runs, asked, is_remote=is_remote)
    rows = count(runs)
    while asked.max_bytes is not None and spent.disk_bytes > asked.max_bytes and rows > 1:
        rows = max(1, min(rows - 1, int(rows * asked.max_bytes / spent.disk_bytes)))
        runs = _runs(index, replace(asked, rows=rows)) or []
        spent = cost(index, runs, asked, is_remote=is_remote)
    rows = count(runs)
    if asked.rows is not None and rows < asked.rows:
        why = f"{asked.max_bytes:,} bytes hold about so many" if index.total_rows != rows else "the source has no more"
        notes.append(f"{rows:,} rows, not {asked.rows:,}: {why}")
    paths = [file.path for file in index.files]
    spans = tuple(cut(runs, asked.split, asked.seed, paths, span_rows(index.probe)))
    return Plan(
        asked, index, rows, _parts(spans, asked), spans, spent, room_bytes, _fitting(rows, spent, room_bytes),
        tuple(notes),
    )  # fmt: skip


def _runs(index: Index, asked: Request) -> list[Run] | None:
    """The rows that are wanted; None where they cannot be known before all rows are counted."""
    if all(file.groups is not None for file in index.files):
        return choose([[group.rows for group in file.groups or ()] for file in index.files], asked.rows, asked.sample,
                      asked.seed)  # fmt: skip
    if asked.sample != "head" or asked.rows is None:
        return None
    # A file whose rows nobody counted is taken to hold them where it is clearly large enough; fetch finds out.
    runs, left = [], asked.rows
    for number, file in enumerate(index.files):
        holds = file.rows if file.rows is not None else int(about_rows(file, index.probe) / 1.25)
        if file.rows is None and holds < left:
            return None
        runs.append(Run(number, 0, min(left, holds)))
        left -= runs[-1].rows
    return [run for run in runs if run.rows]


def _uncounted(index: Index, asked: Request, room_bytes: int | None, notes: list[str], is_remote: bool) -> Plan:
    about = [about_rows(file, index.probe) for file in index.files]
    rows = min(sum(about), asked.rows or sum(about))
    everything = [Run(i, 0, n) for i, n in enumerate(about) if n]
    spent = cost(index, everything, asked, is_remote=is_remote, passes=2)
    disk = int(rows * index.probe.stored) + 4096
    spent = replace(spent, disk_bytes=min(disk, asked.max_bytes or disk))
    notes.append("its rows must be counted first, since it has no footers: all of it is read twice")
    return Plan(asked, index, None, (), (), spent, room_bytes, _fitting(rows, spent, room_bytes), tuple(notes))


def _parts(spans: Sequence[Span], asked: Request) -> tuple[tuple[str, int], ...]:
    rows: Mapping[str, list[int]] = {part: [] for part in asked.split.parts}
    for span in spans:
        for shard in span.shards:
            rows[shard.part].append(shard.rows)
    return tuple((part, sum(found)) for part, found in rows.items())


def fitting(room_bytes: int, row_bytes: float) -> int:
    """Rows that surely fit: a fiftieth stays for what the file system and the manifest take."""
    return max(0, int(0.98 * (room_bytes - _BESIDE) / max(row_bytes, 1.0)))


def _fitting(rows: int, spent: Cost, room_bytes: int | None) -> int | None:
    if room_bytes is None or not rows:
        return None
    return rows if spent.disk_bytes <= room_bytes else fitting(room_bytes, spent.disk_bytes / rows)
