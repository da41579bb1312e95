"""What was asked of `outlast run`, and the environment that hands it to the command. Pure."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import outlast
from outlast import journal
from outlast.budget.clock import Deadline
from outlast.errors import BadInput
from outlast.host import BUDGETS_VARIABLE, Budget
from outlast.integrations.datasets import wanted
from outlast.journal import Event

PACKAGE = Path(outlast.__file__).parent
"""The outlast package: what a foreign interpreter loads ``outlast`` from."""
INJECT = PACKAGE / "launch" / "inject"
"""Folder that goes first on PYTHONPATH."""
RESUMES = ("auto", "always", "never")
"""Values of ``--resume``."""
RUNGS = range(1, 10)
"""Numbers of the ladder's rungs."""


@dataclass(frozen=True, slots=True)
class Order:
    """A guarded run as the user asked for it.

    Raises:
        BadInput: for an empty command or a value of the wrong form.
    """

    command: tuple[str, ...]
    """The command and its arguments; no shell."""
    home: Path
    """Folder whose ``.outlast`` holds the journal; absolute."""
    budgets: tuple[Budget, ...] = ()
    """Declared limits."""
    keep: str = ""
    """Retention rules as text; empty leaves it to the script."""
    keep_exact: bool = False
    """An exact way back always, even if new saves have to be light."""
    forbid: frozenset[int] = field(default_factory=frozenset)
    """Rungs of the ladder that may not be taken."""
    reclaim: str = ""
    """What rung 3 may take from caches; empty for what no tool can use any more."""
    resume: str = "auto"
    """``auto``, ``always`` or ``never``."""
    restarts: int = 3
    """Restarts at most."""
    deadline: Deadline | None = None
    """When this session ends."""
    save: str = "full"
    """``full`` or ``light``: how much a save keeps."""
    subsets: tuple[wanted.Subset, ...] = ()
    """Data sets of which the command gets the first rows only."""

    def __post_init__(self) -> None:
        if not self.command:
            raise BadInput("no command to run", hint="outlast run [OPTIONS] -- python train.py ...")
        if self.resume not in RESUMES:
            raise BadInput(f"--resume is {self.resume!r}", hint=f"expected one of {', '.join(RESUMES)}")
        if self.restarts < 0:
            raise BadInput(f"--restarts is {self.restarts}", hint="0 or more")
        strange = sorted(self.forbid - set(RUNGS))
        if strange:
            raise BadInput(f"there is no rung {strange[0]}", hint="the rungs are 1 to 9, in docs/ladder.md")
        if self.keep:
            # Only now: the room below brings numpy, which a run without --keep need not wait for.
            from outlast.checkpoints import Keep

            Keep.parse(self.keep)
        if self.save != "full":
            from outlast.checkpoints import Policy

            Policy(keep_exact=self.keep_exact, save=self.save)
        if self.reclaim:
            from outlast.caches import allowed

            allowed(self.reclaim)


def environment(order: Order, run: str, attempt: int, resume: bool, base: Mapping[str, str]) -> dict[str, str]:
    """The command's environment.

    Args:
        order: what was asked.
        run: the run's name.
        attempt: 1 for the first start.
        resume: whether the script should go on from its newest checkpoint by itself.
        base: our own environment.

    Raises:
        BadInput: when a variable that a script would read holds no number of rows.
    """
    wanted.from_owt_variable("openwebtext", base)
    ours = {
        journal.RUN_VARIABLE: run,
        journal.HOME_VARIABLE: str(order.home),
        "OUTLAST_ATTEMPT": str(attempt),
        "OUTLAST_PACKAGE": str(PACKAGE),
        "PYTHONPATH": first_on_path(str(INJECT), base.get("PYTHONPATH")),
        BUDGETS_VARIABLE: _budgets(order.budgets, base.get(BUDGETS_VARIABLE)),
        "OUTLAST_KEEP": order.keep,
        "OUTLAST_KEEP_EXACT": "1" if order.keep_exact else "",
        "OUTLAST_FORBID": ",".join(map(str, sorted(order.forbid))),
        "OUTLAST_RECLAIM": order.reclaim,
        "OUTLAST_SAVE": "" if order.save == "full" else order.save,
        "OUTLAST_RESUME": "1" if resume else "",
        wanted.VARIABLE: wanted.joined(order.subsets, base.get(wanted.VARIABLE)),
    }
    kept = {name: value for name, value in base.items() if name not in ours}
    return kept | {name: value for name, value in ours.items() if value}


def first_on_path(folder: str, path: str | None) -> str:
    """A search path with a folder in front, once."""
    rest = [part for part in (path or "").split(os.pathsep) if part and part != folder]
    return os.pathsep.join([folder, *rest])


def _budgets(budgets: Sequence[Budget], inherited: str | None) -> str:
    own = [f"{budget.root}={budget.limit_bytes}" for budget in budgets]
    return os.pathsep.join([*own, *filter(None, (inherited or "").split(os.pathsep))])


def did_not_finish(events: Sequence[Event], command: Sequence[str]) -> bool | None:
    """Whether a journaled run of this command is left to be resumed.

    Returns:
        False when it finished, True when it was cut short after a seal; None when it says nothing: another command, or
        it ended before it had sealed or resumed anything, so that the run before it counts.
    """
    started = [event for event in events if event.name == "started"]
    if not started or list(started[-1].get("command") or ()) != list(command):
        return None
    ended = [event for event in events if event.name == "ended" and event.time >= started[-1].time]
    if ended and ended[-1].get("cause") == "finished":
        return False
    return True if any(event.name in ("sealed", "resumed") for event in events) else None
