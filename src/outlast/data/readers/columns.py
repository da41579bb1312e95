"""Columns of rows that come as Python values: their types from the first part, and record batches of those types."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from outlast.errors import BadInput


def typed(values: Sequence[dict[str, Any]], names: Sequence[str], is_typed: bool, path: str) -> Any:
    """The schema of rows.

    Args:
        values: the first ones.
        names: in their order; empty where each row names its own.
        is_typed: values have types (JSON); otherwise they are texts, of which numbers are recognised.
        path: for the error.

    Raises:
        BadInput: a column has values of several types.
    """
    order = list(names) or list(dict.fromkeys(name for value in values for name in value))
    fields = []
    for name in order:
        column = [value.get(name) for value in values]
        kind = _inferred(column, name, path) if is_typed else _recognised(column)
        # All empty so far: text is what most columns turn out to be.
        fields.append(pa.field(name, _without_nulls(kind)))
    return pa.schema(fields)


def _inferred(column: list[Any], name: str, path: str) -> Any:
    try:
        return pa.array(column).type
    except (pa.ArrowException, OverflowError) as error:
        raise BadInput(
            f"{path}, column {name!r} has values of several types: {error}",
            hint="leave it out (--columns), or write it as text",
        ) from None


def _without_nulls(kind: Any) -> Any:
    if pa.types.is_null(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_without_nulls(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _without_nulls(field.type)) for field in kind])
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
    # 007 and 1_000 are texts: the number would be written otherwise.
    return (
        value == value.strip()
        and "_" not in value
        and not (value.lstrip("-")[:1] == "0" and value.lstrip("-")[1:2].isdigit())
    )


def _integer(value: str) -> int:
    found = int(value)
    if not -(2**63) <= found < 2**63:
        raise ValueError(value)
    return found


_READ: dict[str, Callable[[str], Any]] = {"int64": _integer, "double": float}
_KINDS = {"int64": pa.int64(), "double": pa.float64()}


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
