"""Leaving in time: looked at after each step, so that the last one is followed by a seal and an orderly end.

Who asks: a deadline of the `Run` or of ``outlast run`` (and through it spot notices and a host short of memory: see
`outlast.guard.stop`), and SIGTERM or SIGUSR1, where the program has no handler of its own. The second such signal ends
the process as it would without Outlast.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from outlast.budget import clock
from outlast.checkpoints import say
from outlast.guard.stop import SAME_SECONDS, Mailbox, Stop
from outlast.journal import HOME_VARIABLE, RUN_VARIABLE, Journal
from outlast.train.ranks import Ranks

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""A scheduler's and a container's way to say that the end is near; USR1 is what Slurm's users ask for."""
_LOOK_SECONDS = 0.2
_AGREE_SECONDS = 2.0
_TELL_AFTER_STEPS = 8
_TELL_AFTER_SECONDS = 5.0


class Stopped(SystemExit):
    """The training left in time with a sealed checkpoint: ends the process with exit code 0 unless it is caught.

    After a stop for want of memory the exit code is 1: ``outlast run`` starts it again.
    """

    def __init__(self, stop: Stop, step: int) -> None:
        super().__init__(1 if stop.cause == "memory" else 0)
        self.stop = stop
        self.step = step
        """Optimizer steps done; the newest seal's step."""

    def __str__(self) -> str:
        return f"stopped at step {self.step}, which is sealed: {self.stop.why}"


