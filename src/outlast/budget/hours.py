"""How long a run takes, in how many sessions, and what a kill costs. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from outlast.budget import clock


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


def sessions(steps: int, seconds: float, session_seconds: float, save_seconds: float) -> int | None:
    """How many sessions a run takes when each ends with a seal in time (``outlast run --deadline``).

    Args:
        steps: of the run.
        seconds: for all of them, saves included.
        session_seconds: how long a session lasts.
        save_seconds: for the last save of each.

    Returns:
        None when nothing of a session is left for training.
    """
    useful = session_seconds - clock.SAVE_MARGIN * save_seconds - clock.EXIT_SECONDS
    if seconds <= session_seconds:
        return 1
    return (
        clock.eta(steps, seconds / steps, now=0.0, by=useful, session_seconds=useful).sessions if useful > 0 else None
    )
