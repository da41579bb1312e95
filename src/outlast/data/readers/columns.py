"""Columns of rows that come as Python values: their types from the first part, and record batches of those types."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from outlast.errors import BadInput


def typed(
    values: Sequence[dict[str, Any]], names: Sequence[str], is_typed: bool, path: str, wanted: Sequence[str] | None
) -> Any:
    """The schema of rows.

    Args:
        values: the first ones.
        names: in their order; empty where each row names its own.
        is_typed: values have types (JSON); otherwise they are texts, of which numbers are recognised.
        path: for the error.
        wanted: the columns whose types matter; None for all. Those of the others are null.

    Raises:
        BadInput: a column has values of several types, or some that Parquet cannot hold.
    """
    order = list(names) or list(dict.fromkeys(name for value in values for name in value))
    fields = []
    for name in order:
        if wanted is not None and name not in wanted:
            fields.append(pa.field(name, pa.null()))
            continue
        column = [value.get(name) for value in values]
        kind = _inferred(column, name, path) if is_typed else _recognised(column)
        # All empty so far: text is what most columns turn out to be.
        fields.append(pa.field(name, _without_nulls(kind, name, path)))
    return pa.schema(fields)


def _inferred(column: list[Any], name: str, path: str) -> Any:
    try:
        return pa.array(column).type
    except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
        raise BadInput(
            f"{path}, column {name!r} has values of several types, or such as no type holds: {error}",
            hint="leave it out (--columns), or write it as text",
        ) from None


def _without_nulls(kind: Any, name: str, path: str) -> Any:
    if pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_without_nulls(kind.value_type, name, path))
    if pa.types.is_struct(kind):
        if not kind.num_fields:
            raise BadInput(
                f"{path}, column {name!r} has only empty objects in the first part, which Parquet cannot hold",
                hint="leave it out (--columns), or write it as text",
            )
        return pa.struct([pa.field(field.name, _without_nulls(field.type, name, path)) for field in kind])
    return kind


def _recognised(column: list[str | None]) -> Any:
    filled = [value for value in column if value]
    for kind, read in _READ.items():
        if filled and all(_can(read, value) for value in filled):
            return _KINDS[kind]
    return pa.string()


def _can(read: Callable[[str], Any], value: str) -> bool:
    try:
        read(value)
    except ValueError:
        return False
    return True


# 007, +49 and 1_000 are texts, in the first part and behind it: the number would be written otherwise.
_INTEGER = re.compile(r"0|-?[1-9][0-9]*")
_DOUBLE = re.compile(r"-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|-?inf(?:inity)?|nan", re.I)


def _integer(value: str) -> int:
    if not _INTEGER.fullmatch(value):
        raise ValueError("it is no whole number, or is written otherwise")
    found = int(value)
    if not -(2**63) <= found < 2**63:
        raise ValueError("it is too large")
    return found


def _double(value: str) -> float:
    if not _DOUBLE.fullmatch(value):
        raise ValueError("it is no number, or is written otherwise")
    found = float(value)
    if _INTEGER.fullmatch(value) and found != int(value):
        raise ValueError("a double does not hold all of its digits")
    return found


_READ: dict[str, Callable[[str], Any]] = {"int64": _integer, "double": _double}
_KINDS = {"int64": pa.int64(), "double": pa.float64()}


def check_known(value: dict[str, Any], names: frozenset[str], path: str, row: int) -> None:
    """Where all columns are taken, none may be lost that the first part does not have.

    Raises:
        BadInput: a row has one.
    """
    if not value.keys() <= names:
        for name in value:
            if name not in names and value[name] is not None:
                raise BadInput(
                    f"{path}, row {row:,} has a column {name!r} that the first part does not have",
                    hint="say which columns are wanted (--columns), or write it in all rows",
                )


def to_batch(values: Sequence[dict[str, Any]], schema: Any, path: str, first: int, is_typed: bool) -> Any:
    """A record batch of rows.

    Args:
        values: rows by column; a column that is missing is null.
        schema: the chosen columns.
        path: for the error.
        first: number of the first row, for the error.
        is_typed: as of `typed`.

    Raises:
        BadInput: a value is of another type, or has fields that the type lacks.
    """
    arrays = []
    for field in schema:
        column = [value.get(field.name) for value in values]
        read = None if is_typed else _READ.get(str(field.type))
        try:
            arrays.append(_array([read(value) if value else None for value in column] if read else column, field.type))
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            raise _wrong(column, field, read, path, first, error) from None
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _array(column: Sequence[Any], kind: Any) -> Any:
    """An array of exactly these values: Arrow itself would cut 1.5 to 1, and leave out fields that the type lacks."""
    found = pa.array(column)
    if found.type.equals(kind):
        return found
    if pa.types.is_floating(found.type) and pa.types.is_integer(kind):
        return found.cast(kind)
    _check_fits(found.type, kind)
    return pa.array(column, kind)


def _check_fits(found: Any, kind: Any) -> None:
    is_number = pa.types.is_integer(found) and pa.types.is_floating(kind)
    if found.equals(kind) or pa.types.is_null(found) or is_number:
        return
    if pa.types.is_list(found) and pa.types.is_list(kind):
        _check_fits(found.value_type, kind.value_type)
        return
    if not (pa.types.is_struct(found) and pa.types.is_struct(kind)):
        raise ValueError(f"it is {found}")
    known = {field.name: field.type for field in kind}
    for field in found:
        if field.name not in known:
            raise ValueError(f"a field {field.name!r} that the first part does not have")
        _check_fits(field.type, known[field.name])


def _wrong(
    column: list[Any], field: Any, read: Callable[[str], Any] | None, path: str, first: int, error: Exception
) -> BadInput:
    def fits(value: Any) -> bool:
        try:
            _array([read(value) if read and value else value], field.type)
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            return False
        return True

    place, value = next(((i, value) for i, value in enumerate(column) if not fits(value)), (0, column[0]))
    return BadInput(
        f"{path}, row {first + place:,}, column {field.name!r}: expected {field.type} as in the first part, "
        f"got {repr(value)[:80]} ({error})",
        hint="leave the column out (--columns), or write it alike in all rows",
    )
