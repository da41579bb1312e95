"""How long the room lasts: from readings of free space and from the saves so far. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from outlast.host import show_bytes, show_seconds

_SIMILAR = 0.2
_QUIET_READINGS = 2
_LEAST_SAVE = 64 * 1024
_HORIZON_SECONDS = 48 * 3600.0


@dataclass(frozen=True, slots=True)
class Reading:
    """Room on one volume at one moment."""

    time: float
    """Seconds; any clock that only goes forward."""
    free_bytes: int
    """Bytes that can be written."""
    total_bytes: int | None = None
    """Bytes in all; None when unknown."""


@dataclass(frozen=True, slots=True)
class Save:
    """A save that was sealed."""

    step: int | None
    """Optimizer steps done; None when unknown."""
    bytes: int
    """What it took."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """How long the room lasts as things are going."""

    free_bytes: int
    """Room now."""
    total_bytes: int | None
    """Room in all."""
    save_bytes: int | None
    """What the next save takes; None when no save was seen."""
    saves_left: int | None
    """Saves that fit beside what is there; None when no save was seen."""
    full_at_step: int | None
    """Step of the first save that does not fit, if nothing is deleted; None when unknown."""
    full_in_seconds: float | None
    """When the volume is full at the pace of the readings; None when it is not getting fuller."""
    level_bytes: int | None = None
    """Free space when it last held still, that is between saves; None when it has not yet."""


def forecast(readings: Sequence[Reading], saves: Sequence[Save] = ()) -> Forecast:
    """How long the room lasts.

    Args:
        readings: of one volume, oldest first; at least one.
        saves: sealed saves, oldest first; without any, repeated drops of free space count as saves.
    """
    now = readings[-1]
    known = [save.bytes for save in saves[-3:] if save.bytes > 0]
    each = int(statistics.median(known)) if known else repeated_drop(readings)
    left = max(0, now.free_bytes) // each if each else None
    step = _full_at(saves, left)
    level = next(reversed(_plateaus(readings)), None)
    return Forecast(now.free_bytes, now.total_bytes, each, left, step, _full_in(readings), level)


def _full_at(saves: Sequence[Save], left: int | None) -> int | None:
    steps = [save.step for save in saves if save.step is not None]
    gaps = [later - earlier for earlier, later in zip(steps, steps[1:], strict=False) if later > earlier]
    if left is None or not gaps:
        return None
    return steps[-1] + int(statistics.median(gaps[-3:])) * (left + 1)


def _full_in(readings: Sequence[Reading]) -> float | None:
    first, last = readings[0], readings[-1]
    fallen, seconds = first.free_bytes - last.free_bytes, last.time - first.time
    if fallen <= 0 or seconds <= 0:
        return None
    left = last.free_bytes * seconds / fallen
    return left if left < _HORIZON_SECONDS else None


def repeated_drop(readings: Sequence[Reading]) -> int | None:
    """What a program that nothing is hooked in seems to save each time, bytes.

    A drop is the difference between two plateaus (two readings or more at one level). Two drops in a row that differ
    by less than a fifth are taken for saves: one large download is not.
    """
    levels = _plateaus(readings)
    drops = [before - after for before, after in zip(levels, levels[1:], strict=False) if before - after >= _LEAST_SAVE]
    if len(drops) < 2 or abs(drops[-1] - drops[-2]) > _SIMILAR * max(drops[-2:]):
        return None
    return max(drops[-2:])


def _plateaus(readings: Sequence[Reading]) -> list[int]:
    """Levels of free space that held still, oldest first; a log's slow growth is no new level."""
    levels: list[int] = []
    still = 0
    for before, now in zip(readings, readings[1:], strict=False):
        still = still + 1 if abs(before.free_bytes - now.free_bytes) < _LEAST_SAVE else 0
        is_new = not levels or abs(levels[-1] - now.free_bytes) >= _LEAST_SAVE
        if still >= _QUIET_READINGS - 1 and is_new:
            levels.append(now.free_bytes)
    return levels


def sentence(what: Forecast, *, makes_room: bool) -> str:
    """A forecast for people: ``12.1 MB of 45.0 MB free, 13.4 MB a checkpoint, full at step ~40``.

    Args:
        what: the forecast.
        makes_room: True when each save makes room for itself, so that "full" is not what comes.
    """
    total = f" of {show_bytes(what.total_bytes)}" if what.total_bytes else ""
    parts = [f"{show_bytes(what.free_bytes)}{total} free"]
    if what.save_bytes:
        parts.append(f"{show_bytes(what.save_bytes)} a checkpoint")
    if makes_room and what.saves_left is not None:
        parts.append("the next save fits" if what.saves_left else "the next save makes room first")
    elif what.full_at_step is not None:
        parts.append(f"full at step ~{what.full_at_step}")
    elif what.saves_left is not None:
        parts.append(f"{what.saves_left} more fit")
    elif what.full_in_seconds is not None:
        parts.append(f"full in about {show_seconds(what.full_in_seconds)}")
    return ", ".join(parts)
