"""How a command ended: from what is known to a cause with its evidence. Pure; a table of rules, first match counts.

The order is guard.md's: launchers turn every end into exit code 1, so what the process itself recorded comes first,
then the kernel's out-of-memory count, then the signal or exit code, then the text on stderr.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from outlast.host import show_bytes
from outlast.launch import last_words

_RECENT_SECONDS = 60.0
_FULL_BYTES = 1024 * 1024
_USAGE_CODE = 2


@dataclass(frozen=True, slots=True)
class Recorded:
    """An uncaught exception as the process itself journaled it."""

    type: str
    """Qualified class name."""
    message: str
    """Its text."""
    cause: str
    """What `last_words.cause_of` made of it."""
    frames: tuple[str, ...] = ()
    """Last frames, innermost last."""
    pid: int = 0
    """Process that raised it."""
    thread: str | None = None
    """Name of the thread; None for the main one."""
    reports_anothers_end: bool = False
    """True when it only says that another process ended."""
    path: str | None = None
    """File that could not be written, where the exception names one."""
    errno: int | None = None
    """The system's number of the error."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A signal that went through the supervisor."""

    name: str
    """``SIGTERM`` ..."""
    sender: str
    """Who sent it, as far as known."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """A training that left in time, as it journaled it."""

    cause: str
    """A name of `outlast.guard.stop.CAUSES`."""
    why: str
    """A phrase for the user."""
    step: int | None
    """Its step, which is sealed; None when it left while a save waited for room."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known of an end."""

    status: int
    """Exit code, or minus the signal's number."""
    recorded: Sequence[Recorded] = ()
    """Exceptions of this attempt, oldest first."""
    oom_kills: int = 0
    """By how much the kernel's count rose during this attempt."""
    oom_source: str = ""
    """File of that count, and its values."""
    oom_age_seconds: float | None = None
    """Seconds between its last rise and the end; None when it did not rise."""
    memory_limit_bytes: int | None = None
    """The memory group's limit."""
    max_rss_bytes: int = 0
    """Most memory that the command's main process held."""
    sent: Sequence[Sent] = ()
    """Signals that went through us, in order."""
    tail: str = ""
    """End of its stderr."""
    free_bytes: int | None = None
    """Least room on the watched volumes at the end."""
    stopped: Stopped | None = None
    """The training left in time; None when it did not."""
    foreseen: str = ""
    """What the guard said of main memory before; empty when it saw nothing come."""
    full: str = ""
    """Which limit a write hit, on which mount; empty when none did."""


@dataclass(frozen=True, slots=True)
class End:
    """A classified end."""

    cause: str
    """A name of `causes.CAUSES`."""
    exit_code: int
    """What the supervisor passes on: 128 + N for signal N."""
    evidence: tuple[str, ...]
    """What it was concluded from, a line each, with numbers."""


Rule = Callable[[Facts], tuple[str, list[str]] | None]
"""Looks at the facts; gives a cause and the evidence that speaks for it, or None."""


def classify(facts: Facts) -> End:
    """The cause of an end, with the evidence."""
    for rule in RULES:
        found = rule(facts)
        if found:
            cause, evidence = found
            # Its work is sealed, whatever a launcher or a library made of the way out (gloo aborts, torchrun says 1).
            status = 0 if cause in LEFT_IN_TIME else facts.status
            return End(cause, exit_code(status), (*evidence, *_always(facts, cause)))
    return End("unknown", exit_code(facts.status), tuple(_always(facts, "unknown")))


def pertinent(recorded: Sequence[Recorded], main: int, status: int) -> list[Recorded]:
    """The exceptions that bear on the end: a helper process that failed long ago and was ignored does not.

    Args:
        recorded: of all processes, oldest first.
        main: process id of the command.
        status: its exit code, or minus the signal's number.
    """
    own = [r for r in recorded if r.pid == main]
    if status < 0 or any(not r.reports_anothers_end and not r.thread for r in own):
        return own
    if any(r.reports_anothers_end for r in recorded):
        return list(recorded)
    # A shell script with several steps: the last one to fail is the one that it ended for.
    return [r for r in recorded if r.pid == recorded[-1].pid]


def exit_code(status: int) -> int:
    """The exit code that a shell would show: 128 + N for signal N."""
    return 128 - status if status < 0 else status


