"""Main memory near its limit, and memory that leaks: from readings over time to what has to be done. Pure.

A slope is Theil and Sen's: the median of the slopes between all pairs of readings (P. K. Sen, J. Am. Stat. Assoc. 63,
1968), which up to 29 % of wild readings do not move. Growth counts only where it is steady: the floor of each quarter
of the time is above that of the quarter before. A jump (a model is loaded), a curve that flattens out (a warm-up) and
a saw tooth (a garbage collector, an evaluation) have quarters in which the floor does not rise.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from outlast.host import show_bytes, show_seconds

STEP_SECONDS = 5.0
"""What a step takes where nothing was sealed yet: long for most trainings, so that a save still fits in."""
SAVE_SECONDS = 10.0
"""What a save takes where none was sealed yet: 1 GB on a network volume (docs/platforms.md)."""
NEAR = 0.7
"""Part of the limit below which nobody is asked to leave: what is far away may still level out."""
_WINDOW_SECONDS = 15.0
_LEAST_SECONDS = 2.0
_LEAST_READINGS = 8
_POINTS = 32
_QUARTERS = 4
_SHARE_OF_EVEN = 0.25
_SHARE_OF_LEAK = 0.6
_FLOOR = 0.03
_GROWN = 0.02
_NEWS = 0.005
_STALL_PERCENT = 20.0
_STALL_ROOM = 0.1
_LEAK_SECONDS = 300.0
_LEAK_PART = 0.01
_LEAK_BYTES = 16 * 1024 * 1024
_TOLD_HORIZON_SECONDS = 48 * 3600.0


@dataclass(frozen=True, slots=True)
class RamReading:
    """Main memory at one moment, against the limit that counts."""

    time: float
    """Seconds; any clock that only goes forward."""
    held_bytes: int
    """What counts against the limit and cannot be taken back; page cache does not, files in memory do."""
    limit_bytes: int
    """The limit, with the swap that can take over from it."""
    own_bytes: int | None = None
    """What this run's processes hold, where others count against the limit too; None where all of it is ours."""
    stall_percent: float | None = None
    """Share of the last 10 s in which everything waited for memory (PSI full avg10); None where it is not told."""


@dataclass(frozen=True, slots=True)
class Growth:
    """How memory grows."""

    bytes_per_second: float
    """Pace; negative when it shrinks."""
    is_steady: bool
    """True when it rises all the time, so that more of the same is what to expect."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What has to be done."""

    must_leave: bool
    """True when the last safe moment for a checkpoint is now."""
    why: str
    """For the user: figures, pace, limit; empty when there is nothing to say."""
    left_seconds: float | None
    """Until the limit, at this pace; None when it does not grow."""


@dataclass(frozen=True, slots=True)
class Leak:
    """Memory that is taken and never given back."""

    bytes_per_minute: float
    """Pace."""
    limit_in_seconds: float
    """When the limit is reached at this pace."""


def needed_seconds(step_seconds: float | None, save_seconds: float | None) -> float:
    """How long before the limit a training has to be asked to leave: twice its step and its save, and a second.

    Args:
        step_seconds: what a step took; None takes `STEP_SECONDS`.
        save_seconds: what a save took; None takes `SAVE_SECONDS`.
    """
    step = STEP_SECONDS if step_seconds is None else step_seconds
    save = SAVE_SECONDS if save_seconds is None else save_seconds
    return 2 * (step + save) + 1.0


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Theil and Sen's slope of points (x, y), x in order; 0 when there are not two that differ in x."""
    slopes = [(later[1] - one[1]) / (later[0] - one[0]) for one, later in combinations(points, 2) if later[0] > one[0]]
    return statistics.median(slopes) if slopes else 0.0


