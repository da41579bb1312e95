"""The guard thread of `outlast run`: reads volumes and journal, forecasts, shows one line, pauses when it must."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from outlast.guard import pause
from outlast.guard.forecast import Forecast, Reading, Save, forecast, sentence
from outlast.guard.story import Story
from outlast.guard.tail import Tail
from outlast.host import Budget, Pressure, Room, pressure, room, show_bytes

_POLL_SECONDS = 1.0
_FIRST_SECONDS = 0.2
_QUICK_SECONDS = 0.01
_READING_SECONDS = 0.5
_KEPT_READINGS = 600
_SPEAK_SECONDS = 30.0
_HANDSHAKE_SECONDS = 2.0


class Screen(Protocol):
    """Where the guard speaks to the user."""

    def line(self, text: str) -> None:
        """A line that stays."""

    def status(self, text: str) -> bool:
        """A line that the next one replaces; False while a progress bar of the command is in its place."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is watched."""

    home: Path
    """Folder whose ``.outlast`` holds the journal."""
    run: str
    """The run's name."""
    budgets: Sequence[Budget] = ()
    """Declared limits."""
    is_terminal: bool = False
    """True when the screen can replace a line."""


@dataclass(slots=True)
class Watch:
    """Watches one run; `look` is one round, the thread calls it once a second.

    Args:
        subject: what is watched.
        screen: where it speaks.
        record: writes an event to the journal.
        hold: stops (True) or continues (False) the command's processes.
        clock: seconds, only forward.
        measure: room at a path.
    """

    subject: Subject
    screen: Screen
    record: Callable[..., None]
    hold: Callable[[bool], None]
    clock: Callable[[], float] = time.monotonic
    measure: Callable[[Path, Sequence[Budget]], Room] = room
    story: Story = field(default_factory=Story)
    _tail: Tail = field(init=False)
    _readings: dict[str, deque[Reading]] = field(default_factory=dict)
    _held: bool = False
    _may_pause: bool = True
    _is_close: bool = False
    _stopped_save: int | None = None
    _began: float = 0.0
    _since: float = 0.0
    _spoke: float = float("-inf")
    _said: object = None
    _mode: str = ""
    _warned: set[tuple[object, str, bool]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _died_of: BaseException | None = None

    def __post_init__(self) -> None:
        self._tail = Tail(self.subject.home, self.subject.run)

    def start(self, since: float) -> None:
        """Begin to watch an attempt.

        Args:
            since: when it started, seconds since the epoch; handshakes before that are another attempt's.
        """
        self._began, self._since, self._mode = self.clock(), since, ""
        self._may_pause, self._held = True, False
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="outlast-guard", daemon=True)
        self._thread.start()

    def stop(self) -> BaseException | None:
        """End the thread and read the rest of the journal; returns what the thread died of."""
        self._stop.set()
        if self._thread:
            self._thread.join()
        with suppress(Exception):
            self._read()
            self._greet(self.story.hooked(self._since), is_over=True)
        died, self._died_of = self._died_of, None
        return died

    def release(self) -> None:
        """Let the command run from now on whatever the room, because a signal must reach it."""
        with self._lock:
            if self._held:
                self._held = False
                self.hold(False)
            self._may_pause = False

    def least_free_bytes(self) -> int | None:
        """Room on the fullest of the watched volumes, read now; None when unknown."""
        free = [self.measure(place, self.subject.budgets).free_bytes for place in self._places()]
        return min((size for size in free if size is not None), default=None)

    def look(self) -> None:
        """One round: read, forecast, pause or continue, speak."""
        self._read()
        is_hooked = self.story.hooked(self._since)
        self._greet(is_hooked)
        tightest = self._tightest()
        if tightest is None:
            return
        place, what = tightest
        self._judge(what, is_hooked or self._may_still_hook())
        self._speak(what, place, is_hooked)

    def _run(self) -> None:
        try:
            pause_seconds = _FIRST_SECONDS
            while not self._stop.wait(pause_seconds):
                began = time.thread_time()
                self.look()
                # A budget is a walk through its folder: a large one is looked at less often, for 2 % of one core.
                cost = time.thread_time() - began
                pause_seconds = max(self._pace(), 50 * cost)
        except BaseException as error:  # handed over by stop(); the run goes on without its guard
            self._died_of = error

    def _pace(self) -> float:
        if self._is_close and not self._held:
            return _QUICK_SECONDS
        return _POLL_SECONDS if self._mode else _FIRST_SECONDS

    def _read(self) -> None:
        with self._lock:
            self.story.add(self._tail.news())

    def _may_still_hook(self) -> bool:
        return self.clock() - self._began < _HANDSHAKE_SECONDS

    def _places(self) -> list[Path]:
        roots = [Path(root) for root in self.story.roots()]
        return list(dict.fromkeys([self.subject.home, *roots, *(budget.root for budget in self.subject.budgets)]))

    def _tightest(self) -> tuple[Path, Forecast] | None:
        """The volume that is full first, by a path on it, and its forecast."""
        forecasts: list[tuple[Path, Forecast]] = []
        seen: set[tuple[object, str]] = set()
        for place in self._places():
            here = self.measure(place, self.subject.budgets)
            if here.free_bytes is None or (here.device, here.source) in seen:
                continue
            seen.add((here.device, here.source))
            self._warn(place, here)
            kept = self._readings.setdefault(str(place), deque(maxlen=_KEPT_READINGS))
            now = Reading(self.clock(), here.free_bytes, here.total_bytes)
            forecasts.append((place, forecast((*kept, now), self._saves())))
            # Quick looks, and those at a stopped program, would make a plateau of the middle of a save.
            if not self._held and (not kept or now.time - kept[-1].time >= _READING_SECONDS):
                kept.append(now)
        return min(forecasts, key=lambda pair: pair[1].free_bytes, default=None)

    def _warn(self, place: Path, here: Room) -> None:
        """Once for each limit: that it is close, or that the figure is not the user's."""
        close = pressure(here) in (Pressure.WARN, Pressure.FULL)
        left = f"{show_bytes(here.free_bytes)} of {show_bytes(here.total_bytes)} are left in {place} ({here.source})"
        for text in filter(None, [here.doubt, left if close else None]):
            key = (here.device, here.source, text is here.doubt)
            if key not in self._warned:
                self._warned.add(key)
                self.record("warned", why=text, root=str(place))
                self.screen.line(text)

    def _saves(self) -> list[Save]:
        return [Save(event.get("step"), int(event.get("bytes") or 0)) for event in self.story.all("sealed")[-10:]]

    def _judge(self, what: Forecast, is_hooked: bool) -> None:
        if self._held:
            # A stopped program makes a level of the middle of its save: what it takes is what was known before.
            what = replace(what, save_bytes=self._stopped_save)
        self._is_close = not is_hooked and pause.is_close(what)
        verdict = pause.judge(what, is_hooked=is_hooked, was_paused=self._held)
        with self._lock:
            if verdict.paused == self._held or not self._may_pause:
                return
            self._held, self._stopped_save = verdict.paused, what.save_bytes
            self.hold(verdict.paused)
        if verdict.paused:
            self.record("paused", why=verdict.why, short_bytes=verdict.short_bytes, how="SIGSTOP")
            self.screen.line(f"paused: {verdict.why}. It goes on by itself when there is room")
        else:
            self.record("continued", why=verdict.why)
            self.screen.line("goes on: there is room again")

    def _greet(self, is_hooked: bool, *, is_over: bool = False) -> None:
        """Say once whether saves are guarded or only watched; a late handshake corrects it."""
        may_still_hook = self._may_still_hook() and not is_over
        mode = "hooked" if is_hooked else "" if may_still_hook else "watching only"
        if not mode or mode == self._mode:
            return
        self._mode = mode
        self.record("mode", mode=mode)
        self.screen.line(MODES[mode])

    def _speak(self, what: Forecast, place: Path, is_hooked: bool) -> None:
        waiting = is_hooked and self.story.is_waiting()
        text = f"{sentence(what, makes_room=is_hooked)} ({place})"
        if waiting:
            text = f"{self.story.all('paused')[-1].get('why', 'a save waits for room')} ({text})"
        if self.subject.is_terminal and self.screen.status(f"outlast: {text}"):
            return
        meaning = (what.saves_left, waiting, self._mode)
        due = self.clock() - self._spoke >= _SPEAK_SECONDS
        if self._mode and due and meaning != self._said:
            self._spoke, self._said = self.clock(), meaning
            self.screen.line(text)


MODES = {
    "hooked": "hooked: its saves are guarded",
    "watching only": "watching only: no Python in it took the hooks (python -I or env -i, or not Python); "
    "its end is explained and it is paused before a volume is full",
}
"""What the user is told about the handshake."""
