"""The order in which an epoch's rows are read: pure, the same on every machine and with every version of numpy.

Parquet is decoded a row group at a time, so a reader can hold some groups and no more: `width` of them. The order is
made for that. An epoch is a sequence of slots, read one after the other.

Shuffled, with more groups than the width W:

1. The groups are put in a drawn order. Call the group at place p of it P(p), of r rows; G groups in all.
2. Its rows are put in a drawn order and cut into W parts: part j is rows ``r*j//W`` to ``r*(j+1)//W``.
3. Slot k, of G, holds part j of P((k - j) mod G) for each j of W: a W-th of each of W groups, in a drawn order.

So every batch mixes W groups, from the first one on; a group's rows are spread over W slots, which is W groups' length;
and going from one slot to the next, one group comes in and one goes out. With at most W groups there is one slot, and
in it any row can be anywhere. Not shuffled, a slot is a group, in the file's order.

Drawn means: sorted by a hash (SplitMix64's finaliser) of seed, epoch, what is drawn, and the number of the item.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Numbers: TypeAlias = Any
"""A numpy array of int64."""

_GOLDEN, _FIRST, _SECOND, _MASK = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, (1 << 64) - 1
_GROUPS, _ROWS, _SLOTS = 1, 2, 3
"""What is drawn."""


@dataclass(frozen=True, slots=True)
class Order:
    """The order of one epoch; plain data."""

    groups: tuple[int, ...]
    """Rows of each row group, in the file's order."""
    shuffled: bool = False
    """False is the file's order."""
    seed: int = 0
    """Any whole number; its low 64 bits count."""
    epoch: int = 0
    """From 0 up."""
    width: int = 64
    """Row groups that are mixed with each other at a time; at least 1."""

    @property
    def rows(self) -> int:
        """Rows of an epoch."""
        return sum(self.groups)

    @property
    def is_one_slot(self) -> bool:
        """True when any row can be anywhere."""
        return self.shuffled and len(self.groups) <= self.width


class Walk:
    """An order, walked through: remembers the row groups that it is among.

    Args:
        order: the epoch's.
    """

    def __init__(self, order: Order) -> None:
        self.order = order
        self._sizes = np.asarray(order.groups, dtype=np.int64)
        self._starts = np.concatenate(([0], np.cumsum(self._sizes)))
        self._drawn = drawn(len(order.groups), order.seed, order.epoch, _GROUPS) if order.shuffled else None
        self._bounds = np.concatenate(([0], np.cumsum(self._slot_sizes())))
        self._within: dict[int, Numbers] = {}
        self._slots: dict[int, Numbers] = {}

    def __len__(self) -> int:
        return int(self._bounds[-1])

    def between(self, start: int, stop: int) -> Numbers:
        """Rows, by their number in the files, at places start to stop of the epoch."""
        stop = min(stop, len(self))
        parts = []
        slot = int(np.searchsorted(self._bounds, start, side="right")) - 1
        while start < stop:
            until = min(stop, int(self._bounds[slot + 1]))
            base = int(self._bounds[slot])
            parts.append(self._slot(slot)[start - base : until - base])
            start, slot = until, slot + 1
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def batches(self, size: int, start: int, stop: int) -> Iterator[Numbers]:
        """Places start to stop, cut into parts of a size; the last one may be smaller."""
        for place in range(start, stop, size):
            yield self.between(place, min(place + size, stop))

    def _slot_sizes(self) -> Numbers:
        order = self.order
        if self._drawn is None:
            return self._sizes
        if order.is_one_slot:
            return np.asarray([order.rows], dtype=np.int64)
        sizes: Numbers = np.zeros(len(order.groups), dtype=np.int64)
        rows = self._sizes[self._drawn]
        for part in range(order.width):
            sizes += np.roll(rows * (part + 1) // order.width - rows * part // order.width, part)
        return sizes

    def _slot(self, number: int) -> Numbers:
        if number not in self._slots:
            while len(self._slots) > 3:
                del self._slots[next(iter(self._slots))]
            self._slots[number] = self._make_slot(number)
        return self._slots[number]

    def _make_slot(self, number: int) -> Numbers:
        order = self.order
        if self._drawn is None:
            return np.arange(self._starts[number], self._starts[number + 1], dtype=np.int64)
        if order.is_one_slot:
            return drawn(order.rows, order.seed, order.epoch, _ROWS)
        width = order.width
        parts = []
        for part in range(width):
            group = int(self._drawn[(number - part) % len(order.groups)])
            rows = order.groups[group]
            parts.append(self._rows_of(group)[rows * part // width : rows * (part + 1) // width])
        together = np.concatenate(parts)
        return together[drawn(len(together), order.seed, order.epoch, _SLOTS, number)]

    def _rows_of(self, group: int) -> Numbers:
        found = self._within.pop(group, None)
        if found is None:
            order = self.order
            found = drawn(order.groups[group], order.seed, order.epoch, _ROWS, group) + self._starts[group]
        self._within[group] = found  # the newest is last
        if len(self._within) > self.order.width + 1:
            del self._within[next(iter(self._within))]
        return found


def drawn(count: int, *salts: int) -> Numbers:
    """The numbers below count in an order that follows from the salts alone."""
    state = 0
    for salt in salts:
        state = _mixed((state ^ (salt & _MASK)) + _GOLDEN)
    hashes = np.arange(count, dtype=np.uint64) * np.uint64(_GOLDEN) + np.uint64(state)
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(_FIRST)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(_SECOND)
    return np.argsort(hashes ^ (hashes >> np.uint64(31)), kind="stable").astype(np.int64)


def _mixed(number: int) -> int:
    number &= _MASK
    number = ((number ^ (number >> 30)) * _FIRST) & _MASK
    number = ((number ^ (number >> 27)) * _SECOND) & _MASK
    return number ^ (number >> 31)


def width_for(group_bytes: int, groups: int, window_bytes: int) -> int:
    """How many row groups to hold at a time.

    Args:
        group_bytes: decoded bytes of all groups together.
        groups: how many there are.
        window_bytes: what a reader may hold.

    Returns:
        At least 2, so that there is something to mix; at most 256: a batch is hardly larger.
    """
    mean = max(1, group_bytes // max(1, groups))
    return max(2, min(256, window_bytes // mean))
