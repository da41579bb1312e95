"""Makes a subset: fetches what the plan says and is not here, writes shards, and publishes them with their manifest."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from outlast import durable
from outlast.data.describe import manifest_of, plan_key, state
from outlast.data.index import count
from outlast.data.manifest import Manifest, ShardFile, digest
from outlast.data.planning import Plan, decide, fitting, free_bytes
from outlast.data.pool import Piece, Pool
from outlast.data.readers import Rows, ShorterFile
from outlast.data.request import PARTS, Request, request
from outlast.data.shards import ROW_LIMIT, ShardWriter, row_bytes
from outlast.data.sources import open_source
from outlast.data.spans import Span, rows_of
from outlast.data.split import parts_by_hash
from outlast.data.stage import Stage
from outlast.data.survey import Survey, surveyed
from outlast.errors import BadInput, NoRoom, SourceChanged
from outlast.host import explain_full, room, show_bytes


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a fetch is."""

    rows: int
    """Rows that are done."""
    of_rows: int
    """Rows of the subset."""
    wire_bytes: int
    """Bytes that travelled for it so far."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A subset that is whole."""

    manifest: Manifest
    """What is there."""
    wire_bytes: int
    """Bytes that travelled for it, footers too."""
    reused_rows: int
    """Rows that lay here already."""
    notes: tuple[str, ...]
    """What was left aside, or is not as asked; for the user."""


def fetch(source: str, out: str | Path, **wanted: Any) -> Manifest:
    """Make a subset, or go on where it was; the folder holds it whole afterwards.

    Args:
        source: as of `outlast.data.plan`.
        out: its folder.
        wanted: as of `outlast.data.plan`.

    Returns:
        What the folder holds.

    Raises:
        BadInput: what makes no sense, is not there, or is damaged.
        SourceFailed: the source does not answer; what is done is kept.
        SourceChanged: the source is not what it was when this subset was begun.
        NoRoom: it does not fit; what is done is kept.
        VaultBusy: another process is fetching into the folder.
    """
    return fetch_telling(source, out, lambda progress: None, **wanted).manifest


def fetch_telling(source: str, out: str | Path, tell: Callable[[Progress], None], **wanted: Any) -> Fetched:
    """As `fetch`, and says how far it is.

    Args:
        source: as of `outlast.data.plan`.
        out: its folder.
        tell: called after each piece of work.
        wanted: as of `outlast.data.plan`.
    """
    asked = request(**wanted)
    stage = Stage(Path(out).expanduser().absolute())
    with stage.held():
        while True:
            with surveyed(open_source(source), asked, stage.counts()) as survey:
                try:
                    plan = _counted(stage, survey, asked)
                    if _is_short(plan):
                        continue  # more of the source's files must be looked at, now that these are counted
                    return _Fetch(stage, survey, plan, tell).run()
                except ShorterFile as found:
                    # Looked at from its first part it seemed to have more rows. Now it is counted: plan anew; the rows
                    # that were fetched are here.
                    stage.add_count(found.path, _version_of(survey, found.path), found.rows)


def _counted(stage: Stage, survey: Survey, asked: Request) -> Plan:
    """The plan, after counting the rows of files without footers where it depends on them."""
    index = survey.index
    while True:
        plan = decide(index, asked, free_bytes(stage.out, asked), is_remote=survey.is_remote)
        number = next((i for i, file in enumerate(index.files) if file.groups is None), None)
        if not plan.must_count or number is None:
            return plan
        file = index.files[number]
        rows = survey.reader.count(file)
        stage.add_count(file.path, file.version, rows)
        files = tuple(file.counted(rows) if i == number else other for i, other in enumerate(index.files))
        index = replace(index, files=files)


def _is_short(plan: Plan) -> bool:
    """The files that were looked at seemed to hold enough rows, and do not."""
    asked, found = plan.request.rows, sum(file.rows or 0 for file in plan.index.files)
    counted = all(file.groups is not None for file in plan.index.files)
    return not plan.index.is_complete and counted and (asked is None or found < asked)


def _version_of(survey: Survey, path: str) -> str | None:
    return next(file.version for file in survey.index.files if file.path == path)


