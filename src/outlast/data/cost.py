"""What a subset costs: bytes over the wire and on disk, memory, seconds. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from outlast.data.ahead import AHEAD_BYTES
from outlast.data.index import FileIndex, Index, Probe, Run, count
from outlast.data.ranges import blocks, size_of, wanted_groups
from outlast.data.request import Request

_BASE_RAM = 110 << 20
_PAGES_RAM = 24 << 20
_GROUP_ROWS, _GROUP_BYTES, _BATCH_BYTES = 1000, 32 << 20, 16 << 20
_UNPACKED_PER_SECOND = 100e6
_RUN_BYTES = 18
"""What it takes in a shard to say where a run of rows is from."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What fetching a subset takes."""

    wire_bytes: int
    """Bytes over the network, footers and probes too; 0 for what lies here."""
    read_bytes: int
    """Bytes read from the source, wherever it lies."""
    disk_bytes: int
    """Bytes on disk, at most about."""
    ram_bytes: int
    """Peak of memory, about."""
    seconds: float | None
    """At the measured speed; None when none could be measured."""
    row_groups: int | None
    """Row groups that are touched; None where the format has none."""
    is_estimate: bool
    """The bytes are estimated from the first part of the source, not known from footers."""


def cost(index: Index, runs: Sequence[Run], request: Request, *, is_remote: bool, passes: int = 1) -> Cost:
    """What these rows cost.

    Args:
        index: the source.
        runs: rows in source order.
        request: for its columns.
        is_remote: its bytes travel.
        passes: how often the source's rows are read (twice, where they have to be counted first).
    """
    names = frozenset(name for name, _ in index.columns)
    overhead = sum(file.overhead for file in index.files)
    read = groups = 0
    stored, known = 0.0, True
    factor = index.probe.stored / max(index.probe.packed, 1e-9)
    for number, mine in groupby(runs, key=lambda run: run.file):
        file, rows = index.files[number], list(mine)
        if file.groups is None or not any(group.chunks for group in file.groups):
            known = False
            # What the look read is kept for the first pass.
            read += max(0, _lines_bytes(file, rows, index.probe) * passes - file.overhead)
            stored += count(rows) * index.probe.stored
            continue
        wanted = wanted_groups(file, rows)
        read += size_of(blocks(file, wanted, names))
        groups += len(wanted)
        for need in wanted:
            group = file.groups[need.group]
            taken = sum(stop - first for first, stop in need.runs) / max(group.rows, 1)
            stored += factor * taken * sum(chunk.length for chunk in group.chunks if chunk.column in names)
    read += overhead
    return Cost(
        wire_bytes=read if is_remote else 0,
        read_bytes=read,
        disk_bytes=int(stored) + 4096 + _RUN_BYTES * len(runs),
        ram_bytes=_ram(index.probe),
        seconds=_seconds(index, read, count(runs)),
        row_groups=groups if known else None,
        is_estimate=not known,
    )


def _lines_bytes(file: FileIndex, runs: Sequence[Run], probe: Probe) -> int:
    """Bytes of a file without row groups up to its last wanted row: all of it must pass by."""
    about = int(runs[-1].stop * probe.packed)
    return about if file.size is None else min(about, file.size)


def _ram(probe: Probe) -> int:
    group = min(_GROUP_ROWS * probe.unpacked, float(_GROUP_BYTES))
    batch = min(256 * probe.unpacked, float(_BATCH_BYTES))
    return int(_BASE_RAM + AHEAD_BYTES + _PAGES_RAM + 3 * group + 2 * batch)


def _seconds(index: Index, read: int, rows: int) -> float | None:
    if index.bytes_per_second is None:
        return None
    return max(read / index.bytes_per_second, rows * index.probe.unpacked / _UNPACKED_PER_SECOND)
