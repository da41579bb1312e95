"""What a simulation of disk over time is about: volumes, what lies on them, saves, and how it went. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from outlast.budget.habits import Habit
from outlast.budget.sizes import SaveBytes, with_logs
from outlast.checkpoints import Keep, Move


@dataclass(frozen=True, slots=True)
class Thing:
    """What lies on a volume and is no checkpoint: a data set, a cache, a download, a log."""

    name: str
    """For people."""
    bytes: int
    """What it takes from its first step on."""
    from_step: int = 0
    """When it comes; 0: before the run."""
    bytes_per_step: float = 0.0
    """What it grows by with each step after that."""

    def at(self, step: int) -> int:
        """Bytes at a step."""
        if step < self.from_step:
            return 0
        return self.bytes + int(self.bytes_per_step * (step - self.from_step))


@dataclass(frozen=True, slots=True)
class Volume:
    """One volume."""

    name: str
    """Its path, or what the user calls it."""
    total_bytes: int | None
    """What can lie there in all; None when that is not known."""
    things: tuple[Thing, ...] = ()
    """What lies there beside this run's checkpoints."""
    has_journal: bool = False
    """Whether the guarded run's journal is there too: it has a reserved file of its own."""

    def taken(self, step: int) -> int:
        """Bytes beside the checkpoints at a step."""
        return sum(thing.at(step) for thing in self.things)


@dataclass(frozen=True, slots=True)
class Lying:
    """A checkpoint of this run, there or in the simulation."""

    name: str
    """Unique."""
    step: int
    """Optimizer steps."""
    bytes: int
    """What it takes."""
    kind: str = "full"
    """``full``, ``light`` or ``weights``."""
    light_bytes: int | None = None
    """What it would take made light; None when it cannot be, or is already."""
    is_best: bool = False
    """The best model, which is loaded at the end: it stays."""


@dataclass(frozen=True, slots=True)
class Saves:
    """What is saved, when, and what is kept."""

    steps: tuple[int, ...]
    """At which steps, ascending."""
    size: SaveBytes
    """What one takes."""
    habit: Habit
    """The framework's way."""
    keep: Keep = field(default_factory=Keep)
    """What its own retention keeps; the best by a metric is told by ``best_is_old``."""
    only_model: bool = False
    """Without the optimizer's state."""
    best_is_old: bool = False
    """The first one saved is the best model and stays: the worst case for a volume."""
    copies_last: bool = False
    """Each save is written a second time as ``last`` (Lightning's save_last)."""
    deletes: bool = True
    """False: deletions fail, silently or not (files in use, rights, a share)."""
    logs_per_step: float = 0.0
    """Entries that the log in each checkpoint gets with each step."""
    lying: tuple[Lying, ...] = ()
    """Checkpoints that are there before the first step, oldest first."""

    def size_at(self, step: int) -> SaveBytes:
        """What a save takes at a step, with its log."""
        return with_logs(self.size, int(step * self.logs_per_step))

    def bytes_at(self, step: int, *, guarded: bool, light: bool = False) -> dict[str, int]:
        """Bytes of a save at a step, for each kind that it may have, richest first.

        Args:
            step: optimizer steps.
            guarded: under Outlast.
            light: by choice (``--save light``), where there is a light form.
        """
        size = self.size_at(step)
        if guarded and self.habit.has_light:
            return size.kinds(is_light=self.only_model or light)
        return {"weights" if self.only_model else "full": size.plain(only_model=self.only_model)}


@dataclass(frozen=True, slots=True)
class Point:
    """The volume at one moment."""

    step: int
    """Optimizer steps."""
    bytes: int
    """What lies there."""


@dataclass(frozen=True, slots=True)
class Deed:
    """Something that Outlast did to make room."""

    step: int
    """For the save of this step."""
    move: Move
    """What."""


@dataclass(frozen=True, slots=True)
class Course:
    """How a run goes on one volume."""

    points: tuple[Point, ...]
    """Before, during and after each save."""
    peak_bytes: int
    """Most that lay there at once."""
    peak_step: int
    """At which step, for the first time."""
    made_of: Mapping[str, int]
    """What the peak was made of, bytes."""
    full_at: int | None
    """Step of the save that does not fit: there the run dies, under Outlast it waits. None: it ends well."""
    short_bytes: int
    """What is missing for that save; 0 when nothing is."""
    deeds: tuple[Deed, ...]
    """What Outlast did, in order; empty without it."""
    kinds: Mapping[str, int]
    """How many saves there were of each kind."""
    left: tuple[Lying, ...]
    """Checkpoints that are there at the end."""

    @property
    def fits(self) -> bool:
        """True when every save found room."""
        return self.full_at is None
