"""Whether to start a command again. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from outlast.launch.causes import CAUSES


@dataclass(frozen=True, slots=True)
class Attempt:
    """One start of the command, ended."""

    cause: str
    """A name of `CAUSES`."""
    sealed_step: int | None
    """Newest step that was sealed or resumed from, in any attempt up to this one; None when there is none."""
    has_new_seal: bool
    """True when this attempt sealed a step."""
    is_hooked: bool
    """True when a Python process of it shook hands."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Start again, or not."""

    restart: bool
    """True to start again, with resume."""
    why: str
    """A phrase for the user and the journal."""


def decide(attempts: Sequence[Attempt], restarts: int) -> Decision:
    """Whether a restart helps after the last of these attempts.

    Args:
        attempts: all attempts so far, oldest first.
        restarts: restarts that the user allows.
    """
    last = attempts[-1]
    policy = CAUSES[last.cause].restart
    same = [a for a in attempts[:-1] if (a.cause, a.sealed_step) == (last.cause, last.sealed_step)]
    counted = [a for a in attempts if CAUSES[a.cause].is_counted]
    are_used_up = CAUSES[last.cause].is_counted and len(counted) > restarts
    refusals = (
        (last.cause == "finished", "it finished"),
        (policy == "asked", "it was asked to stop, and did"),
        (policy == "never", "a restart does not cure this"),
        (not last.is_hooked, "nothing is hooked in it, so it could not resume by itself"),
        (last.sealed_step is None, "no checkpoint is sealed yet: a restart would begin from nothing"),
        (bool(same), f"it ended the same way at step {last.sealed_step} before: no progress"),
        (policy == "progress" and not last.has_new_seal, "this attempt sealed no step: it would end the same way"),
        (not restarts or are_used_up, f"{restarts} restarts are allowed"),
    )
    for applies, why in refusals:
        if applies:
            return Decision(False, why)
    return Decision(True, f"from the seal of step {last.sealed_step}")
