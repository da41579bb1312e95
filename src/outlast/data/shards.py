"""One shard: a zstd Parquet file whose bytes depend on its rows only, not on how they came. Written beside, renamed."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from outlast import durable
from outlast.data.index import Run

GROUP_ROWS = 1000
"""Rows of a row group."""
GROUP_BYTES = 32 << 20
"""Bytes of values at which a row group ends early: large rows."""
ROW_LIMIT = 64 << 20
"""Most bytes of one row."""
_ROWS = b"outlast.rows"


class ShardWriter:
    """Writes one shard beside its name; `finish` renames it.

    Args:
        path: its final name.
        part: where it is written; on the same file system.
        schema: of its rows.
        files: names of the source's files, for the runs.
        runs: which rows it holds.
        packer: one thread that packs row groups, while the next rows are unpacked.
    """

    def __init__(
        self, path: Path, part: Path, schema: Any, files: Sequence[str], runs: Sequence[Run], packer: ThreadPoolExecutor
    ) -> None:
        self._path, self._part = path, part
        self._schema = schema
        used = sorted({run.file for run in runs})
        place = {file: i for i, file in enumerate(used)}
        told = {"files": [files[i] for i in used], "runs": [[place[r.file], r.first, r.stop] for r in runs]}
        metadata = {**(schema.metadata or {}), _ROWS: json.dumps(told, separators=(",", ":")).encode()}
        self._file = part.open("wb")  # noqa: SIM115 - closed by finish or drop
        self._writer = pq.ParquetWriter(self._file, schema.with_metadata(metadata), compression="zstd")
        self._batches: list[Any] = []
        self._rows = self._bytes = 0
        self._packer, self._packing = packer, deque[Future[None]]()
        self.rows = 0

    def write(self, batch: Any, sizes: Any) -> None:
        """Add rows; a row group is written when it is full, wherever the batch ends.

        Args:
            batch: the rows.
            sizes: what `row_bytes` gives for them.
        """
        sizes = np.cumsum(sizes)
        at, passed = 0, 0
        while at < batch.num_rows:
            by_rows = at + GROUP_ROWS - self._rows
            by_bytes = int(np.searchsorted(sizes, passed + GROUP_BYTES - self._bytes)) + 1
            end = min(by_rows, by_bytes, batch.num_rows)
            self._batches.append(batch.slice(at, end - at))
            self._rows += end - at
            self._bytes += int(sizes[end - 1]) - passed
            at, passed = end, int(sizes[end - 1])
            if self._rows >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
                self._flush()

    def _flush(self) -> None:
        if self._batches:
            table = pa.Table.from_batches(self._batches, self._schema).combine_chunks()
            self._wait(1)
            self._packing.append(self._packer.submit(self._writer.write_table, table, row_group_size=GROUP_ROWS))
            self.rows += self._rows
        self._batches, self._rows, self._bytes = [], 0, 0

    def _wait(self, most: int) -> None:
        """Until no more row groups than this are being packed."""
        while len(self._packing) > most:
            self._packing.popleft().result()

    def finish(self) -> None:
        """Make it durable under its name."""
        self._flush()
        self._wait(0)
        self._writer.close()
        self._file.close()
        durable.sync_file(self._part)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        durable.replace(self._part, self._path)

    def drop(self) -> None:
        """Give up what is not finished."""
        self._batches = []
        for packing in self._packing:
            packing.cancel()
        wait(self._packing)
        with suppress(OSError, pa.ArrowException):
            self._writer.close()
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._part.unlink()


def row_bytes(batch: Any) -> Any:
    """Bytes of each row's values, by lengths and widths only: equal rows have equal sizes however they came."""
    total = np.zeros(batch.num_rows, np.int64)
    for column in batch.columns:
        total += _value_bytes(column)
    return total


def _value_bytes(array: Any) -> Any:
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _value_bytes(array.dictionary_decode())
    if isinstance(array, pa.ExtensionArray):
        return _value_bytes(array.storage)
    if _is_text(kind):
        # Of views there are no lengths to be had.
        plain = array.cast(pa.large_binary()) if str(kind).endswith("_view") else array
        lengths = pc.fill_null(pc.binary_length(plain), 0)
        return np.asarray(lengths, dtype=np.int64)
    if pa.types.is_struct(kind):
        return sum((_value_bytes(field) for field in array.flatten()), np.zeros(len(array), np.int64))
    if pa.types.is_map(kind):
        return _of_lists(array, array.keys) + _of_lists(array, array.items)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _of_lists(array, array.values)
    if pa.types.is_fixed_size_list(kind):
        width = kind.list_size
        inner = _value_bytes(array.values.slice(array.offset * width, len(array) * width))
        return inner.reshape(len(array), width).sum(axis=1) * np.asarray(array.is_valid())
    return np.full(len(array), 8, np.int64)


def _is_text(kind: Any) -> bool:
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary,
             pa.types.is_string_view, pa.types.is_binary_view)  # fmt: skip
    return any(test(kind) for test in tests)


def _of_lists(array: Any, values: Any) -> Any:
    sums = np.concatenate([[0], np.cumsum(_value_bytes(values))])
    offsets = np.asarray(array.offsets)
    return sums[offsets[1:]] - sums[offsets[:-1]]


def held_rows(metadata: Any) -> Iterator[tuple[str, int, int]]:
    """Which rows of its source a shard holds, in order: file, first row, one past the last; none for a foreign file."""
    try:
        told = json.loads(metadata.metadata[_ROWS])
        for file, first, stop in told["runs"]:
            yield told["files"][file], int(first), int(stop)
    except (KeyError, TypeError, ValueError, IndexError):
        return
