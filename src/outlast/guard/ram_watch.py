"""Watches main memory during a run: asks the training to leave before the kernel kills it, and tells of a leak."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from outlast.guard import ram
from outlast.guard.ram import RamReading
from outlast.guard.story import Story
from outlast.host import MemoryLimit, memory_limit, memory_limit_again, own_bytes, tree_memory

_FIND_SECONDS = 5.0
_LONG_EVERY_SECONDS = 10.0
_OWN_SECONDS = {False: 10.0, True: 1.0}  # it takes a walk through the process table: more often only near the limit
_KEPT = 60
_WARM_UP_SECONDS = 60.0
_DROP = 0.05


@dataclass(slots=True)
class _Levels:
    """Where memory was, in an attempt."""

    start_bytes: int | None = None
    """Least that was held since the first step."""
    start_own_bytes: int | None = None
    """What this run's processes held at the first step."""
    receded_bytes: int = 0
    """Most that was held before and was given back."""
    _peak_bytes: int = 0

    def note(self, now: RamReading) -> None:
        held = now.held_bytes
        if self.start_bytes is None:
            self.start_bytes, self.start_own_bytes = held, now.own_bytes
        self.start_bytes = min(self.start_bytes, held)
        self._peak_bytes = max(self._peak_bytes, held)
        if held < self._peak_bytes - _DROP * now.limit_bytes:
            self.receded_bytes, self._peak_bytes = max(self.receded_bytes, self._peak_bytes), held


@dataclass(slots=True)
class _Long:
    """Readings of the last ten minutes, and of all the time in coarser and coarser steps."""

    minutes: deque[RamReading] = field(default_factory=lambda: deque(maxlen=_KEPT))
    whole: list[RamReading] = field(default_factory=list)
    _every: float = _LONG_EVERY_SECONDS

    def is_due(self, now: float) -> bool:
        return not self.minutes or now - self.minutes[-1].time >= _LONG_EVERY_SECONDS

    def add(self, now: RamReading) -> None:
        self.minutes.append(now)
        if not self.whole or now.time - self.whole[-1].time >= self._every:
            self.whole.append(now)
        if len(self.whole) > 2 * _KEPT:
            self.whole, self._every = self.whole[::2], 2 * self._every


@dataclass(slots=True)
class RamWatch:
    """Watches one attempt; one round is `look`: tens of microseconds while memory is far from its limit.

    Args:
        pid: the command's main process.
        ask: asks the training to leave, for this reason; False when nothing in it can be asked.
        record: writes an event to the journal.
        line: tells the user.
        clock: seconds, only forward.
        find: what a process is held to, looked for.
        again: the same limit a moment later, which costs less.
        own: bytes that a process and all below it hold.
    """

    pid: int
    ask: Callable[[str], bool]
    record: Callable[..., None]
    line: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    find: Callable[[int], MemoryLimit | None] = memory_limit
    again: Callable[[MemoryLimit], MemoryLimit] = memory_limit_again
    own: Callable[[int], int] = lambda pid: own_bytes(tree_memory(pid))
    _began: float = field(init=False)
    _is_warm: bool = False
    _could_leave: bool = False
    _limit: MemoryLimit | None = None
    _found_at: float = 0.0
    _own_bytes: int | None = None
    _owned_at: float = 0.0
    _latest: deque[RamReading] = field(default_factory=lambda: deque(maxlen=_KEPT))
    _long: _Long = field(default_factory=_Long)
    _levels: _Levels = field(default_factory=_Levels)
    _is_told: bool = False

    def __post_init__(self) -> None:
        self._began = self.clock()

    def look(self, story: Story, *, can_leave: bool) -> None:
        """One round.

        Args:
            story: what the journal tells so far.
            can_leave: something in it looks at requests after each step: it trains, so models and data are loaded.
        """
        now = self.clock()
        self._is_warm = self._is_warm or can_leave or now - self._began >= _WARM_UP_SECONDS
        if can_leave != self._could_leave:
            # What grew while it was loading, or training, says nothing of what comes after.
            self._could_leave = can_leave
            self._latest.clear()
        reading = self._read(now) if self._is_warm else None
        if reading is None:
            return
        self._latest.append(reading)
        self._levels.note(reading)
        if self._long.is_due(now):
            self._long.add(reading)
            self._look_for_leak(story)
        if not self._is_told and reading.held_bytes >= ram.NEAR * reading.limit_bytes:
            self._judge(story)

    def _judge(self, story: Story) -> None:
        what = ram.outlook(
            ram.recent(self._latest),
            ram.needed_seconds(*timings(story)),
            start_bytes=self._levels.start_bytes or 0,
            start_own_bytes=self._levels.start_own_bytes,
            receded_bytes=self._levels.receded_bytes,
            is_leak=bool(story.all("leak_found")),
        )
        if not what.why:
            return
        self._is_told = True
        if what.must_leave and self.ask(what.why):
            return
        self.record("memory_close", why=what.why, left_seconds=what.left_seconds)
        advice = "nothing in it can be asked to save first" if what.must_leave else "a restart would not give it back"
        self.line(f"{what.why}. The kernel may kill it: {advice}")

    def _read(self, now: float) -> RamReading | None:
        if self._limit is None or now - self._found_at >= _FIND_SECONDS:
            self._limit, self._found_at = self.find(self.pid), now
        else:
            self._limit = self.again(self._limit)
        known = self._limit
        if known is None:
            return None
        whole = known.limit_bytes + known.swap_left_bytes
        if not known.is_shared:
            self._own_bytes = None
        elif self._own_bytes is None or now - self._owned_at >= _OWN_SECONDS[known.held_bytes >= ram.NEAR * whole]:
            self._own_bytes, self._owned_at = self.own(self.pid), now
        return RamReading(now, known.held_bytes, whole, self._own_bytes, known.stall_percent)

    def _look_for_leak(self, story: Story) -> None:
        if story.all("leak_found"):
            return
        found = ram.leak(self._long.minutes) or ram.leak(self._long.whole)
        if found is not None:
            self.record(
                "leak_found",
                bytes_per_minute=round(found.bytes_per_minute),
                limit_in_seconds=round(found.limit_in_seconds, 1),
            )
            self.line(ram.leak_sentence(found))


def timings(story: Story) -> tuple[float | None, float | None]:
    """Seconds that a step and a save take, as the journal has them; None for what it does not have."""
    seals = [event for event in story.all("sealed") if isinstance(event.get("step"), int)][-4:]
    saves = [float(event.get("seconds") or 0.0) for event in seals]
    paces = story.all("pace")
    if paces and isinstance(paces[-1].get("step_seconds"), int | float):
        return float(paces[-1].get("step_seconds") or 0.0), max(saves, default=None)
    steps = [
        (later.time - one.time) / (later.get("step") - one.get("step"))
        for one, later in zip(seals, seals[1:], strict=False)
        if later.get("step") > one.get("step") and one.pid == later.pid
    ]
    return max(steps, default=None), max(saves, default=None)