class _Fetch:
    """One fetch under way."""

    def __init__(self, stage: Stage, survey: Survey, plan: Plan, tell: Callable[[Progress], None]) -> None:
        self._stage, self._survey, self._plan, self._tell = stage, survey, plan, tell
        self._paths = [file.path for file in plan.index.files]
        self._rows = 0

    def run(self) -> Fetched:
        """All of it."""
        try:
            return self._run()
        except OSError as error:
            if error.errno not in durable.FULL:
                raise
            raise self._no_room(explain_full(self._stage.out, error.errno, room(self._stage.out))) from error

    def _run(self) -> Fetched:
        plan, stage = self._plan, self._stage
        key = plan_key(plan, self._survey.schema)
        now = stage.current()
        if now is not None and now.key == key and _is_whole(stage.out, now):
            return self._done(now, sum(now.rows.values()))
        stage.check_strangers()
        states = {file.path: state(plan.index.source, file) for file in plan.index.files}
        fetched = {file.path: state(now.source, file) for file in now.files} if now else {}
        _check_unchanged({**stage.begun(), **fetched}, states, stage.out, now.revision if now else None)
        stage.begin({"key": key, "states": states})
        self._survey.reader.marks.update(stage.marks())
        with closing(self._pool(now)) as pool:
            pending = [span for span in plan.spans if not self._is_done(span) and not self._is_taken_over(span, pool)]
            self._rows = plan.rows or 0
            self._rows -= sum(count(span.runs) for span in pending)
            self._admit(pending)
            reused = self._rows  # of spans that are done
            reused += sum(piece.run.rows for span in pending for piece in pool.pieces(span.runs) if piece.shard)
            self._make(pending, pool)
        manifest = self._manifest(key)
        stage.publish(manifest)
        return self._done(manifest, reused)

    def _done(self, manifest: Manifest, reused: int) -> Fetched:
        return Fetched(manifest, self._survey.source.traveled(), reused, self._plan.notes)

    def _pool(self, now: Manifest | None) -> Pool:
        """What lies here of this state of the source."""
        out = self._stage.out
        shards = [out / shard.path for shard in (now.shards if now else ()) if _verifies(out, shard)]
        states = {file.path: state(self._plan.index.source, file) for file in self._plan.index.files}
        for folder, plan in self._stage.left():
            before = plan.get("states")
            if isinstance(before, dict) and all(states.get(path, its) == its for path, its in before.items()):
                shards += sorted(folder.glob("*/*.parquet"))
        return Pool(shards, self._paths, self._survey.schema)

    def _is_done(self, span: Span) -> bool:
        return all((self._stage.next / shard.name).is_file() for shard in span.shards)

    def _is_taken_over(self, span: Span, pool: Pool) -> bool:
        """Shards that lie here with just these rows get a second name: no room, no time."""
        asked = self._plan.request
        found = []
        for shard in span.shards:
            same = pool.same(rows_of(span.runs, shard.part, asked.split, asked.seed, self._paths))
            if same is None:
                return False
            found.append((same, self._stage.next / shard.name))
        try:
            for same, name in found:
                name.parent.mkdir(parents=True, exist_ok=True)
                if not name.exists():
                    os.link(same, name)
                durable.sync_folder(name.parent)
        except OSError as error:
            if error.errno in durable.FULL:
                raise
            return False  # a file system without links: they are written anew
        return True

    def _admit(self, pending: Sequence[Span]) -> None:
        """Refuse before a row travels what is known not to fit."""
        plan = self._plan
        rows = sum(count(span.runs) for span in pending)
        needed = plan.cost.disk_bytes * rows // max(plan.rows or 1, 1)
        if plan.room_bytes is not None and needed > plan.room_bytes:
            raise self._no_room(f"{show_bytes(needed)} are needed, {show_bytes(plan.room_bytes)} may be written there")

    def _check_room(self, span: Span) -> None:
        """Others write too; and an estimate is one."""
        free, needed = free_bytes(self._stage.out, self._plan.request), self._plan.index.probe.stored
        if free is not None and count(span.runs) * needed > free:
            raise self._no_room(f"{show_bytes(free)} may be written there now")

    def _check_bound(self) -> None:
        """How many rows the bound holds was an estimate too."""
        most = self._plan.request.max_bytes
        if most is None:
            return
        written = sum(path.stat().st_size for path in self._stage.next.glob("*/*.parquet"))
        if written > most:
            fewer = int(0.98 * self._rows * most / written)
            raise NoRoom(
                f"{self._rows:,} of {self._plan.rows:,} rows take {show_bytes(written)}, max_bytes is "
                f"{show_bytes(most)}",
                hint=f"about {fewer:,} rows fit (--rows); what is done is kept" if fewer else "allow more",
            )

    def _no_room(self, why: str) -> NoRoom:
        free = free_bytes(self._stage.out, self._plan.request)
        each = self._plan.index.probe.stored
        fits = None if free is None else self._rows + fitting(free, each)
        about = f"about {fits:,} rows fit (--rows)" if fits else "make room"
        return NoRoom(
            f"{self._stage.out} has no room for this subset: {why}; {self._rows:,} of {self._plan.rows:,} rows done",
            hint=f"{about}; what is done is kept: the same command goes on when there is room",
        )

    def _make(self, pending: Sequence[Span], pool: Pool) -> None:
        stream = _Stream(self._from_source(pending, pool))
        packer = ThreadPoolExecutor(1, thread_name_prefix="outlast-pack")
        try:
            for span in pending:
                self._check_room(span)
                self._span(span, pool, stream, packer)
                self._rows += count(span.runs)
                self._check_bound()
                if self._survey.reader.marks:
                    self._stage.keep_marks(self._survey.reader.marks)
                self._tell(Progress(self._rows, self._plan.rows or 0, self._survey.source.traveled()))
        finally:
            stream.close()
            packer.shutdown()

    def _from_source(self, pending: Sequence[Span], pool: Pool) -> Iterator[tuple[int, Rows]]:
        """Rows that are not here, in order, as one stream: a row group on the border of two spans is read once."""
        missing = (piece.run for span in pending for piece in pool.pieces(span.runs) if piece.shard is None)
        for number, runs in groupby(missing, key=lambda run: run.file):
            for rows in self._survey.reader.rows(self._plan.index.files[number], list(runs), self._survey.schema):
                yield number, rows

    def _span(self, span: Span, pool: Pool, stream: _Stream, packer: ThreadPoolExecutor) -> None:
        writers: dict[str, ShardWriter] = {}
        asked = self._plan.request
        try:
            for shard in span.shards:
                runs = rows_of(span.runs, shard.part, asked.split, asked.seed, self._paths)
                part = self._stage.next / f"part-{shard.part}"
                writers[shard.part] = ShardWriter(
                    self._stage.next / shard.name, part, self._survey.schema, self._paths, runs, packer
                )
            for number, rows in self._rows_of(span, pool, stream):
                self._write(writers, number, rows)
            for shard in span.shards:
                writers[shard.part].finish()
                if writers[shard.part].rows != shard.rows:
                    raise AssertionError(f"{shard} has {writers[shard.part].rows} rows")
        except pa.ArrowNotImplementedError as error:
            raise BadInput(f"Parquet cannot hold a column: {error}", hint="leave it out (--columns)") from error
        finally:
            for writer in writers.values():
                writer.drop()

    def _rows_of(self, span: Span, pool: Pool, stream: _Stream) -> Iterator[tuple[int, Rows]]:
        """The rows of a span in order, from here and from the source."""
        pieces = pool.pieces(span.runs)
        for is_here, group in groupby(pieces, key=lambda piece: piece.shard is not None):
            if not is_here:
                yield from stream.take(sum(piece.run.rows for piece in group))
                continue
            for piece in group:
                yield from _from_pool(pool, piece)

    def _write(self, writers: dict[str, ShardWriter], number: int, rows: Rows) -> None:
        sizes = row_bytes(rows.batch)
        if int(sizes.max(initial=0)) > ROW_LIMIT:
            worst = int(np.argmax(sizes))
            raise BadInput(
                f"{self._paths[number]}, row {int(rows.rows[worst]):,} has {show_bytes(int(sizes[worst]))}; "
                f"at most {show_bytes(ROW_LIMIT)} are taken",
                hint="leave the column out (--columns), or cut the row in the source",
            )
        asked = self._plan.request
        if not asked.split.by_hash:
            (writer,) = writers.values()
            writer.write(rows.batch, sizes)
            return
        parts = parts_by_hash(asked.split, asked.seed, self._paths[number], rows.rows)
        for part, name in enumerate(PARTS[: len(asked.split.shares)]):
            mine = np.flatnonzero(parts == part)
            if len(mine):
                writers[name].write(rows.batch.take(pa.array(mine)), sizes[mine])

    def _manifest(self, key: str) -> Manifest:
        plan = self._plan
        shards = []
        for shard in (shard for span in plan.spans for shard in span.shards):
            path = self._stage.next / shard.name
            shards.append(ShardFile(shard.name, shard.rows, path.stat().st_size, digest(path)))
        return manifest_of(plan, shards, key)