def growth(readings: Sequence[RamReading], *, own: bool = False, evenness: float = _SHARE_OF_EVEN) -> Growth:
    """How what is held grew over readings, oldest first.

    Args:
        readings: any number.
        own: of this run's processes, rather than of all that counts.
        evenness: part of the mean rise that each quarter must have to call it steady.
    """
    sizes = (one.own_bytes if own and one.own_bytes is not None else one.held_bytes for one in readings)
    known = [(one.time, float(size)) for one, size in zip(readings, sizes, strict=True)]
    return Growth(slope(_thinned(known)), _rises_in_each_quarter(known, evenness))


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    every = max(1, len(points) // _POINTS)
    return list(points[len(points) % every :: every]) if every > 1 else list(points)


def _rises_in_each_quarter(points: Sequence[tuple[float, float]], evenness: float) -> bool:
    if len(points) < 2 * _QUARTERS:
        return False
    first, seconds = points[0][0], points[-1][0] - points[0][0]
    floors: list[float | None] = [None] * _QUARTERS
    for time, size in points:
        at = min(_QUARTERS - 1, int(_QUARTERS * (time - first) / seconds)) if seconds > 0 else 0
        floor = floors[at]
        floors[at] = size if floor is None else min(floor, size)
    known = [floor for floor in floors if floor is not None]
    if len(known) < _QUARTERS:
        return False
    even = (known[-1] - known[0]) / (_QUARTERS - 1)
    return even > 0 and all(b - a >= evenness * even for a, b in zip(known, known[1:], strict=False))


def outlook(
    readings: Sequence[RamReading],
    needed: float,
    *,
    start_bytes: int,
    start_own_bytes: int | None = None,
    receded_bytes: int = 0,
    is_leak: bool = False,
) -> Outlook:
    """Whether a training has to be asked to leave now, before the kernel kills it.

    Args:
        readings: the latest seconds of them, oldest first; at least one.
        needed: seconds that a step, a save and the end of the process take; `needed_seconds`.
        start_bytes: what was held as the training began: what a restart gives back is what came on top.
        start_own_bytes: what this run's processes held then, where others count as well.
        receded_bytes: most that was held before and was given back again: as much as that is no news.
        is_leak: a steady growth over minutes is known.
    """
    now = readings[-1]
    limit, level = now.limit_bytes, max(one.held_bytes for one in readings)
    if level < NEAR * limit or level - start_bytes < _GROWN * limit:
        return Outlook(False, "", None)
    room, grows = max(0, limit - level), growth(readings)
    pace = max(0.0, grows.bytes_per_second)
    left = room / pace if pace > 0 else None
    is_sure = grows.is_steady and len(readings) >= _LEAST_READINGS and now.time - readings[0].time >= _LEAST_SECONDS
    is_new = level > receded_bytes + _NEWS * limit
    signs = (
        is_sure and is_new and left is not None and left <= needed,
        (is_sure or is_leak) and room <= _FLOOR * limit,
        (now.stall_percent or 0.0) >= _STALL_PERCENT and room <= _STALL_ROOM * limit,
    )
    if not any(signs):
        return Outlook(False, "", left)
    why = _sentence(now, level, pace, left)
    # Where others count as well, a restart of ours gives back only what we took ourselves.
    ours = level - start_bytes if now.own_bytes is None else now.own_bytes - (start_own_bytes or 0)
    is_ours = 2 * ours >= level - start_bytes
    return Outlook(is_ours, why if is_ours else f"{why}; what grows is not of this run", left)


def _sentence(now: RamReading, level: int, pace: float, left: float | None) -> str:
    held = f"{show_bytes(level)} of {show_bytes(now.limit_bytes)} of main memory are held"
    grows = f", {show_bytes(int(pace * 60))} more each minute" if pace > 0 else ""
    when = f": the limit comes in {show_seconds(left)}" if left is not None else ""
    waits = f", everything waits for memory {now.stall_percent:.0f} % of the time" if now.stall_percent else ""
    return f"{held}{grows}{when}{waits}"


def leak(readings: Sequence[RamReading]) -> Leak | None:
    """A leak, when readings of five minutes and more rise steadily and would reach the limit within two days.

    Args:
        readings: from after the warm-up on, oldest first.
    """
    if len(readings) < 4 * _QUARTERS or readings[-1].time - readings[0].time < _LEAK_SECONDS:
        return None
    grows = growth(readings, own=True, evenness=_SHARE_OF_LEAK)
    now, rise = readings[-1], grows.bytes_per_second * (readings[-1].time - readings[0].time)
    if not grows.is_steady or rise < max(_LEAK_BYTES, _LEAK_PART * now.limit_bytes):
        return None
    left = max(0, now.limit_bytes - now.held_bytes) / grows.bytes_per_second
    return Leak(grows.bytes_per_second * 60, left) if left < _TOLD_HORIZON_SECONDS else None


def leak_sentence(found: Leak) -> str:
    """A leak for people."""
    return (
        f"main memory grows steadily, by {show_bytes(int(found.bytes_per_minute))} a minute: at this pace the limit "
        f"comes in {show_seconds(found.limit_in_seconds)}. Look for lists that only grow (losses with their graph, "
        "cached batches), or copies in DataLoader workers"
    )


def recent(readings: Sequence[RamReading]) -> Sequence[RamReading]:
    """Those that an outlook is made from: the last quarter of a minute."""
    since = readings[-1].time - _WINDOW_SECONDS
    return [one for one in readings if one.time >= since]
