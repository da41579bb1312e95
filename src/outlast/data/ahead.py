"""A file for pyarrow whose bytes are fetched a little ahead, a few requests at once, and dropped once they are read."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from outlast.data.pages import PageWatch
from outlast.data.ranges import REQUEST_BYTES, Block

IN_FLIGHT = 4
"""Requests at once."""
AHEAD_BYTES = 2 * IN_FLIGHT * REQUEST_BYTES
"""Bytes that are asked for before they are needed."""


@dataclass(slots=True)
class _Part:
    block: Block
    data: Future[bytes] | None = None
    read_to: int = 0


class Ahead(io.RawIOBase):
    """A readable file of planned blocks; what lies outside them is read when it is asked for.

    Args:
        size: bytes of the file.
        blocks: what will be read, in order.
        fetch: reads start .. stop-1; called by threads.
        pool: runs it.
        watches: look at each column chunk's bytes as they are given out: (first byte, one past the last, watch).
    """

    def __init__(
        self,
        size: int,
        blocks: Sequence[Block],
        fetch: Callable[[int, int], bytes],
        pool: ThreadPoolExecutor,
        watches: Sequence[tuple[int, int, PageWatch]] = (),
    ) -> None:
        self._size, self._fetch, self._pool = size, fetch, pool
        self._order = [_Part(block) for block in blocks]
        self._places = sorted(self._order, key=lambda part: part.block.start)
        self._starts = [part.block.start for part in self._places]
        self._next = 0
        self._held = 0
        self._at = 0
        self._watches = sorted(watches, key=lambda watch: watch[0])
        self._watch_starts = [watch[0] for watch in self._watches]

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a byte."""
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        """The next byte."""
        return self._at

    def size(self) -> int:
        """Bytes of the file."""
        return self._size

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes; waits for the request that brings them."""
        stop = self._size if size is None or size < 0 else min(self._at + size, self._size)
        data = self._range(self._at, stop)
        self._watch(self._at, data)
        self._at = stop
        return data

    def done_with(self, group: int) -> None:
        """Drop the blocks that only row groups up to this one needed."""
        for part in self._order:
            if part.block.group <= group and part.data is not None:
                self._drop(part)

    def _range(self, start: int, stop: int) -> bytes:
        found = []
        at = start
        while at < stop:
            i = bisect_right(self._starts, at) - 1
            part = self._places[i] if i >= 0 else None
            if part is None or at >= part.block.stop or part.read_to >= part.block.stop:
                following = self._starts[i + 1] if i + 1 < len(self._starts) else stop
                upto = min(stop, following)
                if part is not None and at < part.block.stop:  # read before and dropped: again, this range only
                    upto = min(stop, part.block.stop)
                found.append(self._fetch(at, upto))
            else:
                self._ask_ahead(part)
                assert part.data is not None
                data = part.data.result()
                upto = min(stop, part.block.stop)
                found.append(data[at - part.block.start : upto - part.block.start])
                part.read_to = max(part.read_to, upto)
                if part.block.is_piece and upto == part.block.stop:
                    self._drop(part)
            at = upto
        return found[0] if len(found) == 1 else b"".join(found)

    def _ask_ahead(self, needed: _Part) -> None:
        if needed.data is None:
            self._ask(needed)
        while self._next < len(self._order):
            part = self._order[self._next]
            if part.data is None and part.read_to == 0:
                if self._held + part.block.stop - part.block.start > AHEAD_BYTES:
                    return
                self._ask(part)
            self._next += 1

    def _ask(self, part: _Part) -> None:
        part.data = self._pool.submit(self._fetch, part.block.start, part.block.stop)
        self._held += part.block.stop - part.block.start

    def _drop(self, part: _Part) -> None:
        if part.data is not None:
            part.data.cancel()
            self._held -= part.block.stop - part.block.start
            part.data, part.read_to = None, part.block.stop

    def _watch(self, start: int, data: bytes) -> None:
        i = max(0, bisect_right(self._watch_starts, start) - 1)
        while i < len(self._watches) and self._watches[i][0] < start + len(data):
            _, stop, watch = self._watches[i]
            if stop > start:
                watch.see(start, data)
            i += 1

    def close(self) -> None:
        """Give up what is still in flight."""
        for part in self._order:
            self._drop(part)
        super().close()
