"""`outlast run`: start the command guarded, explain its end, start it again where that helps."""

from __future__ import annotations

import os
import resource
import shlex
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from outlast import durable, journal
from outlast.errors import BadInput
from outlast.guard import Lookout, RamWatch, Story, Subject, Watch
from outlast.guard import stop as stops
from outlast.guard.stop import Stop
from outlast.host import Budget, explain_full, room
from outlast.journal import FOLDER, Event, Journal
from outlast.launch import again, cache_places, command, ends, processes, summary
from outlast.launch.departure import Departure
from outlast.launch.order import Order, did_not_finish, environment
from outlast.launch.output import Output
from outlast.launch.shm import SharedMemory

_OBSERVE_SECONDS = 1.0
_LOOK_BACK = 50


def supervise(order: Order, base: Mapping[str, str] | None = None) -> int:
    """Run a command guarded until it has ended for good.

    Inside another guarded run only the hooks are set and the command replaces this process: the outermost supervisor
    is the one that restarts.

    Args:
        order: what was asked.
        base: environment; None takes that of the process.

    Returns:
        The command's exit code; 128 + N when signal N ended it.

    Raises:
        BadInput: when the command cannot be started, or the journal's folder cannot be made.
    """
    base = dict(os.environ if base is None else base)
    if base.get(journal.RUN_VARIABLE) and base.get(journal.HOME_VARIABLE):
        _become(order, base)
    resume = order.resume == "always" or (order.resume == "auto" and _was_cut_short(order))
    other = None if resume or order.resume != "auto" else _cut_short_by_another(order)
    with command.signals_waited_for() as mask:
        return _Run(order, base, mask).until_done(resume, other)


def _become(order: Order, base: Mapping[str, str]) -> None:
    attempt = int(base.get("OUTLAST_ATTEMPT", "1"))
    outer = Path(base[journal.HOME_VARIABLE])
    if order.deadline:
        stops.ask(outer, base[journal.RUN_VARIABLE], Stop(order.deadline.by, "deadline", order.deadline.why))
    inner = Order(
        order.command, outer, order.budgets, order.keep, order.keep_exact, order.forbid, order.reclaim, order.resume,
        save=order.save, subsets=order.subsets,
    )  # fmt: skip
    variables = environment(inner, base[journal.RUN_VARIABLE], attempt, bool(base.get("OUTLAST_RESUME")), base)
    try:
        os.execvpe(order.command[0], order.command, variables)
    except OSError as error:
        raise BadInput(
            f"cannot start {order.command[0]!r}: {os.strerror(error.errno or 0)}", hint="is it on PATH?"
        ) from error


def _was_cut_short(order: Order) -> bool:
    """Whether the last guarded run of this command here is left to be resumed."""
    for run in reversed(journal.runs(order.home)[-_LOOK_BACK:]):
        left = did_not_finish(journal.read(order.home, run), order.command)
        if left is not None:
            return left
    return False


def _cut_short_by_another(order: Order) -> str | None:
    """The last guarded run here was of another command, and is left to be resumed: what to tell of it."""
    runs = journal.runs(order.home)
    events = journal.read(order.home, runs[-1]) if runs else []
    started = [event.get("command") for event in events if event.name == "started"]
    if not started or not isinstance(started[-1], list) or not did_not_finish(events, started[-1]):
        return None
    steps = [event.get("step") for event in events if event.name in ("sealed", "resumed")]
    return (
        f"the last run here was another command ({shlex.join(map(str, started[-1]))}), cut short with step {steps[-1]} "
        "sealed: this one starts as its script says; --resume always goes on from there"
    )


@dataclass(slots=True)
class _Record:
    """The supervisor's journal, for its main thread and its guard thread."""

    journal: Journal
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, name: str, **facts: Any) -> None:
        with self.lock:
            self.journal.write(name, **facts)