def _left(facts: Facts) -> tuple[str, list[str]] | None:
    """It sealed its last step and left, or gave up a save that waited; an exception on the way out is another end."""
    left = facts.stopped
    if left is None or facts.status == -signal.SIGKILL or _own_exception(facts):
        return None
    if left.step is None:
        return "SIGTERM", [f"{left.why}: it left while a save waited for room; the newest seal is an older step"]
    return LEFT_FOR.get(left.cause, "signal"), [f"{left.why}: step {left.step} was sealed, then it left"]


def _asked_to_stop(facts: Facts) -> tuple[str, list[str]] | None:
    """A forwarded SIGTERM explains any end after it, also an orderly exit 0: the work is not done."""
    stopping = [sent for sent in facts.sent if sent.name in ("SIGTERM", "SIGHUP")]
    if stopping and facts.status not in (-signal.SIGKILL,):
        first = stopping[0]
        return first.name, [f"{first.name} came from {first.sender} and was passed on to the command"]
    return None


def _finished(facts: Facts) -> tuple[str, list[str]] | None:
    return ("finished", []) if facts.status == 0 else None


def _interrupted(facts: Facts) -> tuple[str, list[str]] | None:
    own = [r for r in facts.recorded if r.cause == "INTERRUPT" and not r.thread]
    if own or facts.status == -signal.SIGINT or (any(s.name == "SIGINT" for s in facts.sent) and facts.status == 130):
        return "INTERRUPT", [_quote(own[-1])] if own else ["SIGINT ended it"]
    return None


def _recorded(facts: Facts) -> tuple[str, list[str]] | None:
    """The first exception with a cause of its own; launchers that report it come later."""
    telling = [r for r in facts.recorded if r.cause not in ("EXCEPTION", "INTERRUPT")]
    telling.sort(key=lambda r: (r.thread is not None, r.reports_anothers_end))
    return (telling[0].cause, _frames(telling[0])) if telling else None


def _oom_killed(facts: Facts) -> tuple[str, list[str]] | None:
    """The count rose, and the end looks like its consequence."""
    if not facts.oom_kills:
        return None
    own = _own_exception(facts)
    recent = (facts.oom_age_seconds or 0.0) <= _RECENT_SECONDS
    if own and not own.reports_anothers_end and not recent:
        return None
    evidence = [f"oom_kill rose by {facts.oom_kills} ({facts.oom_source})"]
    if facts.memory_limit_bytes:
        evidence.append(f"the memory limit is {show_bytes(facts.memory_limit_bytes)}")
    reports = [r for r in facts.recorded if not r.thread]
    return "OOM_KILL", evidence + [_quote(r) for r in reports[:1]]


def _reported_end(facts: Facts) -> tuple[str, list[str]] | None:
    """Only a launcher or a parent speaks: the cause is in its text."""
    reports = [r for r in facts.recorded if r.reports_anothers_end and not r.thread]
    if not reports or _own_exception(facts):
        return None
    text = reports[0].message
    found = last_words.text_cause(text) or last_words.text_cause(facts.tail)
    if found:
        return found, [_quote(reports[0]), *_quoted_line(facts.tail, found)]
    if "SIGKILL" in text or "exitcode: -9" in text.replace("exitcode  :", "exitcode:") or "signal: Killed" in text:
        return "KILLED", [_quote(reports[0])]
    if any(part in frame for frame in reports[0].frames for part in LAUNCHERS):
        return "exit", [_quote(reports[0])]
    return None


def _excepted(facts: Facts) -> tuple[str, list[str]] | None:
    own = _own_exception(facts) or next((r for r in facts.recorded if r.cause == "EXCEPTION"), None)
    return ("EXCEPTION", _frames(own)) if own else None


def _said_so(facts: Facts) -> tuple[str, list[str]] | None:
    """No record (not hooked, or another program): the text that it left."""
    found = last_words.text_cause(facts.tail)
    return (found, _quoted_line(facts.tail, found)) if found else None


def _signalled(facts: Facts) -> tuple[str, list[str]] | None:
    if facts.status >= 0:
        return None
    full = facts.free_bytes is not None and facts.free_bytes < _FULL_BYTES
    if facts.status == -signal.SIGBUS and full:
        return "ENOSPC", [f"SIGBUS with {show_bytes(facts.free_bytes)} free: a memory-mapped file on a full volume"]
    return SIGNALS.get(-facts.status, "unknown"), []


