"""What a save tells the user on stderr, once each where it would repeat itself. Telling never fails."""

from __future__ import annotations

import sys
from contextlib import suppress

from outlast.checkpoints import kinds
from outlast.checkpoints.policy import Policy
from outlast.checkpoints.retention import Keep
from outlast.checkpoints.shelf import Checkpoint
from outlast.checkpoints.stage import Needs
from outlast.checkpoints.vault import Vault
from outlast.host import explain_full, room

_FIRST_SCORE = 3
"""Saves without any metric before it is said: until the first evaluation there is none to name."""


def say(what: str, hint: str) -> None:
    """Two lines on stderr; a closed or full one is no reason to fail."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"outlast: {what}\n  hint: {hint}\n")


class Teller:
    """Remembers what was told.

    Args:
        vault: where the saves go.
        policy: what the user chose.
    """

    def __init__(self, vault: Vault, policy: Policy) -> None:
        self.vault = vault
        self.policy = policy
        self._has_told_of_kind = False
        self._has_told_of_metric = False
        self._without_metrics = 0

    def of_kind(self, sealed: Checkpoint, needs: Needs) -> None:
        """Say once what saves are that are not full, or full where light ones were asked for."""
        why = sealed.seal.notes.get("why_light")
        said = kinds.said_of(sealed.kind or "", sealed.bytes, needs, self.policy, why)
        if said is None or self._has_told_of_kind:
            return
        self._has_told_of_kind = True
        self.vault.journal.write("kind_of_saves", kind=sealed.kind, why=said[0])
        say(*said)

    def of_metric(self, checkpoint: Checkpoint, keep: Keep) -> None:
        """Say once that the rules name a metric that no save has: nothing is deleted by them then."""
        if self._has_told_of_metric or not keep.best or keep.metric in checkpoint.seal.metrics:
            return
        self._without_metrics += not checkpoint.seal.metrics
        if not checkpoint.seal.metrics and self._without_metrics < _FIRST_SCORE:
            return  # saved before the first evaluation
        self._has_told_of_metric = True
        known = ", ".join(sorted(checkpoint.seal.metrics)) or "none"
        why = f"--keep names the metric {keep.metric!r}, which {checkpoint.name} does not have; it has: {known}"
        self.vault.journal.write("metric_not_known", metric=keep.metric, known=sorted(checkpoint.seal.metrics))
        say(why, "until a checkpoint has it, no checkpoint is dropped for it")

    def of_a_full_elsewhere(self, name: str, attempt: int, error: BaseException) -> None:
        """Free space where the save goes does not cure it: a quota, or the writer's own temporary files elsewhere."""
        place = getattr(error, "filename", None) or self.vault.root
        why = f"training waits: {name} could not be saved, {attempt} times now: {error}"
        with suppress(OSError, ValueError, TypeError):
            limit = explain_full(place, getattr(error, "errno", None), room(place, self.vault.budgets))
            say(f"{why}\n  {limit}", "if that volume has room, another is full: TMPDIR, a cache, a log")
