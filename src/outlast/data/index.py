"""What is known of a source before its rows are read: files, row groups, where each column's bytes lie. Plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

BLOCK_ROWS = 1000
"""Rows of a block of a file that has no row groups of its own (JSON lines, CSV, text)."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """The bytes of one leaf column in one row group."""

    column: str
    """Top-level column that it belongs to."""
    start: int
    """First byte in the file."""
    length: int
    """Bytes in the file."""
    unpacked: int
    """Bytes once decompressed."""


@dataclass(frozen=True, slots=True)
class Group:
    """One row group."""

    rows: int
    """Rows in it."""
    chunks: tuple[Chunk, ...] = ()
    """Its columns' bytes; empty where the format has none (all but Parquet)."""


@dataclass(frozen=True, slots=True)
class FileIndex:
    """One file of a source."""

    path: str
    """Its name below the source, with ``/``."""
    form: str
    """A key of `outlast.data.formats.FORMATS`."""
    size: int | None
    """Bytes; None where the server does not say."""
    version: str | None
    """What changes when its content does: ETag, blob, or size and time. None when nothing of the kind is known."""
    groups: tuple[Group, ...] | None
    """Its row groups; None while its rows are not counted."""
    overhead: int = 0
    """Bytes that were read to learn this (footer, probe)."""

    @property
    def rows(self) -> int | None:
        """Rows in it; None while they are not counted."""
        return None if self.groups is None else sum(group.rows for group in self.groups)

    def counted(self, rows: int) -> FileIndex:
        """The same with its rows counted: blocks of `BLOCK_ROWS`."""
        whole, rest = divmod(rows, BLOCK_ROWS)
        groups = (Group(BLOCK_ROWS),) * whole + ((Group(rest),) if rest else ())
        return replace(self, groups=groups)


@dataclass(frozen=True, slots=True)
class Probe:
    """What the first part of a source says of the rest; for formats without footers, and for what disk will take."""

    rows: int
    """Rows that were looked at."""
    packed: float
    """Bytes a row in the source, as they travel."""
    unpacked: float
    """Bytes a row in memory."""
    stored: float
    """Bytes a row once written here."""


@dataclass(frozen=True, slots=True)
class Index:
    """A source as far as it is known."""

    source: str
    """As the user named it, made whole."""
    revision: str | None
    """Commit that the source is pinned to; None where there is no such thing."""
    files: tuple[FileIndex, ...]
    """In order; those behind the last one that is needed may be missing."""
    is_complete: bool
    """All files of the source are here."""
    columns: tuple[tuple[str, str], ...]
    """The chosen columns and their types."""
    probe: Probe
    """Means over the first file."""
    bytes_per_second: float | None
    """Measured while this was read; None when too little was read to tell."""
    notes: tuple[str, ...] = ()
    """What was left aside, and why; for the user."""

    @property
    def total_rows(self) -> int | None:
        """Rows of the whole source; None when that is not known."""
        counts = [file.rows for file in self.files]
        if not self.is_complete or None in counts:
            return None
        return sum(count for count in counts if count is not None)


class Run(NamedTuple):
    """Rows that follow each other in one file."""

    file: int
    """Index of the file in the source's order."""
    first: int
    """First row, counted in the file."""
    stop: int
    """One past the last row."""

    @property
    def rows(self) -> int:
        """How many."""
        return self.stop - self.first


def count(runs: Sequence[Run]) -> int:
    """Rows in all of these runs."""
    return sum(run.stop - run.first for run in runs)
