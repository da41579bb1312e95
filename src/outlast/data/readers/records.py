"""Records of a text: lines of JSON, of CSV, plain ones. Bounded: one that is too large is refused with its place."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from outlast.data.shards import ROW_LIMIT
from outlast.errors import BadInput
from outlast.host import show_bytes

_BOM = b"\xef\xbb\xbf"


class Record(NamedTuple):
    """One row, not yet read."""

    value: Any
    """A line's bytes, or a CSV record's fields."""
    end: int
    """Bytes of the content up to its end."""


def lines(pieces: Iterator[bytes], path: str, row: Callable[[], int], with_ends: bool = False) -> Iterator[Record]:
    """Lines.

    Args:
        pieces: the content.
        path: for the error.
        row: which row comes next, for the error.
        with_ends: leave the lines their ends.

    Raises:
        BadInput: a line of more than `ROW_LIMIT` bytes.
    """
    held: list[bytes] = []
    size = end = 0
    for piece in pieces:
        parts = piece.split(b"\n")
        for part in parts[:-1]:
            line = b"".join((*held, part)) if held else part
            held, size = [], 0
            end += len(line) + 1
            yield Record(line + b"\n" if with_ends else line.removesuffix(b"\r"), end)
        if parts[-1]:
            held.append(parts[-1])
            size += len(parts[-1])
        if size > ROW_LIMIT:
            raise BadInput(
                f"{path}, row {row():,} has more than {show_bytes(ROW_LIMIT)}",
                hint="at most that much of one row is taken into memory: cut it, or leave the file out",
            )
    if held:
        line = b"".join(held)
        yield Record(line, end + len(line))


def json_lines(pieces: Iterator[bytes], path: str, row: Callable[[], int]) -> Iterator[Record]:
    """Lines that are not blank."""
    for record in lines(pieces, path, row):
        if record.value.strip():
            yield record


def csv_records(pieces: Iterator[bytes], path: str, row: Callable[[], int], delimiter: str) -> Iterator[Record]:
    """Records of a CSV file; its first one holds the names.

    Raises:
        BadInput: no text, or a quotation that does not end.
    """
    end = 0

    def texts() -> Iterator[str]:
        nonlocal end
        for record in lines(pieces, path, row, with_ends=True):  # those within quotes are content
            end = record.end
            yield text(record.value, path, row())

    csv.field_size_limit(max(csv.field_size_limit(), ROW_LIMIT))
    try:
        for fields in csv.reader(texts(), delimiter=delimiter, strict=True):
            if fields:
                yield Record(fields, end)
    except csv.Error as error:
        raise BadInput(f"{path}, row {row():,} is no CSV: {error}", hint="look at the quotes before that row") from None


def text(line: bytes, path: str, row: int) -> str:
    """A line's text.

    Raises:
        BadInput: it is not UTF-8.
    """
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}, row {row:,} is no UTF-8: {error}", hint="write the file anew as UTF-8") from None


def without_mark(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The content without a byte order mark."""
    first = True
    for piece in pieces:
        yield piece.removeprefix(_BOM) if first else piece
        first = False


def parsed_json(record: Record, path: str, row: int) -> dict[str, Any]:
    """The object of a JSON line.

    Raises:
        BadInput: it is none.
    """
    try:
        value = json.loads(text(record.value, path, row))
    except (ValueError, RecursionError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{path}, row {row:,} is no JSON: {error}", hint=_json_hint(record.value, path)) from None
    if not isinstance(value, dict):
        raise BadInput(
            f"{path}, row {row:,}: expected an object, got {type(value).__name__}", hint=_json_hint(record.value, path)
        )
    return value


def _json_hint(line: bytes, path: str) -> str:
    if line.lstrip()[:1] == b"[":
        return f"one object a line is read; an array becomes that by: jq -c '.[]' {path} > rows.jsonl"
    return "one object a line is read (JSON lines)"


def parsed_fields(record: Record, names: Sequence[str], path: str, row: int) -> dict[str, str]:
    """A CSV record by its names.

    Raises:
        BadInput: it has more or fewer fields.
    """
    if len(record.value) != len(names):
        raise BadInput(
            f"{path}, row {row:,} has {len(record.value)} fields, its first line {len(names)}",
            hint="look at the quotes and separators there",
        )
    return dict(zip(names, record.value, strict=True))
