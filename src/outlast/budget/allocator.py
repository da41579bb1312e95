"""A model of CUDA's caching allocator: what ``torch.cuda`` would hold after these requests. Pure: no torch, no GPU.

The rules and figures are those of torch's ``c10/core/AllocatorConfig.h`` and ``c10/cuda/CUDACachingAllocator.cpp``:

=============================  ==========================================================
a request                      is rounded up to a multiple of 512 bytes
a rounded request <= 1 MiB     lives in the small pool, in segments of 2 MiB
above, below 10 MiB            lives in the large pool, in segments of 20 MiB
10 MiB and more                gets a segment of its own size, rounded up to 2 MiB
a free block that fits         the smallest one that fits is taken, the lowest address among equals
what remains of that block     is split off when >= 512 bytes (small pool) or > 1 MiB (large pool)
a freed block                  merges with its free neighbours of the same segment
a new segment that fails       wholly free segments are given back, then it is tried once more
=============================  ==========================================================

One stream, and none of ``PYTORCH_CUDA_ALLOC_CONF``: expandable segments are not modelled.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass

MIN_BLOCK = 512
"""kMinBlockSize, bytes."""
SMALL_SIZE = 1 << 20
"""kSmallSize: the largest request of the small pool, bytes."""
SMALL_SEGMENT = 2 << 20
"""kSmallBuffer, bytes."""
LARGE_SEGMENT = 20 << 20
"""kLargeBuffer, bytes."""
MIN_OWN_SEGMENT = 10 << 20
"""kMinLargeAlloc: from here a request gets a segment of its own, bytes."""
ROUND_LARGE = 2 << 20
"""kRoundLarge, bytes."""


def rounded(size: int) -> int:
    """Bytes of the block that a request of ``size`` bytes takes at least."""
    return max(MIN_BLOCK, _up(size, MIN_BLOCK))


def segment_bytes(block: int) -> int:
    """Bytes that are asked of the driver when no free block can hold a block of ``block`` (rounded) bytes."""
    if block <= SMALL_SIZE:
        return SMALL_SEGMENT
    return LARGE_SEGMENT if block < MIN_OWN_SEGMENT else _up(block, ROUND_LARGE)


def _up(size: int, to: int) -> int:
    return -(-size // to) * to


@dataclass(slots=True, eq=False)
class _Block:
    """A piece of a segment; its neighbours are those of the same segment."""

    address: int
    size: int
    small: bool
    free: bool = True
    before: _Block | None = None
    after: _Block | None = None


class CachingAllocator:
    """Requests in, bytes held out.

    Args:
        capacity_bytes: what the driver can give in all; None for no limit.
    """

    def __init__(self, capacity_bytes: int | None = None) -> None:
        self.capacity_bytes = capacity_bytes
        self.allocated_bytes = 0
        """In blocks that are in use, now."""
        self.reserved_bytes = 0
        """In segments held from the driver, now."""
        self.peak_allocated_bytes = 0
        self.peak_reserved_bytes = 0
        self.emptied = 0
        """How often wholly free segments had to be given back to make room."""
        self._used: dict[int, _Block] = {}
        # A free list for each pool, kept in the order in which the allocator looks: size, then address.
        self._free: dict[bool, list[tuple[int, int, _Block]]] = {True: [], False: []}
        self._next_segment = ROUND_LARGE

    def allocate(self, size: int) -> int | None:
        """Take a block of at least ``size`` bytes.

        Returns:
            Its address, for `free`; None when it does not fit, even after all free segments were given back.
        """
        need = rounded(size)
        block = self._best_fit(need) or self._new_segment(need)
        if block is None and self.empty():
            block = self._new_segment(need)
        if block is None:
            return None
        self._split(block, need)
        block.free = False
        self._used[block.address] = block
        self.allocated_bytes += block.size
        self.peak_allocated_bytes = max(self.peak_allocated_bytes, self.allocated_bytes)
        return block.address

    def free(self, address: int) -> None:
        """Give a block back to its pool; its segment stays reserved."""
        block = self._used.pop(address)
        self.allocated_bytes -= block.size
        for near in (block.before, block.after):
            if near is not None and near.free:
                self._forget(near)
                self._merge(block, near)
        block.free = True
        self._remember(block)

    def empty(self) -> bool:
        """Give wholly free segments back to the driver (``empty_cache``); False when there are none."""
        whole = [entry for pool in self._free.values() for entry in pool if not (entry[2].before or entry[2].after)]
        for size, _, block in whole:
            self._forget(block)
            self.reserved_bytes -= size
        self.emptied += bool(whole)
        return bool(whole)

    def size_at(self, address: int) -> int:
        """Bytes of the block in use at this address."""
        return self._used[address].size

    def blocks(self) -> list[tuple[int, int]]:
        """Address and bytes of every block in use, by address."""
        return sorted((block.address, block.size) for block in self._used.values())

    def _best_fit(self, need: int) -> _Block | None:
        pool = self._free[need <= SMALL_SIZE]
        at = bisect.bisect_left(pool, need, key=lambda entry: entry[0])
        return pool.pop(at)[2] if at < len(pool) else None

    def _new_segment(self, need: int) -> _Block | None:
        size = segment_bytes(need)
        if self.capacity_bytes is not None and self.reserved_bytes + size > self.capacity_bytes:
            return None
        block = _Block(self._next_segment, size, small=need <= SMALL_SIZE)
        self._next_segment += size
        self.reserved_bytes += size
        self.peak_reserved_bytes = max(self.peak_reserved_bytes, self.reserved_bytes)
        return block

    def _split(self, block: _Block, need: int) -> None:
        remains = block.size - need
        if remains < MIN_BLOCK if block.small else remains <= SMALL_SIZE:
            return
        rest = _Block(block.address + need, remains, block.small, before=block, after=block.after)
        if block.after is not None:
            block.after.before = rest
        block.after, block.size = rest, need
        self._remember(rest)

    def _merge(self, block: _Block, near: _Block) -> None:
        if near is block.before:
            block.address, block.before = near.address, near.before
            if near.before is not None:
                near.before.after = block
        else:
            block.after = near.after
            if near.after is not None:
                near.after.before = block
        block.size += near.size

    def _remember(self, block: _Block) -> None:
        bisect.insort(self._free[block.small], (block.size, block.address, block), key=lambda entry: entry[:2])

    def _forget(self, block: _Block) -> None:
        pool = self._free[block.small]
        del pool[bisect.bisect_left(pool, (block.size, block.address), key=lambda entry: entry[:2])]
