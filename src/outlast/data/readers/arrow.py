"""Rows of Arrow files as `datasets` keeps them (its cache, or save_to_disk): mapped into memory, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa

from outlast.data.footers import chosen_schema
from outlast.data.index import FileIndex, Group, Probe, Run
from outlast.data.readers.interface import Look, Rows
from outlast.data.readers.parquet import check_same
from outlast.data.sources import Source
from outlast.errors import BadInput

_BATCH_ROWS = 256
_STORED = 0.6
"""Bytes here for a byte of Arrow, at most about: text in zstd."""


class ArrowReader:
    """Reads Arrow files of a source on this machine."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.marks: dict[str, list[tuple[int, int]]] = {}

    def look(self, path: str, columns: Sequence[str] | None) -> Look:
        """A file by its batches' headers."""
        file = self._source.look(path, "head")
        rows, size, schema = [], 0, None
        with self._mapped(path) as mapped:
            schema, batches = self._batches(mapped, path)
            chosen = chosen_schema(schema, columns, path)
            for batch in batches:
                rows.append(batch.num_rows)
                size += batch.select(chosen.names).get_total_buffer_size() if not size else 0
        first = max(rows[0] if rows else 0, 1)
        probe = Probe(sum(rows), (file.size or 0) / max(sum(rows), 1), size / first, size / first * _STORED)
        groups = tuple(Group(count) for count in rows)
        return Look(FileIndex(path, "arrow", file.size, file.version, groups), chosen, probe)

    def rows(self, file: FileIndex, runs: Sequence[Run], schema: Any) -> Iterator[Rows]:
        """Chosen rows."""
        with self._mapped(file.path) as mapped:
            found, batches = self._batches(mapped, file.path)
            check_same(chosen_schema(found, schema.names, file.path), schema, file.path)
            ends = list(accumulate(group.rows for group in file.groups or ()))
            i = 0
            for end, batch in zip(ends, batches, strict=True):
                batch = pa.RecordBatch.from_arrays([batch.column(name) for name in schema.names], schema=schema)
                start = end - batch.num_rows
                while i < len(runs) and runs[i].first < end:
                    for at in range(max(runs[i].first, start), min(runs[i].stop, end), _BATCH_ROWS):
                        stop = min(at + _BATCH_ROWS, runs[i].stop, end)
                        yield Rows(np.arange(at, stop), batch.slice(at - start, stop - at))
                    if runs[i].stop > end:
                        break
                    i += 1
                if i == len(runs):
                    return

    def count(self, file: FileIndex) -> int:
        """Rows by the batches' headers."""
        return file.rows or 0

    def _mapped(self, path: str) -> Any:
        where = self._source.local(path)
        if where is None:
            raise BadInput(
                f"{path}: Arrow files are read where they lie on this machine only",
                hint="name their Parquet files, or download the folder first",
            )
        try:
            return pa.memory_map(where)
        except (OSError, pa.ArrowException) as error:
            raise _damaged(path, error) from None

    def _batches(self, mapped: Any, path: str) -> tuple[Any, Iterator[Any]]:
        """Both of Arrow's layouts: the stream, which `datasets` writes, and the file."""
        try:
            if mapped.size() >= 6 and mapped.read_at(6, 0) == b"ARROW1":
                opened = pa.ipc.open_file(mapped)
                return opened.schema, _each(opened.get_batch, opened.num_record_batches, path)
            stream = pa.ipc.open_stream(mapped)
        except (OSError, pa.ArrowException) as error:
            raise _damaged(path, error) from None
        return stream.schema, _stream(stream, path)

    def close(self) -> None:
        """Nothing runs."""


def _each(batch: Any, number: int, path: str) -> Iterator[Any]:
    try:
        for i in range(number):
            yield batch(i)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, error) from None


def _stream(stream: Any, path: str) -> Iterator[Any]:
    try:
        yield from stream
    except (OSError, pa.ArrowException) as error:
        raise _damaged(path, error) from None


def _damaged(path: str, error: Exception) -> BadInput:
    return BadInput(f"{path} is no whole Arrow file: {error}", hint="it was cut short: build or get it anew")