def _traceback_in_text(facts: Facts) -> tuple[str, list[str]] | None:
    if "Traceback (most recent call last)" not in facts.tail:
        return None
    last = [line for line in facts.tail.splitlines() if line and not line[0].isspace()]
    return "EXCEPTION", [f"stderr: {last[-1][:300]}"] if last else []


def _exited(facts: Facts) -> tuple[str, list[str]] | None:
    hint = ["exit code 2 is what argparse gives for a wrong option"] if facts.status == _USAGE_CODE else []
    return "exit", hint + [f"stderr: {line[:300]}" for line in facts.tail.strip().splitlines()[-3:]]


SIGNALS: dict[int, str] = {
    signal.SIGKILL: "KILLED",
    signal.SIGTERM: "SIGTERM",
    signal.SIGINT: "INTERRUPT",
    signal.SIGHUP: "SIGHUP",
    signal.SIGSEGV: "CRASHED",
    signal.SIGBUS: "CRASHED",
    signal.SIGABRT: "CRASHED",
    signal.SIGILL: "CRASHED",
    signal.SIGFPE: "CRASHED",
}
"""What a signal means when nothing else is known."""

LEFT_FOR = {"deadline": "deadline", "notice": "notice", "signal": "signal", "memory": "low_memory"}
"""The cause of an end by what the training was asked to leave for."""

LEFT_IN_TIME = frozenset({"deadline", "notice", "signal"})
"""Ends with a seal that are no failure: exit code 0."""

LAUNCHERS = ("torch/distributed/", "accelerate/commands/", "deepspeed/launcher/")
"""Code whose exceptions are about the program that it launched, never a bug of the user's."""

RULES: tuple[Rule, ...] = (
    _left,
    _asked_to_stop,
    _finished,
    _interrupted,
    _recorded,
    _oom_killed,
    _reported_end,
    _excepted,
    _said_so,
    _signalled,
    _traceback_in_text,
    _exited,
)
"""In order of trust."""


def _own_exception(facts: Facts) -> Recorded | None:
    """The first exception of a main thread that speaks for itself."""
    own = (r for r in facts.recorded if r.cause == "EXCEPTION" and not r.thread and not r.reports_anothers_end)
    return next(own, None)


def _quote(recorded: Recorded) -> str:
    where = f" (process {recorded.pid}{f', thread {recorded.thread}' if recorded.thread else ''})"
    text = " ".join(recorded.message.split())
    return f"{recorded.type}: {text[:300]}{where}"


def _frames(recorded: Recorded) -> list[str]:
    return [_quote(recorded), *(f"  {frame}" for frame in recorded.frames[-3:])]


def _quoted_line(text: str, cause: str) -> list[str]:
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        if last_words.text_cause(line) == cause:
            return [f"stderr, line {number - len(lines) - 1} from its end: {line.strip()[:300]}"]
    return []


def _always(facts: Facts, cause: str) -> list[str]:
    if facts.status < 0:
        number = -facts.status
        lines = [f"ended by signal {number} ({_signal_name(number)}), exit code {128 + number}"]
    else:
        lines = [f"exit code {facts.status}"]
    if facts.oom_kills and cause != "OOM_KILL":
        lines.append(f"oom_kill rose by {facts.oom_kills} during the run ({facts.oom_source})")
    if not facts.oom_kills and facts.oom_source and facts.status == -signal.SIGKILL:
        lines.append(f"oom_kill did not rise ({facts.oom_source})")
    if facts.foreseen and cause in ("OOM_KILL", "KILLED", "MEMORY"):
        lines.append(facts.foreseen)
    if facts.max_rss_bytes:
        lines.append(f"its main process held {show_bytes(facts.max_rss_bytes)} at most")
    if facts.full and cause in ("ENOSPC", "EDQUOT"):
        lines.append(facts.full)
    if facts.free_bytes is not None and cause in ("ENOSPC", "EDQUOT"):
        lines.append(f"{show_bytes(facts.free_bytes)} were free at the end on the volumes that outlast watches")
    return lines


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "a signal without a name"
