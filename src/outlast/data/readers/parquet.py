"""Rows of Parquet files: only the row groups and columns that are wanted, fetched ahead, unpacked page by page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from outlast.data.ahead import IN_FLIGHT, Ahead
from outlast.data.footers import Footer, as_file, chosen_schema, means, read_footer
from outlast.data.index import FileIndex, Run
from outlast.data.pages import PageWatch
from outlast.data.ranges import Wanted, blocks, wanted_groups
from outlast.data.readers.interface import Look, Rows
from outlast.data.sources import Source
from outlast.errors import BadInput, SourceFailed

_BATCH_ROWS = 256
_BATCH_BYTES = 16 << 20
_BUFFER = 256 * 1024


class ParquetReader:
    """Reads Parquet files of one source."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._footers: dict[str, Footer] = {}
        self.marks: dict[str, list[tuple[int, int]]] = {}
        self._pool = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="outlast-fetch")

    def look(self, path: str, columns: Sequence[str] | None) -> Look:
        """A file by its footer."""
        footer = self._footers[path] = read_footer(self._source, path)
        schema = chosen_schema(footer.schema, columns, path)
        return Look(footer.index, schema, means(footer, schema.names))

    def rows(self, file: FileIndex, runs: Sequence[Run], schema: Any) -> Iterator[Rows]:
        """Chosen rows, a few hundred at a time."""
        footer = self._footers.get(file.path) or read_footer(self._source, file.path)
        check_same(chosen_schema(footer.schema, schema.names, file.path), schema, file.path)
        wanted = wanted_groups(file, runs)
        names = frozenset(schema.names)
        source = as_file(self._source, file)
        fetch = partial(self._source.read, source)
        with Ahead(
            file.size or 0, blocks(file, wanted, names), fetch, self._pool, _watches(file, wanted, names)
        ) as ahead:
            opened = pq.ParquetFile(
                pa.PythonFile(ahead, mode="r"), metadata=footer.metadata, buffer_size=_BUFFER, pre_buffer=False
            )
            for need in wanted:
                yield from _of_group(opened, file, need, schema)
                ahead.done_with(need.group)

    def count(self, file: FileIndex) -> int:
        """Rows by the footer."""
        return file.rows or 0

    def close(self) -> None:
        """Let no thread begin anything; the source, closed next, ends their waits."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _watches(file: FileIndex, wanted: Sequence[Wanted], names: frozenset[str]) -> list[tuple[int, int, PageWatch]]:
    found = []
    for need in wanted:
        for chunk in (file.groups or ())[need.group].chunks:
            if chunk.column in names:
                place = f"{file.path}, row group {need.group}, column {chunk.column!r}, rows from {need.before:,} on"
                stop = chunk.start + chunk.length
                found.append((chunk.start, stop, PageWatch(chunk.start, stop, place)))
    return found


def _of_group(opened: Any, file: FileIndex, need: Wanted, schema: Any) -> Iterator[Rows]:
    group = (file.groups or ())[need.group]
    unpacked = sum(chunk.unpacked for chunk in group.chunks if chunk.column in schema.names)
    size = max(1, min(_BATCH_ROWS, int(_BATCH_BYTES * group.rows / max(unpacked, 1))))
    last, at = need.runs[-1][1], 0
    try:
        batches = opened.iter_batches(size, row_groups=[need.group], columns=schema.names, use_threads=False)
        for batch in batches:
            taken = _within(need.runs, at, at + batch.num_rows)
            if len(taken):
                batch = pa.RecordBatch.from_arrays([batch.column(name) for name in schema.names], schema=schema)
                yield Rows(taken + need.before, _taken(batch, taken - at))
            at += batch.num_rows
            if at >= last:
                return
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, SourceFailed):
            raise
        raise BadInput(
            f"{file.path}, row group {need.group}, behind row {need.before + at:,}, cannot be read: {error}",
            hint="the file is damaged there: get it anew, or leave out the column (--columns)",
        ) from error
    if at < last:
        raise BadInput(
            f"{file.path}, row group {need.group} has {at:,} rows, its footer says {group.rows:,}",
            hint="the file is damaged: get it anew",
        )


def _within(runs: Sequence[tuple[int, int]], first: int, stop: int) -> Any:
    """Rows of the runs in first .. stop-1."""
    inside = [np.arange(max(low, first), min(high, stop)) for low, high in runs if low < stop and high > first]
    return np.concatenate(inside) if inside else np.empty(0, np.int64)


def _taken(batch: Any, places: Any) -> Any:
    if len(places) == batch.num_rows:
        return batch
    if places[-1] - places[0] + 1 == len(places):
        return batch.slice(int(places[0]), len(places))
    return batch.take(pa.array(places))


def check_same(found: Any, wanted: Any, path: str) -> None:
    """Raise BadInput where a file's columns are not those of the first one."""
    if not found.equals(wanted):
        raise differs(found, wanted, path)


def _words(field: Any) -> str:
    if field is None:
        return "missing"
    return str(field.type) + ("" if field.nullable else " not null")


def differs(found: Any, wanted: Any, path: str) -> BadInput:
    """The error for a file whose columns are not those of the first one."""
    there, first = ({name: schema.field(name) for name in schema.names} for schema in (found, wanted))
    other = [
        f"{name} is {_words(there.get(name))} there, {_words(first.get(name))} in the first file"
        for name in {**first, **there}
        if name not in there or name not in first or not there[name].equals(first[name])
    ]
    return BadInput(
        f"{path} has other columns than the files before: {'; '.join(other) or 'the same in another order'}",
        hint="choose columns that are alike in all files (--columns), or files with a pattern",
    )
