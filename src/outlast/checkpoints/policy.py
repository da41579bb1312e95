"""What the user allows when room is short. Plain data, as `outlast run` passes it on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from outlast.checkpoints.retention import Keep
from outlast.errors import BadInput

SAVES = ("full", "light")
"""What a save can be by choice."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the user allows when room is short, and how much a save is to keep.

    Raises:
        BadInput: for a rung or a kind of save that there is not, or for an exact way back of light saves.
    """

    keep: Keep | None = None
    """Retention; None leaves it to the framework's own setting."""
    keep_exact: bool = False
    """Always hold a full checkpoint, even if new saves have to be light."""
    forbid: frozenset[int] = frozenset()
    """Rungs of the ladder that must not be used."""
    reclaim: frozenset[str] = frozenset()
    """What rung 3 may take from caches (see `caches.allowed`); empty for what no tool can use any more."""
    save: str = "full"
    """``full``, or ``light`` where what is saved has a light form."""

    def __post_init__(self) -> None:
        # Rungs that are not built yet may be forbidden too: `outlast run --forbid 3` holds when they are.
        if unknown := self.forbid - set(range(1, 10)):
            raise BadInput(f"no rung {sorted(unknown)}", hint="the ladder's rungs are 1 to 9")
        if self.save not in SAVES:
            raise BadInput(f"save is {self.save!r}", hint=f"one of {', '.join(SAVES)}")
        if self.keep_exact and self.save == "light":
            raise BadInput(
                "an exact way back (keep_exact, --keep-exact) and light saves (save='light', --save light) contradict",
                hint="choose one: a light checkpoint is never exact",
            )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Policy:
        """The policy that `outlast run` passed on."""
        values = os.environ if environment is None else environment
        forbid = values.get("OUTLAST_FORBID", "")
        return cls(
            Keep.parse(values["OUTLAST_KEEP"]) if values.get("OUTLAST_KEEP") else None,
            values.get("OUTLAST_KEEP_EXACT") == "1",
            frozenset(int(number) for number in forbid.split(",") if number),
            frozenset(filter(None, values.get("OUTLAST_RECLAIM", "").split(","))),
            values.get("OUTLAST_SAVE") or "full",
        )

    def with_choice(self, keep: Keep | None, *, keep_exact: bool, save: str | None = None) -> Policy:
        """This policy with what a script asks for itself: its own rules stand above, exactness is never taken back."""
        return replace(self, keep=keep or self.keep, keep_exact=keep_exact or self.keep_exact, save=save or self.save)
