"""What the user allows when room is short. Plain data, as `outlast run` passes it on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from outlast.checkpoints.retention import Keep
from outlast.errors import BadInput


@dataclass(frozen=True, slots=True)
class Policy:
    """What the user allows when room is short."""

    keep: Keep | None = None
    """Retention; None leaves it to the framework's own setting."""
    keep_exact: bool = False
    """Always hold a full checkpoint, even if new saves have to be light."""
    forbid: frozenset[int] = frozenset()
    """Rungs of the ladder that must not be used."""
    reclaim: frozenset[str] = frozenset()
    """What rung 3 may take from caches (see `caches.allowed`); empty for what no tool can use any more."""

    def __post_init__(self) -> None:
        # Rungs that are not built yet may be forbidden too: `outlast run --forbid 3` holds when they are.
        if unknown := self.forbid - set(range(1, 10)):
            raise BadInput(f"no rung {sorted(unknown)}", hint="the ladder's rungs are 1 to 9")

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
        )

    def with_choice(self, keep: Keep | None, *, keep_exact: bool) -> Policy:
        """This policy with what a script asks for itself: its own rules stand above, exactness is never taken back."""
        return replace(self, keep=keep or self.keep, keep_exact=keep_exact or self.keep_exact)
