"""Rows of JSON lines, CSV and plain text: columns from the first part, then a stream, read as far as it is needed."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from outlast.data.footers import chosen_schema
from outlast.data.formats import FORMATS, form_of
from outlast.data.index import FileIndex, Probe, Run
from outlast.data.readers import records
from outlast.data.readers.columns import check_known, to_batch, typed
from outlast.data.readers.interface import Look, Rows, ShorterFile
from outlast.data.readers.packing import Packed, unpacked
from outlast.data.readers.records import Record
from outlast.data.sources import Source, SourceFile
from outlast.errors import BadInput

_PROBE_BYTES = {False: 4 << 20, True: 256 * 1024}
"""Of content, by whether it travels."""
_PROBE_ROWS = 20_000
_BATCH_ROWS, _BATCH_BYTES = 256, 8 << 20
_MARKS = 64


class LinesReader:
    """Reads JSON lines, CSV and text files of one source."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._names: dict[str, list[str]] = {}
        self._takes_all = True
        self.marks: dict[str, list[tuple[int, int]]] = {}

    def look(self, path: str, columns: Sequence[str] | None) -> Look:
        """A file by its first part; a small one is read whole, so that its rows are counted."""
        self._takes_all = columns is None
        file = self._source.look(path, "head")
        limit = _PROBE_BYTES[self._source.is_remote]
        packed = Packed(self._source, file, expected=limit)
        values: list[dict[str, Any]] = []
        content = 0
        with closing(packed):
            stream = _Stream(self, file, packed)
            for record in stream:
                values.append(stream.parse(record))
                content = record.end
                if content >= limit or len(values) >= _PROBE_ROWS:
                    break
        is_whole = not (content >= limit or len(values) >= _PROBE_ROWS)
        index = FileIndex(path, form_of(path) or "", file.size, file.version, None, packed.given)
        if is_whole:
            index = index.counted(len(values))
        if not values:
            return Look(index, None, Probe(0, 0.0, 0.0, 0.0))
        schema = chosen_schema(typed(values, stream.names, stream.is_typed, path, columns), columns, path)
        packed_bytes = packed.given * content / max(stream.unpacked, 1)
        return Look(index, schema, _probe(values, schema, packed_bytes, content, stream.is_typed))

    def rows(self, file: FileIndex, runs: Sequence[Run], schema: Any) -> Iterator[Rows]:
        """Chosen rows of a stream that ends behind the last one.

        Raises:
            ShorterFile: it has fewer rows than was thought.
        """
        last = runs[-1].stop
        row, at = self._mark(file, runs[0].first)
        known = SourceFile(file.path, file.size, file.version)
        share = None if file.size is None or not file.rows else int((file.size - at) * (last - row) / (file.rows - row))
        packed = Packed(self._source, known, at, share)
        with closing(packed):
            stream = _Stream(self, known, packed, row)
            pending: list[tuple[int, dict[str, Any]]] = []
            names = frozenset(schema.names)
            held = i = end = 0
            for record in stream:
                while runs[i].stop <= stream.row:
                    i += 1
                if runs[i].first <= stream.row:
                    value = stream.parse(record)
                    if self._takes_all:
                        check_known(value, names, file.path, stream.row)
                    pending.append((stream.row, value))
                    held += record.end - end
                stream.row += 1
                end = record.end
                if len(pending) >= _BATCH_ROWS or held >= _BATCH_BYTES or stream.row >= last:
                    self._set_mark(file, stream.row, at + record.end)
                    if pending:
                        yield _rows(pending, schema, file.path, stream.is_typed)
                    pending, held = [], 0
                if stream.row >= last:
                    return
        raise ShorterFile(file.path, stream.row)

    def count(self, file: FileIndex) -> int:
        """Rows of a file, by reading it."""
        known = SourceFile(file.path, file.size, file.version)
        packed = Packed(self._source, known)
        with closing(packed):
            stream = _Stream(self, known, packed)
            for _ in stream:
                stream.row += 1
        return stream.row

    def _mark(self, file: FileIndex, row: int) -> tuple[int, int]:
        """The nearest place at or before a row from which reading can begin."""
        if FORMATS[file.form].packing or file.path not in self.marks:
            return 0, 0
        marks = self.marks[file.path]
        i = bisect_right([mark[0] for mark in marks], row) - 1
        return marks[i] if i >= 0 else (0, 0)

    def _set_mark(self, file: FileIndex, row: int, at: int) -> None:
        if not FORMATS[file.form].packing:
            self.marks[file.path] = [*self.marks.get(file.path, [])[-_MARKS:], (row, at)]

    def names(self, path: str) -> list[str]:
        """Names of a CSV file's columns, kept from its first line."""
        return self._names.setdefault(path, [])

    def close(self) -> None:
        """Nothing runs."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one kind of text is read."""

    split: Callable[..., Iterator[Record]]
    is_typed: bool
    """Its values have types of their own."""


_KINDS = {
    "jsonl": _Kind(records.json_lines, True),
    "csv": _Kind(records.csv_records, False),
    "text": _Kind(records.lines, True),
}


class _Stream:
    """Records of one file from some row on; `row` is the one that comes next, and is counted by who reads."""

    def __init__(self, reader: LinesReader, file: SourceFile, packed: Packed, row: int = 0) -> None:
        form = FORMATS[form_of(file.path) or ""]
        self.row, self._path, self._kind = row, file.path, form.kind
        self.names = reader.names(file.path)
        self.is_typed = _KINDS[form.kind].is_typed
        self.unpacked = 0
        pieces = self._counted(unpacked(packed, form.packing, file.path))
        more = (
            {"delimiter": "\t" if (form_of(file.path) or "").startswith("tsv") else ","} if form.kind == "csv" else {}
        )
        self._records = _KINDS[form.kind].split(
            records.without_mark(pieces) if row == 0 else pieces, file.path, lambda: self.row, **more
        )

    def __iter__(self) -> Iterator[Record]:
        if self._kind == "csv" and self.row == 0:
            first = next(self._records, None)
            if first is None:
                return
            self.names[:] = first.value
            if len(set(self.names)) != len(self.names):
                raise BadInput(f"{self._path} has two columns of one name", hint="its first line must name each column")
        yield from self._records

    def _counted(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self.unpacked += len(piece)
            yield piece

    def parse(self, record: Record) -> dict[str, Any]:
        """A record by column."""
        if self._kind == "jsonl":
            return records.parsed_json(record, self._path, self.row)
        if self._kind == "csv":
            return records.parsed_fields(record, self.names, self._path, self.row)
        return {"text": records.text(record.value, self._path, self.row)}


def _rows(pending: Sequence[tuple[int, dict[str, Any]]], schema: Any, path: str, is_typed: bool) -> Rows:
    batch = to_batch([value for _, value in pending], schema, path, pending[0][0], is_typed)
    return Rows(np.array([row for row, _ in pending], np.int64), batch)


def _probe(values: list[dict[str, Any]], schema: Any, packed: float, content: int, is_typed: bool) -> Probe:
    """Means over the rows of the first part; what they take here is measured by writing them."""
    rows = len(values)
    batch = to_batch(values, schema, "", 0, is_typed)
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_batches([batch]), sink, compression="zstd", row_group_size=1000)
    return Probe(rows, packed / rows, max(content, batch.nbytes) / rows, len(sink.getvalue()) / rows)
