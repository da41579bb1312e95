"""Parquet files by their footers: row groups, where each column's bytes lie, types. No row is read."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from outlast.data.index import Chunk, FileIndex, Group, Probe
from outlast.data.sources import Source, SourceFile
from outlast.errors import BadInput
from outlast.host import show_bytes

_MAGIC = b"PAR1"
_TAIL = 64 * 1024
_FOOTER_LIMIT = 256 << 20
_WRITTEN = {"UNCOMPRESSED": 1.0, "ZSTD": 1.1, "GZIP": 1.15, "BROTLI": 1.25, "SNAPPY": 1.0, "LZ4": 1.0, "LZ4_RAW": 1.0}
"""Bytes here (zstd) for a byte there, at most, by the codec there; text of each codec was measured."""


@dataclass(frozen=True, slots=True)
class Footer:
    """One Parquet file, as its footer has it."""

    index: FileIndex
    """Row groups and sizes."""
    metadata: Any
    """pyarrow's FileMetaData."""
    schema: Any
    """pyarrow's schema of the whole file."""


def read_footer(source: Source, path: str) -> Footer:
    """A file's footer.

    Raises:
        BadInput: it is no Parquet file, or is cut short.
    """
    file = source.look(path, "tail")
    size = file.size
    if size is None or size < 12:
        # A server that knows no ranges mostly says no size either: its own error is the clear one.
        if size is None:
            source.read(file, 0, 1)
        raise _damaged(path, f"it has {size} bytes")
    tail = source.read(file, max(0, size - _TAIL), size)
    if tail[-4:] != _MAGIC:
        start = source.read(file, 0, 4) if len(tail) < size else tail[:4]
        how = "it ends without Parquet's mark" if start == _MAGIC else "it has none of Parquet's marks"
        raise _damaged(path, how)
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if length > min(size - 4, _FOOTER_LIMIT):
        raise _damaged(path, f"its footer would have {show_bytes(length)}")
    if length > len(tail):
        tail = source.read(file, size - length, size)
    try:
        metadata = pq.read_metadata(io.BytesIO(_MAGIC + tail[-length:]))
        schema = metadata.schema.to_arrow_schema()
        groups = tuple(_group(metadata, number, schema.names, size) for number in range(metadata.num_row_groups))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(path, f"its footer cannot be read: {error}") from error
    return Footer(
        FileIndex(path, "parquet", size, file.version, groups, max(len(tail), min(size, _TAIL))), metadata, schema
    )


def _damaged(path: str, how: str) -> BadInput:
    return BadInput(
        f"{path} is no whole Parquet file: {how}", hint="it was cut short or is another format: get it anew"
    )


def _group(metadata: Any, number: int, names: Sequence[str], size: int) -> Group:
    group = metadata.row_group(number)
    chunks = []
    for i in range(group.num_columns):
        column = group.column(i)
        start = column.data_page_offset
        if column.has_dictionary_page and column.dictionary_page_offset:
            start = min(start, column.dictionary_page_offset)
        length = column.total_compressed_size
        if group.num_rows == 0:
            continue
        if start < 4 or length < 0 or start + length > size or group.num_rows < 0:
            raise ValueError(f"row group {number} lies outside the file")
        top = _top(column.path_in_schema, names)
        chunks.append(Chunk(top, start, length, max(column.total_uncompressed_size, 0)))
    return Group(group.num_rows, tuple(chunks))


def _top(path: str, names: Sequence[str]) -> str:
    """The top-level column of a leaf, whose path has dots; names of columns may have dots too."""
    fitting = [name for name in names if path == name or path.startswith(name + ".")]
    return max(fitting, key=len, default=path)


def chosen_schema(schema: Any, columns: Sequence[str] | None, path: str) -> Any:
    """The chosen columns of a schema, in the order asked for; of its metadata only the features of `datasets`.

    Raises:
        BadInput: a column is not there, or stands there twice.
    """
    names = schema.names if columns is None else list(columns)
    missing = [name for name in names if name not in schema.names]
    if missing:
        raise no_column(missing, schema.names, path)
    if len(set(schema.names)) != len(schema.names):
        raise BadInput(f"{path} has two columns of one name: {', '.join(schema.names)}", hint="rename one of them")
    if not names:
        raise BadInput(f"{path} has no columns", hint="name another source")
    return pa.schema([schema.field(name) for name in names], _features(schema.metadata, names))


def no_column(missing: Sequence[str], there: Sequence[str], path: str) -> BadInput:
    """The error for a column that is not there."""
    shown = ", ".join(list(there)[:50]) + (" ..." if len(there) > 50 else "")
    return BadInput(f"{path} has no column {', '.join(map(repr, missing))}", hint=f"it has: {shown}")


def _features(metadata: dict[bytes, bytes] | None, names: Sequence[str]) -> dict[bytes, bytes]:
    """What `datasets` keeps in a schema (class labels, images ...), for the chosen columns."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        kept = {name: features[name] for name in names}
    except (KeyError, TypeError, ValueError):
        return {}
    return {b"huggingface": json.dumps({"info": {"features": kept}}).encode()}


def means(footer: Footer, columns: Sequence[str]) -> Probe:
    """What a row of the chosen columns takes, over a whole file."""
    wanted = frozenset(columns)
    rows = packed = unpacked = 0
    stored = 0.0
    for number, group in enumerate(footer.index.groups or ()):
        rows += group.rows
        codecs = footer.metadata.row_group(number)
        for i, chunk in enumerate(group.chunks):
            if chunk.column in wanted:
                packed += chunk.length
                unpacked += max(chunk.unpacked, chunk.length)
                stored += chunk.length * _WRITTEN.get(codecs.column(i).compression, 1.0)
    few = max(rows, 1)
    return Probe(rows, packed / few, unpacked / few, stored / few)


def as_file(source: Source, index: FileIndex) -> SourceFile:
    """The file as it was looked at."""
    return SourceFile(index.path, index.size, index.version)
