"""Bytes of a text file from any place on, unpacked piece by piece: a bomb is met in pieces of a megabyte too."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

from outlast.data.sources import Source, SourceFile
from outlast.errors import BadInput

PIECE = 1 << 20
"""Most bytes that are unpacked at once."""
_FED, _FED_ZST = 32 * 1024, 512
_FIRST_WINDOW, _LAST_WINDOW = 256 * 1024, 4 << 20
_LONGEST_WINDOW_LOG = 27


class Packed:
    """The bytes of a file as they lie in the source, in small pieces; counts how many were given out.

    Args:
        source: where it is.
        file: as it was looked at.
        start: first byte.
        expected: bytes that will be wanted, about; None for all.
    """

    def __init__(self, source: Source, file: SourceFile, start: int = 0, expected: int | None = None) -> None:
        self.given = 0
        whole = source.sequential(file)
        pieces = _skipping(whole, start) if whole is not None else _windows(source, file, start, expected)
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            for at in range(0, len(piece), _FED):
                fed = piece[at : at + _FED]
                self.given += len(fed)
                yield fed

    def close(self) -> None:
        """Break off."""
        close = getattr(self._pieces, "close", None)
        if close:
            close()


def _skipping(pieces: Iterator[bytes], start: int) -> Iterator[bytes]:
    for piece in pieces:
        if start < len(piece):
            yield piece[start:]
        start = max(0, start - len(piece))


def _windows(source: Source, file: SourceFile, start: int, expected: int | None) -> Iterator[bytes]:
    """Ranges that follow each other: small ones at first and where little is left, so that little comes for nothing."""
    size, at, window = file.size or 0, start, _FIRST_WINDOW
    left = size - start if expected is None else expected
    while at < size:
        wide = min(window, left) if left > 0 else _FIRST_WINDOW
        stop = min(size, at + max(wide, 64 * 1024))
        yield source.read(file, at, stop)
        left -= stop - at
        at, window = stop, min(window * 2, _LAST_WINDOW)


def unpacked(packed: Packed, packing: str | None, path: str) -> Iterator[bytes]:
    """The content, in pieces of at most `PIECE` bytes.

    Args:
        packed: the bytes in the source.
        packing: ``gz``, ``zst`` or None.
        path: for the error.

    Raises:
        BadInput: damaged, cut short, or not what its name says.
    """
    return _PACKINGS[packing](packed, path)


def _bare(packed: Packed, path: str) -> Iterator[bytes]:
    yield from packed


def _gz(packed: Packed, path: str) -> Iterator[bytes]:
    """Gzip, members one after the other."""
    unpacker, is_fresh = zlib.decompressobj(31), True
    try:
        for piece in packed:
            left = piece
            while left:
                if unpacker.eof:
                    left = left.lstrip(b"\0")  # padding between members
                    unpacker, is_fresh = zlib.decompressobj(31), True
                    continue
                is_fresh = False
                if found := unpacker.decompress(left, PIECE):
                    yield found
                left = unpacker.unused_data if unpacker.eof else unpacker.unconsumed_tail
    except zlib.error as error:
        raise _damaged(path, str(error)) from None
    if not unpacker.eof and not is_fresh:
        raise _damaged(path, "it ends in the middle")


def _zst(packed: Packed, path: str) -> Iterator[bytes]:
    """Zstandard, frames one after the other.

    Its decompressor gives out all that its input holds, 128 KiB for each 4 bytes at most: it is fed little at a time.
    """
    import zstandard

    context = zstandard.ZstdDecompressor(max_window_size=1 << _LONGEST_WINDOW_LOG)
    unpacker, is_fresh = context.decompressobj(), True
    try:
        for piece in packed:
            for at in range(0, len(piece), _FED_ZST):
                left = piece[at : at + _FED_ZST]
                while left:
                    if unpacker.eof:
                        unpacker = context.decompressobj()
                    is_fresh = False
                    if found := unpacker.decompress(left):
                        yield found
                    left = unpacker.unused_data if unpacker.eof else b""
    except zstandard.ZstdError as error:
        raise _damaged(path, str(error)) from None
    if not unpacker.eof and not is_fresh:
        raise _damaged(path, "it ends in the middle")


def _damaged(path: str, how: str) -> BadInput:
    return BadInput(f"{path} cannot be unpacked: {how}", hint="it was cut short or is another format: get it anew")


_PACKINGS: dict[str | None, Callable[[Packed, str], Iterator[bytes]]] = {None: _bare, "gz": _gz, "zst": _zst}
