"""Which checkpoints to keep, and why. Pure: knows no paths, no clock, no disk."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from outlast.errors import BadInput


@dataclass(frozen=True, slots=True)
class Keep:
    """What the user wants kept. Each rule adds; none takes away what another keeps.

    Raises:
        BadInput: for a rule that could keep nothing or cannot be followed.
    """

    last: int | None = None
    """Newest this many; None with no other rule keeps all."""
    best: int = 0
    """Best this many by the metric."""
    metric: str | None = None
    """Name of the metric for ``best``."""
    mode: str = "min"
    """``min`` when a lower metric is better, ``max`` when a higher one is."""
    every: int | None = None
    """Every checkpoint whose step is a multiple of this many steps."""

    def __post_init__(self) -> None:
        hint = "for example Keep(last=2, best=1, metric='val_loss', mode='min', every=1000)"
        if self.last is not None and self.last < 1:
            raise BadInput(f"last is {self.last}; it must be at least 1: there is always a way back", hint=hint)
        if self.best < 0 or (self.best and not self.metric):
            raise BadInput(f"best is {self.best} with metric {self.metric!r}; best needs a metric", hint=hint)
        if self.mode not in ("min", "max"):
            raise BadInput(f"mode is {self.mode!r}; expected 'min' or 'max'", hint=hint)
        if self.every is not None and self.every < 1:
            raise BadInput(f"every is {self.every}; it must be at least 1 step", hint=hint)

    @classmethod
    def parse(cls, text: str) -> Keep:
        """A rule set from ``last=2,best=1,metric=val_loss,mode=min,every=1000``.

        Raises:
            BadInput: for an unknown name or a value of the wrong form.
        """
        hint = "--keep last=2,best=1,metric=val_loss,mode=min,every=1000 (any of these, in any order)"
        values: dict[str, str] = {}
        for part in filter(None, text.split(",")):
            name, _, value = part.partition("=")
            if name.strip() not in cls.__slots__ or not value:
                raise BadInput(f"cannot read {part!r} in --keep", hint=hint)
            values[name.strip()] = value.strip()
        try:
            return cls(
                last=int(values["last"]) if "last" in values else None,
                best=int(values.get("best", "0")),
                metric=values.get("metric"),
                mode=values.get("mode", "min"),
                every=int(values["every"]) if "every" in values else None,
            )
        except ValueError as error:
            if isinstance(error, BadInput):
                raise
            raise BadInput(f"expected whole numbers in --keep {text!r}", hint=hint) from None

    def __str__(self) -> str:
        """The form that `parse` reads; empty when all is kept."""
        pairs = {name: getattr(self, name) for name in ("last", "best", "metric", "every")}
        text = [f"{name}={value}" for name, value in pairs.items() if value]
        return ",".join(text + ([f"mode={self.mode}"] if self.best else []))


@dataclass(frozen=True, slots=True)
class Candidate:
    """What retention needs to know of a checkpoint."""

    name: str
    """Unique in its folder."""
    step: int
    """Optimizer steps; compared as a number."""
    age: tuple[float, int]
    """Order of making: newest training first, then step; larger is newer."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Metrics of its seal."""
    holds: tuple[str, ...] = ()
    """Reasons of others why it must stay, e.g. ``pinned``."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one checkpoint."""

    name: str
    """The checkpoint's name."""
    keep: bool
    """True when it stays."""
    reasons: tuple[str, ...]
    """Why, a phrase each; never empty."""


def decide(candidates: Sequence[Candidate], keep: Keep) -> list[Verdict]:
    """A verdict for each checkpoint, in the order given. The newest is always kept."""
    newest_first = sorted(candidates, key=lambda c: (c.age, c.name), reverse=True)
    reasons: dict[str, list[str]] = {candidate.name: list(candidate.holds) for candidate in candidates}
    if newest_first:
        reasons[newest_first[0].name].append("newest")
    keeps_all = keep.last is None and not keep.best and not keep.every
    for candidate in newest_first if keeps_all else newest_first[: keep.last or 0]:
        reasons[candidate.name].append(f"among the last {keep.last}" if keep.last else "all are kept")
    best_first = _best_first(newest_first, keep)
    if not knows_metric(candidates, keep):
        # A misspelt metric, or one that no save has had yet: a rule that cannot be judged deletes nothing.
        for candidate in candidates:
            reasons[candidate.name].append(f"the best is not known: no checkpoint here has the metric {keep.metric!r}")
    for rank, candidate in enumerate(best_first[: keep.best], 1):
        value = candidate.metrics[keep.metric or ""]
        reasons[candidate.name].append(f"best {rank} by {keep.metric} ({value:.6g}, {keep.mode})")
    if keep.every:
        for candidate in candidates:
            if candidate.step % keep.every == 0:
                reasons[candidate.name].append(f"every {keep.every} steps")
    return [
        Verdict(c.name, bool(reasons[c.name]), tuple(reasons[c.name]) or (f"not wanted by {keep}",)) for c in candidates
    ]


def knows_metric(candidates: Sequence[Candidate], keep: Keep) -> bool:
    """False when the rules name a metric that not one of the checkpoints has."""
    return not keep.best or not candidates or any(keep.metric in candidate.metrics for candidate in candidates)


def _best_first(newest_first: Sequence[Candidate], keep: Keep) -> list[Candidate]:
    """Candidates with a real value of the metric, best first; of equals the newer one. NaN is never best."""
    sign = 1 if keep.mode == "min" else -1
    known = [c for c in newest_first if not math.isnan(c.metrics.get(keep.metric or "", math.nan))]
    return sorted(known, key=lambda c: sign * c.metrics[keep.metric or ""])
