"""Documents of tokens into blocks of one length: pure.

The documents are put one after the other, each followed by EOS. What comes out is cut into pieces of ``length`` tokens
or, wrapped, of ``length - 2`` with BOS before and EOS after each. What is left over at the end is too short for a block
and is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Shape:
    """How documents become blocks."""

    length: int
    """Tokens of a block, all counted."""
    bos: int
    """Token before each block when wrapped; not used otherwise."""
    eos: int
    """Token after each document, and after each block when wrapped."""
    wrap: bool
    """BOS and EOS around each block."""

    @property
    def inner(self) -> int:
        """Tokens of a block that are the documents'."""
        return self.length - 2 if self.wrap else self.length


@dataclass(frozen=True, slots=True)
class Place:
    """Up to where documents were made into blocks."""

    document: int = 0
    """First document that is not wholly in blocks."""
    tokens: int = 0
    """Tokens of it, its EOS counted, that are."""


class Packer:
    """Takes documents, gives blocks.

    Args:
        shape: of the blocks.
        dtype: numpy's name of their numbers' type.
        place: where to go on; the documents are given from `Place.document` on.
    """

    def __init__(self, shape: Shape, dtype: str, place: Place | None = None) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._place = place or Place()
        self._skip = self._place.tokens
        self._rest: Any = np.empty(0, dtype=self.dtype)
        self._lengths: list[int] = []

    def add(self, documents: Iterable[Sequence[int]]) -> Any:
        """Whole blocks that these documents complete: an array of as many rows."""
        parts = [self._rest]
        for ids in documents:
            ids = np.fromiter(ids, dtype=self.dtype, count=len(ids))
            self._lengths.append(len(ids) + 1)
            parts += [ids, np.asarray([self.shape.eos], dtype=self.dtype)]
        flat = np.concatenate(parts)
        if self._skip:
            # The first document's beginning is in blocks already.
            cut = min(self._skip, len(flat))
            flat, self._skip = flat[cut:], self._skip - cut
        count = len(flat) // self.shape.inner
        whole, self._rest = np.split(flat, [count * self.shape.inner])
        self._rest = self._rest.copy()  # else all that it was cut from stays in memory
        return self._framed(whole.reshape(count, self.shape.inner))

    def _framed(self, inner: Any) -> Any:
        if not self.shape.wrap:
            return inner
        blocks: Any = np.empty((len(inner), self.shape.length), dtype=self.dtype)
        blocks[:, 0], blocks[:, 1:-1], blocks[:, -1] = self.shape.bos, inner, self.shape.eos
        return blocks

    def place_after(self, blocks: int) -> Place:
        """Where to go on after so many more blocks, counted from the last such place; forgets what lies before.

        Args:
            blocks: of those that `add` has given since.
        """
        document, tokens = self._place.document, self._place.tokens + blocks * self.shape.inner
        used = 0
        while used < len(self._lengths) and tokens >= self._lengths[used]:
            tokens -= self._lengths[used]
            used += 1
        del self._lengths[:used]
        self._place = Place(document + used, tokens)
        return self._place

    @property
    def left_over(self) -> int:
        """Tokens that are in no block yet."""
        return len(self._rest)