class _Run:
    """All attempts of one guarded run."""

    def __init__(self, order: Order, base: Mapping[str, str], mask: set[signal.Signals | int]) -> None:
        self.order = order
        self.base = base
        self.mask = mask
        self.ballast = durable.Ballast(order.home / FOLDER / "ballast")
        self.journal = Journal(order.home)
        self.record = _Record(self.journal)
        self.output = Output()
        self.shm = SharedMemory()
        self.attempts: list[again.Attempt] = []
        self.score: int | None = None
        self._next_look = float("-inf")
        # A spawned process counts its parent's memory as its own until it execs: less than that says nothing.
        self.own_rss_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        subject = Subject(order.home, self.journal.run, order.budgets, os.isatty(self.output.err))
        screen = _Screen(lambda: self.output)
        self.watch = Watch(subject, screen, self.record, self._hold)
        self.departure = Departure(
            order.home,
            self.journal.run,
            order.deadline,
            lambda: self.story,
            self.record,
            lambda text: self.output.line(text),
            self._reread,
        )
        self.overdue: list[ends.Sent] = []
        self.lookout = Lookout.here(screen.line, self.record, self.departure.ask, base)

    @property
    def story(self) -> Story:
        """What the journal tells so far."""
        return self.watch.story

    def _reread(self) -> Story:
        """All that is journaled by now; the guard's own story is a second old."""
        story = Story()
        story.add(journal.read(self.order.home, self.journal.run))
        return story

    def until_done(self, resume: bool, hint: str | None = None) -> int:
        """Attempts until one is the last; returns its exit code.

        Args:
            resume: whether the first one resumes.
            hint: what the user is to know before it.
        """
        try:
            self.journal.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(
                f"cannot make {self.journal.folder}: {durable.why_not(error)}",
                hint="name a folder that you can write to with --dir",
            ) from error
        self.base, told = cache_places.placed(self.base, self.order.budgets)
        for line in told:
            self.record("caches_placed", why=line)
            self.output.line(line)
        for line in filter(None, [hint, self.departure.hint(self.base)]):
            self.output.line(line)
        here = room(self.order.home, self.order.budgets)
        self.ballast.keep(here.free_bytes, here.total_bytes)
        processes.adopt_orphans()
        self.score = processes.shield()
        began = time.monotonic()
        while True:
            end = self._attempt(len(self.attempts) + 1, resume)
            decision = again.decide(self.attempts, self.order.restarts)
            self.record("decided", restart=decision.restart, why=decision.why)
            if not decision.restart:
                break
            self.output.line(f"{summary.headline(end.cause)}; starting again {decision.why}")
            self._clear_up()
            resume = True
        eta = self.departure.eta()
        for line in summary.lines(self.story, self.attempts, end, decision.why, time.monotonic() - began, eta):
            self.output.line(line)
        self.journal.close()
        self.ballast.release()
        return end.exit_code

    def _attempt(self, number: int, resume: bool) -> ends.End:
        began, since = time.monotonic(), time.time()
        self._next_look = began
        variables = environment(self.order, self.journal.run, number, resume, self.base)
        counts = processes.OomCounts()
        counts.include(["self"])
        self.output = Output()
        self.record(
            "started", command=list(self.order.command), cwd=str(Path.cwd()), attempt=number, resume=resume,
            budgets=[f"{budget.root}={budget.limit_bytes}" for budget in self.order.budgets],
            started_ticks=processes.start_ticks(os.getpid()),
        )  # fmt: skip
        try:
            pid = command.start(self.order.command, variables, self.output.connect(), self.mask)
        except BadInput as error:
            self.record("ended", cause="not_started", exit_code=2, evidence=[error.message], attempt=number)
            raise
        processes.score_again(pid, self.score, self._bump(counts.limit_bytes))
        self.shm.observe([pid])
        self.output.start()
        self.departure.begin()
        ram = RamWatch(pid, self._ask_for_memory, self.record, self.output.line)
        self.watch.start(since)
        self.lookout.start()
        ended = command.wait(
            pid,
            on_tick=lambda: self._observe(counts, ram),
            on_resize=lambda: self.output.resized(),
            takes=self._takes,
        )
        self._told("outlast-output", self.output.stop())
        self._told("outlast-guard", self.watch.stop())
        self._told("outlast-lookout", self.lookout.stop())
        counts.read()
        ended.sent += self.overdue
        self.overdue = []
        end = ends.classify(self._facts(pid, ended, counts, since))
        self.attempts.append(
            again.Attempt(
                end.cause,
                self.story.sealed_step(),
                bool(self.story.all("sealed", since=since)),
                self.story.hooked(since),
            )
        )
        self.record(
            "ended", cause=end.cause, exit_code=end.exit_code, evidence=list(end.evidence), attempt=number,
            max_rss_bytes=ended.max_rss_bytes, seconds=round(time.monotonic() - began, 3),
            lost_output_bytes=self.output.lost_bytes, hooked=self.story.hooked(since),
        )  # fmt: skip
        return end

    def _bump(self, limit_bytes: int | None) -> int:
        """Twice our own share of the memory that there is, in thousandths."""
        total = limit_bytes or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return 1 + 2000 * self.own_rss_bytes // max(total, 1)

    def _facts(self, pid: int, ended: command.Ended, counts: processes.OomCounts, since: float) -> ends.Facts:
        recorded = [_recorded(event) for event in self.story.all("exception", since=since)]
        pertinent = ends.pertinent(recorded, pid, ended.status)
        return ends.Facts(
            status=ended.status,
            recorded=pertinent,
            full=_full(pertinent, self.order.budgets),
            oom_kills=counts.rise,
            oom_source=counts.source,
            oom_age_seconds=counts.age_seconds,
            memory_limit_bytes=counts.limit_bytes,
            max_rss_bytes=ended.max_rss_bytes if ended.max_rss_bytes > self.own_rss_bytes else 0,
            sent=ended.sent,
            foreseen=_foreseen(self.story.all("asked_to_leave", "memory_close", since=since)),
            stopped=_stopped(self.story.all("stopped", since=since)),
            tail=self.output.text(),
            free_bytes=self.watch.least_free_bytes(),
        )

    def _takes(self, number: int, sender: str) -> bool:
        self.watch.release()
        return self.departure.takes(number, sender)

    def _ask_for_memory(self, why: str) -> bool:
        return self.departure.ask(Stop(time.time(), "memory", why))

    def _observe(self, counts: processes.OomCounts, ram: RamWatch) -> None:
        """A few times a second: the process table once a second, the rest each time."""
        counts.read()
        if self.departure.look():
            self.watch.release()
            self.overdue.append(ends.Sent("SIGTERM", "outlast, at the deadline"))
            processes.signal_all([ram.pid], signal.SIGTERM)
        if self.departure.is_deaf():
            living = self.departure.can_leave() & set(processes.descendants(os.getpid()))
            processes.signal_all(sorted(living), signal.SIGKILL)
        ram.look(self.story, can_leave=bool(self.departure.can_leave()))
        now, began = time.monotonic(), time.thread_time()
        if now >= self._next_look:
            pids = processes.descendants(os.getpid())
            counts.include(pids)
            self.shm.observe(pids)
            # On a machine with thousands of processes a look costs more: it may take a hundredth of one core at most.
            self._next_look = now + max(_OBSERVE_SECONDS, 100 * (time.thread_time() - began))

    def _hold(self, stopped: bool) -> None:
        processes.signal_all(processes.descendants(os.getpid()), signal.SIGSTOP if stopped else signal.SIGCONT)

    def _clear_up(self) -> None:
        """Before a restart: nothing of the dead attempt may still run, or hold memory."""
        left = processes.end_all(lambda: processes.descendants(os.getpid()), lambda: command.reap(None))
        if left:
            self.record("ended_orphans", pids=left)
        for path, freed in self.shm.remove_dead():
            self.record("deleted", path=str(path), freed_bytes=freed, why="shared memory of a dead process of this run")

    def _told(self, thread: str, died_of: BaseException | None) -> None:
        """A thread of ours that died is journaled and shown, but it is no reason to end the run."""
        if died_of is not None:
            self.record("thread_died", thread=thread, error=repr(died_of))
            self.output.line(f"the thread {thread} died of {died_of!r}; the run went on without it")


