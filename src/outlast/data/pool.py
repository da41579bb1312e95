"""Rows of the source that lie here already, in shards of an older or unfinished subset: they are not fetched again."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from outlast.data.index import Run
from outlast.data.shards import held_rows

_WRITER = f"parquet-cpp-arrow version {pa.cpp_version}"
"""What stands in a shard that this pyarrow wrote."""


class Piece(NamedTuple):
    """Rows that follow each other in one place."""

    shard: Path | None
    """Local shard that holds them; None when they come from the source."""
    at: int
    """The first one's row in that shard."""
    run: Run
    """Which they are."""


@dataclass(frozen=True, slots=True)
class _Held:
    first: int
    stop: int
    shard: Path
    at: int


class Pool:
    """Local shards that hold rows of a source.

    Args:
        shards: whole Parquet files that `ShardWriter` wrote from this state of the source.
        paths: names of the source's files.
        schema: of the chosen columns; a shard that lacks one is not used.
    """

    def __init__(self, shards: Sequence[Path], paths: Sequence[str], schema: Any) -> None:
        self._schema = schema
        self._open: dict[Path, _Opened] = {}
        self._held: dict[int, list[_Held]] = {}
        self._whole: dict[tuple[tuple[str, int, int], ...], Path] = {}
        self._paths = paths
        numbers = {path: i for i, path in enumerate(paths)}
        for shard in shards:
            metadata = _metadata(shard, schema)
            if metadata is None:
                continue
            runs, at = tuple(held_rows(metadata)), 0
            if metadata.created_by == _WRITER and metadata.schema.to_arrow_schema().equals(schema):
                self._whole[runs] = shard
            for path, first, stop in runs:
                if path in numbers:
                    self._held.setdefault(numbers[path], []).append(_Held(first, stop, shard, at))
                at += stop - first
        self._held = {file: _apart(held) for file, held in self._held.items()}
        self._starts = {file: [one.first for one in held] for file, held in self._held.items()}

    def same(self, runs: Sequence[Run]) -> Path | None:
        """A shard of just these rows, whose bytes are those that a new one would have."""
        return self._whole.get(tuple((self._paths[run.file], run.first, run.stop) for run in runs))

    def pieces(self, runs: Sequence[Run]) -> Iterator[Piece]:
        """Runs cut by where their rows are, in order."""
        for run in runs:
            held, at = self._held.get(run.file, []), run.first
            i = max(0, bisect_right(self._starts.get(run.file, []), at) - 1)
            while at < run.stop:
                while i < len(held) and held[i].stop <= at:
                    i += 1
                if i < len(held) and held[i].first <= at:
                    stop = min(run.stop, held[i].stop)
                    yield Piece(held[i].shard, held[i].at + at - held[i].first, Run(run.file, at, stop))
                else:
                    stop = min(run.stop, held[i].first) if i < len(held) else run.stop
                    yield Piece(None, 0, Run(run.file, at, stop))
                at = stop

    def rows(self, piece: Piece) -> Iterator[Any]:
        """The rows of a piece that lies here, as record batches."""
        assert piece.shard is not None
        if piece.shard not in self._open:
            if len(self._open) >= 8:
                self._open.pop(next(iter(self._open))).close()
            self._open[piece.shard] = _Opened(piece.shard, self._schema)
        yield from self._open[piece.shard].rows(piece.at, piece.run.rows)

    def close(self) -> None:
        """Close its files."""
        for opened in self._open.values():
            opened.close()
        self._open = {}


def _apart(held: list[_Held]) -> list[_Held]:
    """In order and without overlaps: what two shards hold is taken from one."""
    found, end = [], 0
    for one in sorted(held, key=lambda one: (one.first, -one.stop)):
        first = max(one.first, end)
        if first < one.stop:
            found.append(_Held(first, one.stop, one.shard, one.at + first - one.first))
            end = one.stop
    return found


class _Opened:
    """A shard whose last row group is kept, since pieces of it come in order."""

    def __init__(self, path: Path, schema: Any) -> None:
        self._file = pq.ParquetFile(path)
        self._schema = schema
        metadata = self._file.metadata
        self._ends = [0]
        for i in range(metadata.num_row_groups):
            self._ends.append(self._ends[-1] + metadata.row_group(i).num_rows)
        self._kept: tuple[int, Any] = (-1, None)

    def rows(self, at: int, rows: int) -> Iterator[Any]:
        stop = at + rows
        while at < stop:
            group = bisect_right(self._ends, at) - 1
            if self._kept[0] != group:
                table = self._file.read_row_group(group, columns=self._schema.names, use_threads=False)
                self._kept = (group, table.select(self._schema.names).cast(self._schema).combine_chunks())
            end = min(stop, self._ends[group + 1])
            for batch in self._kept[1].slice(at - self._ends[group], end - at).to_batches():
                yield pa.RecordBatch.from_arrays(batch.columns, schema=self._schema)
            at = end

    def close(self) -> None:
        self._kept = (-1, None)
        self._file.close()


def _metadata(shard: Path, schema: Any) -> Any:
    """A shard's footer when it has the wanted columns; None when it cannot be used."""
    try:
        metadata = pq.read_metadata(shard)
        there = metadata.schema.to_arrow_schema()
        fits = all(name in there.names and there.field(name).equals(schema.field(name)) for name in schema.names)
    except (pa.ArrowException, OSError):
        return None
    return metadata if fits else None
