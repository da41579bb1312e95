"""Which kinds a save may be by the user's choice, why it is of a poorer one, and what is said of it. Pure."""

from __future__ import annotations

from dataclasses import replace

from outlast.checkpoints.policy import Policy
from outlast.checkpoints.seal import KINDS
from outlast.checkpoints.stage import Needs
from outlast.host import show_bytes

NO_ROOM = "a full save did not fit"
"""Why a save is light that was to be full."""
CHOICE = "save=light"
"""Why a save is light that could be full."""


def as_asked(needs: Needs, save: str) -> Needs:
    """What a save needs, without the kinds that are richer than the user wants; all where there is no such form."""
    if save == "full" or save not in needs.files:
        return needs
    poorer = KINDS[KINDS.index(save) :]
    return replace(needs, files={kind: sizes for kind, sizes in needs.files.items() if kind in poorer})


def why_poorer(kind: str, needs: Needs, save: str) -> str | None:
    """Why a save is not of the richest kind that there is; None when it is."""
    if kind == next(iter(needs.files)):
        return None
    return NO_ROOM if save == "full" else CHOICE


def said_of(kind: str, taken_bytes: int, needs: Needs, policy: Policy, why: str | None) -> tuple[str, str] | None:
    """What the user should know of the first save of a run, and a hint; None when it is what one expects.

    Args:
        kind: of the save.
        taken_bytes: what it takes.
        needs: what each kind that it could have had would have taken.
        policy: what the user asked for.
        why: why it is not full, as its seal says; None when it is.
    """
    if kind == "weights":
        return (
            f"checkpoints are bare weights{_because(why)}: training cannot go on from them as it was",
            "save the training state too; docs/checkpoints.md says what has a light form",
        )
    if kind == "full" and policy.save == "light":
        return (
            "light checkpoints were asked for, and what is saved here has no light form: they stay full",
            "docs/checkpoints.md says what has one",
        )
    if kind != "light" or why in (None, NO_ROOM):
        return None
    instead = f" instead of {show_bytes(needs.total('full'))}" if "full" in needs.files else ""
    exact = "; there is no exact way back, as --keep-exact asks" if policy.keep_exact else ""
    return (
        f"checkpoints are light{_because(why)}: {show_bytes(taken_bytes)}{instead}{exact}",
        "a resumed run goes on at its step and learning rate, and strays a little: docs/checkpoints.md",
    )


def _because(why: str | None) -> str:
    return f" ({why})" if why else ""