@dataclass(frozen=True, slots=True)
class _Screen:
    """The streams of the attempt that runs now."""

    output: Callable[[], Output]

    def line(self, text: str) -> None:
        self.output().line(text)

    def status(self, text: str) -> bool:
        return self.output().status(text)


def _full(recorded: Sequence[ends.Recorded], budgets: Sequence[Budget]) -> str:
    """What stood in the way of the last write that failed for want of room; empty when no exception names its path."""
    failed = [(one.path, one.errno) for one in recorded if one.path and one.cause in ("ENOSPC", "EDQUOT")]
    return explain_full(*failed[-1], room(failed[-1][0], budgets)) if failed else ""


def _stopped(events: Sequence[Event]) -> ends.Stopped | None:
    if not events:
        return None
    last = events[-1]
    return ends.Stopped(str(last.get("cause")), str(last.get("why")), last.get("step"))


def _foreseen(events: Sequence[Event]) -> str:
    """What was said of main memory before the end; empty when nothing was."""
    told = [one for one in events if one.name == "memory_close" or one.get("cause") == "memory"]
    if not told:
        return ""
    was_asked = told[-1].name == "asked_to_leave"
    how = "it was asked to leave, and was still in a step" if was_asked else "nothing in it could be asked to leave"
    return f"it was foreseen: {told[-1].get('why')}; {how}"


def _recorded(event: Event) -> ends.Recorded:
    return ends.Recorded(
        type=str(event.get("type", "?")),
        message=str(event.get("message", "")),
        cause=str(event.get("cause", "EXCEPTION")),
        frames=tuple(map(str, event.get("frames") or ())),
        pid=event.pid,
        thread=event.get("thread"),
        reports_anothers_end=bool(event.get("reports_anothers_end")),
        path=str(event.get("path")) if event.get("path") else None,
        errno=event.get("errno"),
    )