class _Stream:
    """Rows from the source, handed out by number."""

    def __init__(self, rows: Iterator[tuple[int, Rows]]) -> None:
        self._rows = rows
        self._rest: tuple[int, Rows] | None = None

    def take(self, rows: int) -> Iterator[tuple[int, Rows]]:
        """The next so many."""
        while rows:
            number, found = self._rest or next(self._rows)
            self._rest = None
            size = len(found.rows)
            if size > rows:
                self._rest = (number, Rows(found.rows[rows:], found.batch.slice(rows)))
                found = Rows(found.rows[:rows], found.batch.slice(0, rows))
            rows -= len(found.rows)
            yield number, found

    def close(self) -> None:
        """Stop what is in flight."""
        close = getattr(self._rows, "close", None)
        if close:
            close()


def _from_pool(pool: Pool, piece: Piece) -> Iterator[tuple[int, Rows]]:
    at = piece.run.first
    for batch in pool.rows(piece):
        yield piece.run.file, Rows(np.arange(at, at + batch.num_rows), batch)
        at += batch.num_rows


def _check_unchanged(before: dict[str, str], now: dict[str, str], out: Path, revision: str | None) -> None:
    old = f", or name the old state: @{revision}" if revision else ""
    for path, its in before.items():
        if path in now and now[path] != its:
            raise SourceChanged(
                f"{path} changed since {out} was fetched from it: {now[path]}, not {its}",
                hint=f"a subset is of one state of its source: fetch the new one into another folder (-o){old}",
            )


def _verifies(out: Path, shard: ShardFile) -> bool:
    path = out / shard.path
    try:
        return path.stat().st_size == shard.size_bytes and digest(path) == shard.blake3
    except OSError:
        return False


def _is_whole(out: Path, manifest: Manifest) -> bool:
    return all(_verifies(out, shard) for shard in manifest.shards)
