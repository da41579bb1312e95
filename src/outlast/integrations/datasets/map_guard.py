"""``Dataset.map`` and ``save_to_disk`` whose result would not fit are stopped before they have written anything.

`datasets` writes the result of each map beside the data set, all columns again, and asks nobody for room: a 130 MB text
became 30 GB (datasets#4897). The map's first piece is the sample that tells. Nothing stays of what a map has written
when it is stopped, or when it fails by itself.
"""

from __future__ import annotations

import functools
import inspect
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from outlast.errors import NoRoom
from outlast.host import allocated_bytes, memory_limit, room, show_bytes
from outlast.integrations.datasets.growth import DOUBT, Progress, fits
from outlast.journal import from_environment

_FRESH_SECONDS = 5.0
_STALE_SHARE = 8
_processes = 1
_maps = threading.local()


def install(module: ModuleType) -> None:
    """Guard ``Dataset.map``, what is built on it (``filter``, ``flatten_indices``), and ``save_to_disk``; once.

    Args:
        module: ``datasets.arrow_dataset``.
    """
    dataset, writer = module.Dataset, module.ArrowWriter
    if getattr(dataset._map_single, "_outlast", False) or not inspect.isgeneratorfunction(dataset._map_single):
        return
    dataset.map = _counting_processes(dataset.map)
    dataset.save_to_disk = _measuring_first(dataset.save_to_disk)
    dataset._map_single = staticmethod(_guarding(dataset._map_single))
    writer.__init__ = _noticing(writer.__init__)
    writer.write_table = _asking_first(writer.write_table)


class _Map:
    """One process's part of a map that is on."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.total_rows = len(arguments["shard"])
        batch = arguments.get("batch_size") or 0
        rows = batch if batch > 0 else self.total_rows  # to `datasets` -1 is all at once, as None is
        self.rows_a_call = rows if arguments.get("batched") else 1
        self.calls = 0
        self.writer: Any = None
        self.processes = _processes
        self._free: tuple[float, int, int | None] | None = None

    @property
    def part(self) -> Path | None:
        """The file that is being written; None for a map in memory, or to another machine."""
        path = self.writer is not None and self.writer._path
        return Path(path) if path and "://" not in str(path) else None

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The user's function, its calls counted."""

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            return function(*args, **kwargs)

        return call

    def ask(self, piece_bytes: int) -> None:
        """Raise NoRoom when what is to come does not fit. Coroutines run ahead of the writer and are not counted."""
        if self.part is None or not self.calls:
            return
        progress = Progress(
            min(self.calls * self.rows_a_call, self.total_rows), self.total_rows, self.writer.stream.tell(),
            piece_bytes, self.processes,
        )  # fmt: skip
        free = self._free_bytes(self.part.parent, progress.written_bytes, piece_bytes)
        if not fits(progress, free):
            raise _refusal(progress, free, self.part.parent)

    def _free_bytes(self, folder: Path, written: int, piece: int) -> int | None:
        """What is free, read again when it may be another figure: a declared budget is counted by walking a tree."""
        now = time.monotonic()
        if self._free is not None:
            read_at, then, free = self._free
            since = written - then + piece
            if now - read_at < _FRESH_SECONDS and (free is None or since < free // _STALE_SHARE):
                return None if free is None else free - (written - then)
        free = room(folder).free_bytes
        self._free = (now, written, free)
        return free


def _refusal(progress: Progress, free: int | None, folder: Path) -> NoRoom:
    from_environment(folder).write(
        "map_refused", path=str(folder), predicted_bytes=progress.predicted_bytes, free_bytes=free,
        done_rows=progress.done_rows, rows=progress.total_rows, processes=progress.processes,
    )  # fmt: skip
    what = "the result of map" + (f" in {progress.processes} processes" if progress.processes > 1 else "")
    return NoRoom(
        f"{what} needs about {show_bytes(progress.predicted_bytes)} in {folder}, where {show_bytes(free)} are free "
        f"(seen after {progress.done_rows:,} of {progress.total_rows:,} rows; what it had written is removed)",
        hint=_ways_out(progress),
    )


def _ways_out(progress: Progress) -> str:
    ways = [
        "name the columns that are not needed any more in remove_columns",
        "compute when read: dataset.with_transform(f)",
        "load_dataset(..., streaming=True)",
        "HF_DATASETS_CACHE on a roomier volume (outlast doctor names one)",
    ]
    limit = memory_limit()
    if limit is not None and 2 * progress.predicted_bytes < limit.free_bytes:
        ways.insert(1, f"keep_in_memory=True ({show_bytes(limit.free_bytes)} of RAM are left)")
    return "; or ".join(ways)


def _counting_processes(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def map(self: Any, *args: Any, **kwargs: Any) -> Any:
        # Forked workers find it as it is here; under another start method each of them judges for itself.
        global _processes
        before, _processes = _processes, kwargs.get("num_proc") or 1
        try:
            return original(self, *args, **kwargs)
        finally:
            _processes = before

    return map


def _measuring_first(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def save_to_disk(self: Any, dataset_path: Any, *args: Any, **kwargs: Any) -> Any:
        place = os.fspath(dataset_path)
        if "://" not in place and not kwargs.get("storage_options"):
            size, free = self._estimate_nbytes(), room(place).free_bytes
            if free is not None and size > (free + _replaced_bytes(Path(place))) * DOUBT:
                from_environment(Path(place)).write("save_refused", path=place, predicted_bytes=size, free_bytes=free)
                raise NoRoom(
                    f"save_to_disk needs about {show_bytes(size)} in {place}, where {show_bytes(free)} are free",
                    hint="to_parquet() writes the same rows compressed; or leave it: map keeps its result in the cache",
                )
        return original(self, dataset_path, *args, **kwargs)

    return save_to_disk


def _replaced_bytes(place: Path) -> int:
    """What is there and will be written over."""
    return allocated_bytes(place) if place.is_dir() else 0


def _guarding(original: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def _map_single(*args: Any, **kwargs: Any) -> Iterator[Any]:
        arguments = signature.bind(*args, **kwargs).arguments
        one = _Map(arguments)
        function = arguments.get("function")
        if function is not None and not inspect.iscoroutinefunction(function):
            arguments["function"] = one.counted(function)
        inner = original(**arguments)
        try:
            while True:
                with _on(one):
                    item = next(inner, None)
                if item is None:
                    return
                yield item
        except BaseException:
            # On a full volume datasets fails a second time as it closes the file, and leaves it there.
            _remove(one.part, arguments.get("cache_file_name"))
            raise
        finally:
            inner.close()  # type: ignore[attr-defined]

    _map_single._outlast = True  # type: ignore[attr-defined]
    return _map_single


@contextmanager
def _on(one: _Map) -> Iterator[None]:
    """While a map's own code runs; a map inside the user's function has its turn in between."""
    outer = getattr(_maps, "one", None)
    _maps.one = one
    try:
        yield
    finally:
        _maps.one = outer


def _noticing(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        one = getattr(_maps, "one", None)
        if one is not None:
            one.writer = self

    return __init__


def _asking_first(original: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(original)
    def write_table(self: Any, pa_table: Any, *args: Any, **kwargs: Any) -> None:
        one = getattr(_maps, "one", None)
        if one is not None and one.writer is self:
            one.ask(pa_table.nbytes)
        original(self, pa_table, *args, **kwargs)

    return write_table


def _remove(part: Path | None, final: str | None) -> None:
    if part is not None and (final is None or part != Path(final)):
        with suppress(OSError):
            os.unlink(part)