class Leaving:
    """Whether this step was the last one that fits; one for each training.

    Args:
        journal: where to write what is decided.
        deadline: this training's own; None for that of ``outlast run`` alone.
        save_bytes: what the next save takes, for a guess before one was measured.
    """

    def __init__(
        self, journal: Journal, *, deadline: clock.Deadline | None = None, save_bytes: Callable[[], int] | None = None
    ) -> None:
        self.journal = journal
        self.pace = clock.Pace()
        self._own = Stop(deadline.by, "deadline", deadline.why) if deadline else None
        home, run = os.environ.get(HOME_VARIABLE), os.environ.get(RUN_VARIABLE)
        self._mailbox = Mailbox(Path(home), run) if home and run else None
        self._is_told = bool(self._mailbox)
        self._save_bytes = save_bytes
        self._is_on = False
        self._signals = _Signals()
        self._began = self._last = time.monotonic()
        self._saved = 0.0
        self._next_look = 0.0
        self._agreed_at = 0
        self.total_steps: int | None = None
        """Optimizer steps of the whole training; None when not known."""
        self._session_seconds = max(0.0, self._own.by - time.time()) if self._own else None
        self._has_told_pace = False

    def begin(self, signals: Sequence[signal.Signals] = SIGNALS) -> None:
        """The first step is about to start. From here on signals are taken, in the main thread.

        Args:
            signals: which ones.
        """
        if self._is_on:
            return
        self._is_on = True
        _NOW.append(self)
        taken = self._signals.take(signals)
        self.journal.write("can_leave", signals=taken)
        if self._save_bytes is not None:
            self.pace.guessed_save_seconds = clock.guess_save_seconds(self._save_bytes())
        self._began = self._last = time.monotonic()

    def end(self) -> None:
        """No more steps: signals do again what they did before."""
        if self._is_on:
            self._is_on = False
            _NOW.remove(self)
            self._signals.give_back()
            self.journal.write("cannot_leave")

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Around each save, so that it is known what one takes."""
        began = time.monotonic()
        yield
        took = time.monotonic() - began
        self._saved += took
        self.pace.save(took)

    def after_step(self, step: int) -> Stop | None:
        """A step is done; with several processes all of them call this after each.

        Args:
            step: optimizer steps done.

        Returns:
            The request to leave now, the same on all ranks; None to go on.
        """
        now = time.monotonic()
        self.pace.step(max(0.0, now - self._last - self._saved))
        self._last, self._saved = now, 0.0
        self._tell_pace(step, now)
        ranks = Ranks()
        if ranks.world > 1:
            return self._agreed(ranks, step)
        if now < self._next_look and not self._signals.came and self.pace.mean_step_seconds is not None:
            return None
        self._next_look = now + _LOOK_SECONDS
        return self._due(self._asked(), self.pace.needed_seconds)

    def leave(self, stop: Stop, step: int) -> NoReturn:
        """The step is sealed: say so, and end.

        Raises:
            Stopped: always.
        """
        self.journal.write("stopped", cause=stop.cause, why=stop.why, step=step, by=stop.by)
        self.end()
        found = Stopped(stop, step)
        if not self._is_told and Ranks().is_first:
            say(str(found), "start the same command again: it goes on from there")
        raise found

    def give_up_if_late(self) -> None:
        """A save waits for room, and the time to have left has come.

        Raises:
            SystemExit: 128 + SIGTERM.
        """
        stop = self._asked()
        if stop and time.time() >= stop.by:
            self.journal.write("stopped", cause=stop.cause, why=stop.why, step=None, by=stop.by)
            raise SystemExit(128 + signal.SIGTERM)

    def after_broken_fetch(self, error: BaseException) -> Stop | None:
        """The request to leave now, where it may have ended the workers that the next batch was to come from."""
        stop = self._asked()
        is_workers_end = isinstance(error, RuntimeError) and "DataLoader worker" in str(error)
        return stop if is_workers_end and stop and time.time() >= stop.by and Ranks().world == 1 else None

    def forget_signals(self) -> None:
        """Let signals do again what they did before."""
        self._signals.give_back()

    def _asked(self) -> Stop | None:
        found = [self._own, self._mailbox.look() if self._mailbox else None, self._signals.stop]
        return min((stop for stop in found if stop), key=lambda stop: stop.by, default=None)

    def _due(self, stop: Stop | None, needed_seconds: float) -> Stop | None:
        return stop if stop and clock.is_due(stop.by, time.time(), needed_seconds) else None

    def _agreed(self, ranks: Ranks, step: int) -> Stop | None:
        """Every couple of seconds, at a step that all ranks know of, they put together what each has heard."""
        if step < self._agreed_at:
            return None
        heard = ranks.gather((self._asked(), self.pace.needed_seconds, self.pace.mean_step_seconds, time.time()))
        mean = heard[0][2]
        self._agreed_at = step + max(1, int(_AGREE_SECONDS / mean) if mean else 1)
        between = (self._agreed_at - step) * (mean or 0.0)
        asked = min((stop for stop, *_ in heard if stop), key=lambda stop: stop.by, default=None)
        worst, now = max(needed for _, needed, *_ in heard), max(at for *_, at in heard)
        return asked if asked and clock.is_due(asked.by, now, worst + between) else None

    def _tell_pace(self, step: int, now: float) -> None:
        mean = self.pace.mean_step_seconds
        early = len(self.pace.steps) < _TELL_AFTER_STEPS or now - self._began < _TELL_AFTER_SECONDS
        if self._has_told_pace or early or mean is None or self.total_steps is None:
            return
        self._has_told_pace = True
        self.journal.write("pace", step=step, total_steps=self.total_steps, step_seconds=round(mean, 6))
        if not self._is_told and self._own and Ranks().is_first:
            what = clock.eta(
                self.total_steps - step, mean, now=time.time(), by=self._own.by, session_seconds=self._session_seconds
            )
            with suppress(OSError, ValueError):
                sys.stderr.write(f"outlast: {clock.sentence(what)}\n")


_NOW: list[Leaving] = []
"""The trainings that are between their steps in this process, the innermost last."""


class _Signals:
    """Handlers that only set a flag, where there were none."""

    def __init__(self) -> None:
        self.came: str | None = None
        """Name of the signal that came."""
        self.stop: Stop | None = None
        self._came_at = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def take(self, signals: Sequence[signal.Signals]) -> list[str]:
        """Install them; returns the signals that had no handler."""
        if threading.current_thread() is not threading.main_thread():
            return []
        for number in signals:
            if signal.getsignal(number) == signal.SIG_DFL:
                self._before[number] = signal.signal(number, self._flag)
        return [number.name for number in self._before]

    def give_back(self) -> None:
        """As it was before."""
        for number, before in self._before.items():
            if signal.getsignal(number) == self._flag:
                signal.signal(number, before)
        self._before = {}

    def _flag(self, number: int, frame: FrameType | None) -> None:
        if self.came:
            if time.monotonic() - self._came_at < SAME_SECONDS:
                return  # one wish that came twice: to the group, and passed on by a parent
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        # A group's signal ends DataLoader's workers too, and torch's handler would raise in the middle of this step.
        if getattr(signal.getsignal(signal.SIGCHLD), "__module__", "").startswith("torch.utils.data"):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.came, self._came_at = signal.Signals(number).name, time.monotonic()
        self.stop = Stop(time.time(), "signal", f"it was asked to stop ({self.came})")


# A forked worker must die of SIGTERM: pools end their workers with it, and wait for them. One that comes between the
# fork and the change of handlers would be lost (Python drops it), so it is held back for so long.
_HELD = threading.local()


def _before_fork() -> None:
    _HELD.mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS) if _NOW else None


def _after_fork() -> None:
    if getattr(_HELD, "mask", None) is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _HELD.mask)


def _in_forked_child() -> None:
    for leaving in _NOW:
        with suppress(ValueError, OSError):
            leaving.forget_signals()
    _after_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_forked_child)


def patience(seconds: float) -> None:
    """Sleep while a save waits for room. Who is asked to leave now leaves: the save would never get there.

    Raises:
        SystemExit: 128 + SIGTERM when it is time to have left; the newest seal is an older one.
    """
    time.sleep(seconds)
    for leaving in _NOW:
        leaving.give_up_if_late()
