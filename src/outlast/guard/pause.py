"""Whether a program that nothing is hooked in must be stopped for want of room. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from outlast.guard.forecast import Forecast
from outlast.host import show_bytes

_LEAST_FLOOR = 1024 * 1024
_MOST_FLOOR = 256 * 1024 * 1024
_FLOOR_PART = 50
_MARGIN = 1.05
_BEGUN = 64 * 1024


@dataclass(frozen=True, slots=True)
class Verdict:
    """Stopped or not, and why."""

    paused: bool
    """True when it must not run now."""
    why: str
    """A phrase for the user and the journal."""
    short_bytes: int
    """Bytes that are missing; 0 when it may run."""


def floor_bytes(total_bytes: int | None) -> int:
    """Free space below which any write may be the last: a fiftieth of the volume, between 1 MiB and 256 MiB."""
    return max(_LEAST_FLOOR, min(_MOST_FLOOR, (total_bytes or 0) // _FLOOR_PART))


def is_close(what: Forecast) -> bool:
    """True when the next save would not fit: from here on looks must be quick to stop it in time."""
    return what.save_bytes is not None and what.free_bytes < what.save_bytes * _MARGIN


def judge(what: Forecast, *, is_hooked: bool, was_paused: bool) -> Verdict:
    """Whether to stop it, or to let it go on.

    A hooked program is never stopped: its saves wait for room by themselves. Another is stopped below the floor, or in
    the middle of a save that cannot fit; not before that save begins, since it may have been the last. Once stopped, it
    goes on only when there is room for a whole save and half as much again as the floor, so that it does not stutter.
    """
    if is_hooked:
        return Verdict(False, "its saves wait for room by themselves", 0)
    floor = floor_bytes(what.total_bytes)
    save = int((what.save_bytes or 0) * _MARGIN)
    needed = max(floor + floor // 2, save)
    if was_paused and what.free_bytes < needed:
        return _stopped(what, f"{show_bytes(needed)} are needed to go on", needed)
    if was_paused:
        return Verdict(False, "there is room", 0)
    if _has_begun_in_vain(what, save):
        return _stopped(what, f"it has begun a save that takes {show_bytes(what.save_bytes)}", needed)
    if what.free_bytes < floor:
        return _stopped(what, f"the floor is {show_bytes(floor)}", needed)
    return Verdict(False, "there is room", 0)


def _has_begun_in_vain(what: Forecast, save: int) -> bool:
    level = what.level_bytes
    return level is not None and level < save and what.free_bytes <= level - _BEGUN


def _stopped(what: Forecast, reason: str, needed: int) -> Verdict:
    why = f"{show_bytes(what.free_bytes)} are free and {reason}; going on would fail"
    return Verdict(True, why, needed - what.free_bytes)
