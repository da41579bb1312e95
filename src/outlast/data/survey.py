"""Looks at a source until enough is known to plan: footers, or the first part of a text. Reads no rows."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from outlast.data.formats import form_of
from outlast.data.index import FileIndex, Index, Probe
from outlast.data.request import Request
from outlast.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outlast.data.readers import Look, Reader
    from outlast.data.sources import Source

Counts = Mapping[str, tuple[str | None, int]]
"""Files whose rows were counted: version and rows."""
_AT_ONCE = 4
_MEASURED_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Survey:
    """A source that was looked at, and what reads it."""

    index: Index
    """What is known."""
    schema: Any
    """pyarrow's schema of the chosen columns."""
    source: Source
    """Still open."""
    reader: Reader
    """Still open."""


@contextmanager
def surveyed(source: Source, request: Request, counts: Counts | None = None) -> Iterator[Survey]:
    """Look at a source; it and its reader stay open meanwhile.

    Args:
        source: closed at the end.
        request: how many rows, and which columns.
        counts: rows of files that were counted before.

    Raises:
        BadInput: nothing there, a column that is missing, types that differ.
    """
    from outlast.data.readers import open_reader

    with closing(source):
        paths = source.paths()
        reader = open_reader(source, form_of(paths[0]) or "")
        with closing(reader):
            looks = _looks(paths, reader, request, counts or {})
            filled = [look for look in looks if look.index.rows != 0]
            if not filled and len(looks) == len(paths):
                raise BadInput(f"{source.name} has no rows", hint="an empty source: look at what wrote it")
            first = filled[0]
            _check_alike(filled)
            columns = tuple((field.name, str(field.type)) for field in first.schema)
            index = Index(
                source.name, source.revision, tuple(look.index for look in looks), len(looks) == len(paths), columns,
                first.probe, None, source.notes,
            )  # fmt: skip
            yield Survey(index, first.schema, source, reader)


def _looks(paths: tuple[str, ...], reader: Reader, request: Request, counts: Counts) -> list[Look]:
    """Files in order: for head until the rows are there, else all, a few at once."""

    def look(path: str) -> Look:
        found = reader.look(path, request.columns)
        return replace(found, index=_counted(found.index, counts))

    looks = [look(paths[0])]
    if request.sample == "head" and request.rows is not None:
        while len(looks) < len(paths) and sum(about_rows(seen.index, seen.probe) for seen in looks) < request.rows:
            looks.append(look(paths[len(looks)]))
        return looks
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="outlast-look") as pool:
        return looks + list(pool.map(look, paths[1:]))


def _counted(file: FileIndex, counts: Counts) -> FileIndex:
    version, rows = counts.get(file.path, (None, None))
    return file if file.groups is not None or rows is None or version != file.version else file.counted(rows)


def about_rows(file: FileIndex, probe: Probe) -> int:
    """Rows of a file, or about how many by its first part; 0 when nothing is known."""
    if file.rows is not None:
        return file.rows
    return int((file.size or 0) / max(probe.packed, 1e-9))


def _check_alike(looks: list[Look]) -> None:
    first = looks[0].schema
    for look in looks[1:]:
        if not look.schema.equals(first):
            from outlast.data.readers.parquet import differs

            raise differs(look.schema, first, look.index.path)


def measure(survey: Survey) -> float | None:
    """Bytes a second at which the source gives a part of its first file; None when it is too small to tell."""
    file = survey.index.files[0]
    if file.size is None or file.size < 2 * _MEASURED_BYTES:
        return None
    from outlast.data.sources import SourceFile

    known = SourceFile(file.path, file.size, file.version)
    start = time.perf_counter()
    survey.source.read(known, 4096, 4096 + _MEASURED_BYTES)
    return _MEASURED_BYTES / max(time.perf_counter() - start, 1e-6)
