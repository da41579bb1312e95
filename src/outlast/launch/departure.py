"""Asking the trainings of a run to leave, and seeing that they do: deadline, signals, notices, a host short of memory.

The asking is a file that a hooked training looks at after each step (`outlast.guard.stop`). What nothing is hooked in
can only be told by SIGTERM, and is, a grace before the deadline.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from outlast import durable
from outlast.budget import clock
from outlast.errors import BadInput
from outlast.guard import Story
from outlast.guard import stop as stops
from outlast.guard.stop import Stop
from outlast.host import show_seconds, this_session
from outlast.journal import FOLDER

GRACE_SECONDS = 30.0
"""What a program without hooks gets to end by itself: Slurm's KillWait, Kubernetes' grace (docs/platforms.md)."""
KILL_SECONDS = 5.0
"""What a training that was asked twice gets to end by itself: its own answer to SIGTERM is ours, and may not come."""
_LONG_SECONDS = 600.0


@dataclass(slots=True)
class Departure:
    """Requests to leave of one run, over all its attempts."""

    home: Path
    """Folder whose ``.outlast`` holds the journal."""
    run: str
    """The run's name."""
    deadline: clock.Deadline | None
    """When this session ends; None when nobody said."""
    story: Callable[[], Story]
    """What the journal tells so far."""
    record: Callable[..., None]
    """Writes an event to the journal."""
    line: Callable[[str], None]
    """Tells the user."""
    reread: Callable[[], Story]
    """What the journal tells at this moment: a request must not miss a training that began since the last look."""
    now: Callable[[], float] = time.time
    """Seconds since the epoch."""
    began: float = field(init=False)
    """When the first attempt began, seconds since the epoch."""
    _since: float = 0.0
    _has_told_pace: bool = False
    _has_told_resumed: bool = False
    _is_overdue: bool = False
    _passed_at: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    """Requests come from several threads: what is there is compared and replaced in one."""

    def __post_init__(self) -> None:
        self.began = self.now()

    def begin(self) -> None:
        """Before an attempt: what made the last one leave is over, but for the deadline."""
        self._since, self._has_told_pace, self._is_overdue = self.now(), False, False
        self._passed_at, self._has_told_resumed = None, False
        known = self.deadline
        self._put(Stop(known.by, "deadline", known.why) if known else None)
        if known:
            when = _in(known.by - self.now())
            self.line(f"the session ends {when} ({known.why}): a training that can be asked seals its last step before")

    def hint(self, environment: Mapping[str, str]) -> str | None:
        """What the user could say of a session that ends by itself; None when they did, or nothing is known of it."""
        if self.deadline is not None:
            return None
        with suppress(BadInput):
            found = clock.parse("auto", self.now(), this_session(environment))
            return (
                f"{found.why} is {_in(found.by - self.now())}: with --deadline auto the last step is sealed before it"
            )
        return None

    def can_leave(self) -> set[int]:
        """Processes that look at requests after each step now."""
        return self._leaving_of(self.story())

    def _leaving_of(self, story: Story) -> set[int]:
        last = {event.pid: event.name for event in story.all("can_leave", "cannot_leave", since=self._since)}
        return {pid for pid, name in last.items() if name == "can_leave"}

    def ask(self, stop: Stop) -> bool:
        """Ask for it; of several requests the earliest counts.

        Returns:
            False when nothing is hooked that would see it, or it cannot be written down.
        """
        if not self._leaving_of(self.reread()):
            return False
        with self._lock:
            known = stops.asked(self.home, self.run)
            if known is not None and known.by <= stop.by:
                return True
            if not self._put(stop):
                return False
        self.record("asked_to_leave", cause=stop.cause, why=stop.why, by=stop.by)
        self.line(f"asked it to seal a checkpoint and leave: {stop.why}")
        return True

    def takes(self, number: int, sender: str) -> bool:
        """Whether a signal becomes a request, rather than be passed on: the first one that asks for an end does."""
        if number not in (signal.SIGTERM, signal.SIGUSR1):
            return False
        known = stops.asked(self.home, self.run)
        if known is not None and known.cause == "signal":
            if self.now() - known.by < stops.SAME_SECONDS:
                return True  # one wish that came twice: a group's signal, and `timeout` passing on its own
            self._passed_at = self.now()
            return False  # asked twice: now
        name = signal.Signals(number).name
        return self.ask(Stop(self.now(), "signal", f"{name} came from {sender}"))

    def is_deaf(self) -> bool:
        """Whether a training was asked twice, has had its time, and is still there; once."""
        if self._passed_at is None or self.now() - self._passed_at < KILL_SECONDS:
            return False
        self._passed_at = None
        if not self.can_leave():
            return False
        self.record("killed", why=f"asked twice to stop, and still there {KILL_SECONDS:.0f} s later")
        return True

    def look(self) -> bool:
        """A few times a second: tell how long it takes, once; True when it is time for a SIGTERM, once."""
        self._tell_resumed()
        self._tell_pace()
        if self.deadline is None or self._is_overdue:
            return False
        can_leave = self.can_leave()
        if not can_leave and self.story().all("can_leave", "stopped", since=self._since):
            return False  # it has left, or came to its own end: what the script does after that is not touched
        grace = 0.0 if can_leave else min(GRACE_SECONDS, (self.deadline.by - self.began) / 10)
        if self.now() < self.deadline.by - grace:
            return False
        self._is_overdue = True
        why = "it did not leave by itself" if not grace else f"nothing in it can be asked to leave; {grace:.0f} s left"
        self.record("overdue", why=why, deadline=self.deadline.why)
        self.line(f"{self.deadline.why} is here: SIGTERM ({why})")
        return True

    def eta(self) -> clock.Eta | None:
        """How long the rest takes, from the newest seal on; None when no training has told its pace."""
        paces = self.story().all("pace")
        if not paces:
            return None
        pace = paces[-1].facts
        done = max(int(pace["step"]), self.story().sealed_step() or 0)
        by = self.deadline.by if self.deadline else None
        whole = by - self.began if by else None
        left = max(0, int(pace["total_steps"]) - done)
        return clock.eta(left, float(pace["step_seconds"]), now=self.now(), by=by, session_seconds=whole)

    def _tell_resumed(self) -> None:
        resumed = [] if self._has_told_resumed else self.story().all("resumed", since=self._since)
        if resumed:
            self._has_told_resumed = True
            self.line(f"goes on from the seal of step {resumed[-1].get('step')}")

    def _tell_pace(self) -> None:
        if self._has_told_pace or not self.story().all("pace", since=self._since):
            return
        self._has_told_pace = True
        eta = self.eta()
        if eta and (eta.session_seconds is not None or eta.seconds > _LONG_SECONDS):
            self.record("eta", left_steps=eta.left_steps, seconds=eta.seconds, sessions=eta.sessions)
            self.line(clock.sentence(eta))

    def _put(self, stop: Stop | None) -> bool:
        for _ in range(2):
            try:
                stops.put(self.home, self.run, stop)
                return True
            except OSError as error:
                problem: Any = durable.why_not(error)
                if error.errno not in durable.FULL or not durable.Ballast(self.home / FOLDER / "ballast").cut():
                    break
        self.record("not_asked", why=str(problem), cause=stop.cause if stop else None)
        self.line(f"the request to leave cannot be written down: {problem}")
        return False


def _in(seconds: float) -> str:
    return f"in {show_seconds(seconds)}" if seconds > 0 else "which has passed"
