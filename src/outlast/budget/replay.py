"""A recorded step, and what an allocator makes of it. Pure: no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from outlast.budget.allocator import CachingAllocator, rounded


@dataclass(frozen=True, slots=True)
class Event:
    """A piece of memory is taken, or given back."""

    storage: int
    """Number of the piece; no two pieces of a trace have the same."""
    bytes: int
    """Its size as asked for."""
    born: bool
    """True when it is taken, False when it is given back."""
    phase: str
    """Where in training: ``setup``, ``forward 1``, ``backward 1``, ``optimizer 1``, ``forward 2`` ..."""
    op: str
    """The operation that took it, with what it made: ``aten.mm -> f32[8192, 768]``; empty when given back."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Everything that some training steps took and gave back, in order."""

    events: tuple[Event, ...]
    """In the order of happening."""
    kinds: Mapping[int, str]
    """For pieces that are not activations: ``parameters``, ``gradients``, ``optimizer`` or ``workspace``."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What an allocator made of a trace."""

    peak_allocated_bytes: int
    """Most bytes in use at once, rounded as the allocator rounds."""
    peak_reserved_bytes: int
    """Most bytes held from the driver at once."""
    peak_at: int | None
    """Index of the event that reached the peak; None for an empty trace."""
    failed_at: int | None
    """Index of the event that did not fit the capacity; None when all did."""
    emptied: int
    """How often free segments were given back to make room: each time costs a synchronisation."""


def replay(events: Sequence[Event], capacity_bytes: int | None = None) -> Replay:
    """Send a trace through the model of the caching allocator; it stops where something does not fit."""
    allocator = CachingAllocator(capacity_bytes)
    where: dict[int, int] = {}
    peak, peak_at, failed_at = 0, None, None
    for index, event in enumerate(events):
        if not event.born:
            if event.storage in where:
                allocator.free(where.pop(event.storage))
            continue
        if not event.bytes:  # the allocator is not asked for nothing
            continue
        address = allocator.allocate(event.bytes)
        if address is None:
            failed_at = index
            break
        where[event.storage] = address
        if allocator.allocated_bytes > peak:
            peak, peak_at = allocator.allocated_bytes, index
    return Replay(peak, allocator.peak_reserved_bytes, peak_at, failed_at, allocator.emptied)


def counted_peak(events: Sequence[Event]) -> int:
    """Most bytes alive at once, without any rounding: what an allocator that only counts would say."""
    now = peak = 0
    for event in events:
        now += event.bytes if event.born else -event.bytes
        peak = max(peak, now)
    return peak


def alive_at(trace: Trace, index: int) -> Mapping[str, int]:
    """Bytes alive after this event, by kind, rounded to blocks; what has no kind is ``activations``."""
    alive: dict[int, int] = {}
    for event in trace.events[: index + 1]:
        if event.born:
            alive[event.storage] = rounded(event.bytes) if event.bytes else 0
        else:
            alive.pop(event.storage, None)
    shares: dict[str, int] = {}
    for storage, size in alive.items():
        kind = trace.kinds.get(storage, "activations")
        shares[kind] = shares.get(kind, 0) + size
    return MappingProxyType(shares)
