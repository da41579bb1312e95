"""A run looked at before it starts, or from where it is: with Outlast, without, and with deletions that fail. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from outlast.budget import hours
from outlast.budget.course import Course, Saves, Volume
from outlast.budget.disk import least_bytes, simulate
from outlast.checkpoints import Keep, Policy


@dataclass(frozen=True, slots=True)
class Run:
    """A run, as far as its disk and its clock are concerned."""

    saves: Saves
    """What it saves, when, and what is kept."""
    every: int
    """Steps between two saves."""
    last_step: int
    """Its last step."""
    volume: Volume
    """Where the checkpoints go."""
    policy: Policy
    """What Outlast may do."""
    seconds_per_step: float | None = None
    """None when unknown."""
    seconds_per_save: float | None = None
    """None when unknown."""

    @property
    def first_step(self) -> int:
        """The step that it goes on from: that of the newest checkpoint there."""
        return max((one.step for one in self.saves.lying), default=0)


@dataclass(frozen=True, slots=True)
class Outlook:
    """How a run would go."""

    run: Run
    """Which one."""
    plain: Course
    """Without Outlast."""
    guarded: Course
    """Under `outlast run`."""
    needs_bytes: int
    """The volume that it needs without Outlast."""
    least_bytes: int
    """The smallest on which it ends well under Outlast, every save written in full, older checkpoints giving way."""
    light_bytes: int
    """The smallest on which it ends well under Outlast at all: saves may have to be light."""
    undeleted: Course | None
    """Without Outlast, if deletions fail; None where nothing is to be deleted."""
    lost: hours.Lost
    """What a kill costs."""
    seconds: float | None
    """The run's length; None when a step's time is not known."""

    @property
    def exit_code(self) -> int:
        """0: it fits; 1: only under Outlast, which makes room, or not known; 2: not even then."""
        if self.run.volume.total_bytes is None:
            return 1
        return 0 if self.plain.fits else 1 if self.guarded.fits else 2

    @property
    def price_hours(self) -> float | None:
        """The run's length in hours; None when unknown."""
        return None if self.seconds is None else self.seconds / 3600


def look_ahead(run: Run) -> Outlook:
    """Simulate a run without Outlast, with it, and with deletions that fail."""
    volume, saves, last = run.volume, run.saves, run.last_step
    deletes_some = saves.keep != Keep() and saves.habit.deletes in ("after", "before") and saves.deletes
    return Outlook(
        run,
        simulate(volume, saves, last),
        simulate(volume, saves, last, run.policy),
        least_bytes(volume, saves, last),
        least_bytes(volume, saves, last, run.policy),
        least_bytes(volume, saves, last, run.policy, takes_light=True),
        simulate(volume, replace(saves, deletes=False), last) if deletes_some else None,
        hours.lost_if_killed(run.every),
        hours.run_seconds(last - run.first_step, len(saves.steps), run.seconds_per_step, run.seconds_per_save),
    )
