"""Hours: when a session ends, when a training has to stop for it, and how many sessions the rest takes. Pure.

A training leaves at the end of the step after which another step, a save and the end of the process would no longer
fit. Steps and saves are taken as they were measured, the worst of the last few; what was never measured is guessed
from its size, and the guess is on the slow side.
"""

from __future__ import annotations

import math
import re
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from outlast.errors import BadInput
from outlast.host import Session, show_seconds

EXIT_SECONDS = 5.0
"""What a process with torch takes to end once it was told to (0.5 to 2 s measured here), with room to spare."""
SLOW_BYTES_PER_SECOND = 100e6
"""Speed of a save that was not measured yet: a network volume's (docs/platforms.md), not a local disk's."""
SAVE_MARGIN = 1.5
"""A save beside others on a shared volume takes longer than the last one did."""
_KEPT = 8
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "min": 60.0, "s": 1.0}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(min|[dhms])", re.ASCII)
_TIME_OF_DAY = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
_HINT = "--deadline 9h, 90m, 1h30m, a time of day such as 23:30, or auto"


@dataclass(frozen=True, slots=True)
class Deadline:
    """When the session ends."""

    by: float
    """Seconds since the epoch."""
    why: str
    """Where that is from, for the user: ``9h from the start``, ``SLURM_JOB_END_TIME``."""


def parse(text: str, now: float, session: Session | None = None) -> Deadline:
    """A deadline from ``9h``, ``1h30m``, ``23:30`` or ``auto``.

    Args:
        text: what the user typed.
        now: seconds since the epoch; spans count from here, a time of day is the next one of local time.
        session: for ``auto``.

    Raises:
        BadInput: when it cannot be read, or ``auto`` is not known here.
    """
    plain = text.strip().lower()
    if plain == "auto":
        return _automatic(session)
    if match := _TIME_OF_DAY.fullmatch(plain):
        here = datetime.fromtimestamp(now)
        then = here.replace(hour=int(match[1]), minute=int(match[2]), second=0, microsecond=0)
        if then <= here:
            then += timedelta(days=1)
        return Deadline(then.timestamp(), f"the deadline of {text.strip()}")
    parts = _SPAN.findall(plain)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if not parts or _SPAN.sub("", plain).strip() or not 0 < seconds < 400 * 86400:
        raise BadInput(f"cannot read the deadline {text!r}", hint=_HINT)
    return Deadline(now + seconds, f"the deadline of {text.strip()}")


def _automatic(session: Session | None) -> Deadline:
    if session is None:
        raise BadInput("a deadline of auto needs to know the session", hint=_HINT)
    end = session.variables.get("SLURM_JOB_END_TIME", "")
    if re.fullmatch(r"[1-9]\d{9}", end, re.ASCII):  # a time between 2001 and 2286
        return Deadline(float(end), "the end of the Slurm job (SLURM_JOB_END_TIME)")
    limit, title = session.platform.session_seconds, session.platform.title
    if limit is None:
        raise BadInput(f"how long a session lasts on {title} is not known to Outlast", hint=_HINT)
    if session.began is None:
        raise BadInput(f"when this session of {title} began cannot be told", hint=_HINT)
    why = f"the end of the session: {title}, {show_seconds(limit.value)} at most ({limit.source})"
    return Deadline(session.began + limit.value, why)


@dataclass(slots=True)
class Pace:
    """What steps and saves took, measured as the training goes."""

    steps: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    """The last few: seconds from the end of one step to the end of the next, without saves."""
    saves: deque[float] = field(default_factory=lambda: deque(maxlen=_KEPT))
    """The last few, seconds."""
    guessed_save_seconds: float = 0.0
    """Where no save was measured yet."""
    _sum: float = 0.0
    _count: int = 0

    def step(self, seconds: float) -> None:
        """A step is done. The first one pays for what is made once (kernels, workers), so it is no measure."""
        self._count += 1
        if self._count > 1:
            self.steps.append(seconds)
            self._sum += seconds

    def save(self, seconds: float) -> None:
        """A save is done."""
        self.saves.append(seconds)

    @property
    def mean_step_seconds(self) -> float | None:
        """Mean of all steps but the first, evaluations between them included; None before the second."""
        return self._sum / (self._count - 1) if self._count > 1 else None

    @property
    def needed_seconds(self) -> float:
        """What one more step, a save and the end of the process take at worst."""
        save = max(self.saves, default=self.guessed_save_seconds)
        return max(self.steps, default=0.0) + SAVE_MARGIN * save + EXIT_SECONDS


def guess_save_seconds(size: int) -> float:
    """Seconds for a first save of so many bytes, on the slow side."""
    return 1.0 + size / SLOW_BYTES_PER_SECOND


def is_due(by: float, now: float, needed_seconds: float) -> bool:
    """Whether to leave now rather than after another step, which with all that follows needs so long."""
    return now + needed_seconds >= by


@dataclass(frozen=True, slots=True)
class Eta:
    """How long the rest takes."""

    left_steps: int
    """Optimizer steps to go."""
    seconds: float
    """For them, at the mean pace so far, saves not counted."""
    session_seconds: float | None
    """What is left of this session; None without a deadline."""
    sessions: int | None
    """Sessions that the rest takes, this one included, each as long as this one in all; None when not known."""


def eta(left_steps: int, step_seconds: float, *, now: float, by: float | None, session_seconds: float | None) -> Eta:
    """How long the rest takes.

    Args:
        left_steps: optimizer steps to go.
        step_seconds: mean seconds of a step.
        now: seconds since the epoch.
        by: when this session ends; None for no deadline.
        session_seconds: how long a whole session is; None when not known.
    """
    seconds = left_steps * step_seconds
    if by is None:
        return Eta(left_steps, seconds, None, None)
    here = max(0.0, by - now)
    if seconds <= here:
        return Eta(left_steps, seconds, here, 1)
    more = math.ceil((seconds - here) / session_seconds) if session_seconds and session_seconds > 0 else None
    return Eta(left_steps, seconds, here, None if more is None else 1 + more)


def sentence(what: Eta) -> str:
    """``28,000 steps need 11.2 h; this session ends in 9.0 h: 2 sessions``."""
    text = f"{what.left_steps:,} steps need {show_seconds(what.seconds)}"
    if what.session_seconds is None:
        return text
    text += f"; this session ends in {show_seconds(what.session_seconds)}"
    if what.sessions == 1:
        return f"{text}: they fit"
    return f"{text}: {what.sessions} sessions" if what.sessions else f"{text}: they do not fit"
