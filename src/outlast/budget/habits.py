"""How the frameworks save and delete: data. A new one is a row."""

from __future__ import annotations

from dataclasses import dataclass

from outlast.errors import BadInput


@dataclass(frozen=True, slots=True)
class Habit:
    """One way of saving."""

    name: str
    """As in ``--framework``."""
    deletes: str
    """``after`` the new one is written, ``before`` it is, ``in place`` (one path: the old bytes go at the open), or
    ``never``."""
    gives_way: bool
    """Whether Outlast makes room among its checkpoints; files of the user's own are never touched."""
    has_light: bool
    """Whether they have a light form: one file has none."""
    source: str
    """Who says so."""


HABITS: tuple[Habit, ...] = (
    Habit("transformers", "after", True, True, "transformers 5.23 trainer.py: rotate_checkpoints after the save"),
    Habit("accelerate", "before", True, True, "accelerate 1.15 accelerator.py: total_limit is applied before the save"),
    Habit("lightning", "after", True, False, "lightning 2.6 model_checkpoint.py: the kth best goes after the save"),
    Habit("torch.save", "in place", False, False, "torch.save of one path opens it for writing, which empties it"),
    Habit("torch.save-each", "never", False, False, "a new path for each save, which nobody deletes"),
    Habit("dcp", "never", True, False, "torch.distributed.checkpoint: a folder for each save, which nobody deletes"),
    Habit("outlast", "after", True, True, "outlast.Run: retention after the seal"),
)
"""The table."""


def habit_named(name: str) -> Habit:
    """The row of a framework.

    Raises:
        BadInput: when there is none of that name.
    """
    for habit in HABITS:
        if habit.name == name:
            return habit
    raise BadInput(f"no framework called {name!r}", hint="known: " + ", ".join(habit.name for habit in HABITS))
