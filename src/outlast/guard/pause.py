"""Whether a program that nothing is hooked in must be stopped for want of room. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from outlast.guard.forecast import Forecast
from outlast.host import show_bytes

_LEAST_FLOOR = 1024 * 1024
_MOST_FLOOR = 256 * 1024 * 1024
_FLOOR_PART = 50
_MARGIN = 1.05


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


def judge(what: Forecast, *, is_hooked: bool, was_paused: bool) -> Verdict:
    """Whether to stop it, or to let it go on.

    A hooked program is never stopped: its saves wait for room by themselves. Once stopped, it goes on only when there
    is half as much again as the floor, so that it does not stutter.
    """
    if is_hooked:
        return Verdict(False, "its saves wait for room by themselves", 0)
    floor = floor_bytes(what.total_bytes)
    save = int((what.save_bytes or 0) * _MARGIN)
    needed = max(floor + floor // 2 if was_paused else floor, save)
    if what.free_bytes >= needed:
        return Verdict(False, "there is room", 0)
    reason = (
        f"each of its saves takes {show_bytes(what.save_bytes)}"
        if what.save_bytes and save >= floor
        else f"the floor is {show_bytes(floor)}"
    )
    why = f"{show_bytes(what.free_bytes)} are free and {reason}; the next write would fail"
    return Verdict(True, why, needed - what.free_bytes)
