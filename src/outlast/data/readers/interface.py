"""What a reader of a format is: looks at files, gives out chosen rows in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from outlast.data.index import FileIndex, Probe, Run


@dataclass(frozen=True, slots=True)
class Look:
    """What was learned of one file without reading its rows."""

    index: FileIndex
    """Row groups, sizes, version."""
    schema: Any
    """pyarrow's schema of the chosen columns."""
    probe: Probe
    """Means over it, or over its first part."""


class ShorterFile(Exception):
    """A file has fewer rows than its first part let expect; now they are counted.

    Args:
        path: of the file.
        rows: how many it has.
    """

    def __init__(self, path: str, rows: int) -> None:
        super().__init__(path, rows)
        self.path = path
        self.rows = rows


class Rows(NamedTuple):
    """Rows that came."""

    rows: Any
    """Their numbers in the file: a numpy array, rising."""
    batch: Any
    """pyarrow's RecordBatch of as many rows."""


class Reader(Protocol):
    """Reads files of one format from one source."""

    marks: dict[str, list[tuple[int, int]]]
    """Rows at which a file without row groups can be entered, with their first byte; for an interrupted fetch."""

    def look(self, path: str, columns: Sequence[str] | None) -> Look:
        """A file by its footer or its first part.

        Raises:
            BadInput: it is damaged, another format, or lacks a column.
        """
        ...

    def rows(self, file: FileIndex, runs: Sequence[Run], schema: Any) -> Iterator[Rows]:
        """Chosen rows of a file, in order.

        Args:
            file: as `look` found it.
            runs: rows of this file, in order.
            schema: of the chosen columns; a file that has others is an error.

        Raises:
            BadInput: a row that cannot be read, with its place.
        """
        ...

    def count(self, file: FileIndex) -> int:
        """Rows of a file that has no footer: reads all of it."""
        ...

    def close(self) -> None:
        """Stop its threads."""
        ...
