"""How long a run takes, in how many sessions, and what a kill costs. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from outlast.errors import BadInput


@dataclass(frozen=True, slots=True)
class Lost:
    """What is done again after a kill at any moment."""

    mean_steps: float
    """On average."""
    worst_steps: int
    """At most."""


def lost_if_killed(every: int) -> Lost:
    """What a kill at a random step costs when a save is whole every so many steps.

    The kill is as likely at each of the steps between two saves: 0, 1 ... every - 1 steps are lost, and the last one
    before the seal may be lost whole.
    """
    return Lost(every / 2, every)


def run_seconds(steps: int, saves: int, seconds_per_step: float | None, seconds_per_save: float | None) -> float | None:
    """What the steps and the saves take together; None when a step's time is not known. Saves not known count 0."""
    if seconds_per_step is None:
        return None
    return steps * seconds_per_step + saves * (seconds_per_save or 0.0)


def sessions(total_seconds: float, session_seconds: float, lost_seconds: float = 0.0) -> int:
    """How many sessions a run takes.

    Args:
        total_seconds: the run without a break.
        session_seconds: how long one session may last.
        lost_seconds: of each session but the last: starting, the last save, work done again.

    Raises:
        BadInput: when nothing of a session is left for training.
    """
    if total_seconds <= session_seconds:
        return 1
    useful = session_seconds - lost_seconds
    if useful <= 0:
        raise BadInput(
            f"a session of {session_seconds:.0f} s loses {lost_seconds:.0f} s: it gets nowhere",
            hint="save more often, so that less is done again",
        )
    return 1 + math.ceil((total_seconds - session_seconds) / useful)
