"""Sizes of Parquet pages, read from their headers as the bytes pass by: none is unpacked that is too large.

A footer may say anything; what unpacking takes is in the header of each page. Headers are Thrift structs in the compact
protocol (parquet.thrift: PageHeader; thrift-compact-protocol.md).
"""

from __future__ import annotations

from typing import Any

from outlast.errors import BadInput
from outlast.host import show_bytes

PAGE_LIMIT = 256 << 20
"""Most bytes of one page once unpacked. A page holds at least one value, so this bounds a row too."""
_HEADER_LIMIT = 1 << 20
_STRUCT, _LIST, _SET = 12, 9, 10


class _Short(Exception):
    """More bytes are needed."""


class PageWatch:
    """Follows the pages of one column chunk.

    Args:
        start: its first byte in the file.
        stop: one past its last.
        place: what it is, for the error.
        limit: bytes that a page may take once unpacked.
    """

    def __init__(self, start: int, stop: int, place: str, limit: int = PAGE_LIMIT) -> None:
        self._next, self._stop, self._place, self._limit = start, stop, place, limit
        self._values = 0
        self._held = b""

    def see(self, start: int, data: bytes) -> None:
        """Look at the next bytes of the file; they come in order, and may hold other columns too.

        Raises:
            BadInput: a page is larger than the limit, or what should be a page's header is none.
        """
        while self._next < self._stop:
            if self._next >= start + len(data):
                return
            if self._held:
                text, self._held = self._held + data[:_HEADER_LIMIT], b""
            else:
                text = data[self._next - start : self._next - start + _HEADER_LIMIT]
            try:
                length, unpacked, packed, values = _header(text)
            except _Short:
                if len(text) >= _HEADER_LIMIT:
                    raise self._broken() from None
                if start + len(data) < self._stop:
                    self._held = text
                return
            except (IndexError, KeyError, ValueError):
                raise self._broken() from None
            if unpacked > self._limit:
                raise BadInput(
                    f"{self._place}: a page of {show_bytes(unpacked)} unpacked, behind {self._values:,} values; "
                    f"at most {show_bytes(self._limit)} are taken into memory",
                    hint="leave the column out (--columns), or write the file anew with smaller rows",
                )
            if unpacked < 0 or packed < 0 or values < 0:
                raise self._broken()
            self._values += values
            self._next += length + packed

    def _broken(self) -> BadInput:
        return BadInput(
            f"{self._place}: no page begins at byte {self._next:,}", hint="the file is damaged: get it anew"
        )


def _header(data: bytes) -> tuple[int, int, int, int]:
    """Length of a page's header, bytes unpacked, bytes packed, values (none in a dictionary)."""
    fields, length = _struct(data, 0, 0)
    values = next((fields[n][1] for n in (5, 8) if isinstance(fields.get(n), dict)), 0)
    return length, fields[2], fields[3], values


def _struct(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """Integer and struct fields of a struct by number, and where it ends."""
    if depth > 8:
        raise ValueError(depth)
    found: dict[int, Any] = {}
    number = 0
    while True:
        kind = _byte(data, at)
        at += 1
        if kind == 0:
            return found, at
        if kind >> 4:
            number += kind >> 4
        else:
            number, at = _integer(data, at)
        found[number], at = _value(data, at, kind & 15, depth)


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (1, 2):  # a boolean is its kind
        return kind == 1, at
    if kind == 3:
        return _byte(data, at), at + 1
    if kind in (4, 5, 6):
        return _integer(data, at)
    if kind == 7:
        return None, at + 8
    if kind == 8:
        size, at = _unsigned(data, at)
        if at + size > len(data):
            raise _Short
        return None, at + size
    if kind in (_LIST, _SET):
        size = _byte(data, at)
        at += 1
        count = size >> 4
        if count == 15:
            count, at = _unsigned(data, at)
        for _ in range(count):
            _, at = _value(data, at, 3 if size & 15 in (1, 2) else size & 15, depth + 1)
        return None, at
    if kind == _STRUCT:
        return _struct(data, at, depth + 1)
    raise ValueError(kind)


def _byte(data: bytes, at: int) -> int:
    if at >= len(data):
        raise _Short
    return data[at]


def _unsigned(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = _byte(data, at)
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError(shift)


def _integer(data: bytes, at: int) -> tuple[int, int]:
    value, at = _unsigned(data, at)
    return (value >> 1) ^ -(value & 1), at
