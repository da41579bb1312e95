"""The fastest way to train a batch that fits a GPU. Pure: what a way needs is a function that is passed in.

What changes training the least is given up first:

1. micro-batch x accumulation, and recomputation: the same gradient. The fastest that fits is taken;
2. the optimizer: 8-bit moments, then Adafactor's factored ones: another, if close, course of training;
3. the sequence length, only where that is allowed: other data.

Precision is as asked. A micro-batch that does not divide the batch is never taken: the effective batch is exact.

Few predictions are made. In one way of training, a larger micro-batch needs more memory and takes less time a sample,
so the largest that fits is found by bisection over the divisors, and is the fastest of its kind. One exception is kept
apart: the whole batch at once needs no gradients beside its activations, so it may fit where half of it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from outlast.budget.memory import Prediction
from outlast.errors import BadInput


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to train the batch."""

    micro_batch: int
    """Samples at once on one device."""
    accumulation: int
    """Micro-batches before the optimizer moves."""
    world: int
    """Devices."""
    precision: str
    """``fp32``, ``fp16`` or ``bf16``."""
    checkpointing: bool
    """Activations are computed again in the backward rather than kept."""
    optimizer: str
    """``adamw``, ``adamw-8bit`` or ``adafactor``."""
    length: int | None
    """Tokens of a sequence; None where samples have no length."""

    @property
    def effective_batch(self) -> int:
        """Samples that one move of the optimizer is made from."""
        return self.micro_batch * self.accumulation * self.world


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a candidate needs."""

    needed_bytes: int
    """Of one device's memory, the CUDA context included."""
    batch_seconds: float | None = None
    """Forward and backward of one micro-batch, by a roofline: ranks candidates, and is no ETA; None when not known."""
    optimizer_seconds: float | None = None
    """One move of the optimizer, likewise."""
    prediction: Prediction | None = None
    """What it is made of; None when that is not known."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be trained, and on what."""

    global_batch: int
    """Samples of one move of the optimizer, over all devices."""
    capacity_bytes: int
    """Memory of one device."""
    margin_bytes: int
    """To be left free."""
    precision: str
    """As in `Candidate`; it is not changed."""
    world: int = 1
    """Devices that share the batch evenly."""
    length: int | None = None
    """Tokens of a sequence."""
    shorter: tuple[int, ...] = ()
    """Lengths that may be taken instead, in any order; empty: the length is kept."""
    optimizers: tuple[str, ...] = ("adamw", "adamw-8bit", "adafactor")
    """Allowed, the first before the others."""
    checkpointing: tuple[bool, ...] = (False, True)
    """Allowed."""
    at_most: int | None = None
    """Largest micro-batch allowed; None for any."""

    @property
    def allowed_bytes(self) -> int:
        """What a candidate may need."""
        return self.capacity_bytes - self.margin_bytes

    @property
    def on_one_device(self) -> int:
        """Samples of one move on each device."""
        return self.global_batch // self.world


@dataclass(frozen=True, slots=True)
class Tried:
    """A candidate that was looked at."""

    candidate: Candidate
    """What."""
    estimate: Estimate
    """What it needs."""
    fits: bool
    """It needs no more than is allowed."""

    @property
    def seconds(self) -> float | None:
        """Of one move of the optimizer by the roofline: for ranking only; None when not known."""
        found = self.estimate
        if found.batch_seconds is None or found.optimizer_seconds is None:
            return None
        return self.candidate.accumulation * found.batch_seconds + found.optimizer_seconds


@dataclass(frozen=True, slots=True)
class Fit:
    """The outcome of a search."""

    wanted: Wanted
    """What was asked for."""
    chosen: Tried | None
    """The fastest that fits and changes training the least; None when nothing does."""
    tried: tuple[Tried, ...]
    """Everything that was looked at, in that order."""


def choose(wanted: Wanted, estimate: Callable[[Candidate], Estimate]) -> Fit:
    """The fastest candidate that fits, among those that change training the least.

    Args:
        wanted: the batch, the device and what may be changed.
        estimate: what a candidate needs; called once for each. For accumulation of two and more it must not fall
            while the micro-batch grows.

    Raises:
        BadInput: for a batch that the devices cannot share evenly, or that is none.
    """
    _check(wanted)
    asked = _Asked(wanted, estimate)
    chosen = _first(asked, wanted.length)
    if chosen is None and wanted.shorter:
        length = _longest(asked, sorted(set(wanted.shorter)))
        chosen = _first(asked, length) if length is not None else None
    return Fit(wanted, chosen, asked.all())


def beside(fit: Fit, estimate: Callable[[Candidate], Estimate]) -> Fit:
    """The same with the chosen one's neighbours looked at too: what a user would ask about."""
    if fit.chosen is None:
        return fit
    asked = _Asked(fit.wanted, estimate, fit.tried)
    for candidate in _neighbours(fit.wanted, fit.chosen.candidate):
        asked(candidate)
    return replace(fit, tried=asked.all())


def divisors(number: int) -> tuple[int, ...]:
    """All divisors, ascending."""
    low = [n for n in range(1, int(number**0.5) + 1) if number % n == 0]
    return tuple(sorted({*low, *(number // n for n in low)}))


def candidate(
    wanted: Wanted, micro_batch: int, *, checkpointing: bool, optimizer: str, length: int | None
) -> Candidate:
    """The batch in micro-batches of this size, which has to divide each device's part of it."""
    accumulation = wanted.on_one_device // micro_batch
    return Candidate(micro_batch, accumulation, wanted.world, wanted.precision, checkpointing, optimizer, length)


class _Asked:
    """The estimates so far; none is asked for twice."""

    def __init__(
        self, wanted: Wanted, estimate: Callable[[Candidate], Estimate], known: Sequence[Tried] = ()
    ) -> None:
        self.wanted, self._estimate = wanted, estimate
        self._known = {one.candidate: one for one in known}

    def __call__(self, candidate: Candidate) -> Tried:
        found = self._known.get(candidate)
        if found is None:
            needs = self._estimate(candidate)
            found = self._known[candidate] = Tried(candidate, needs, needs.needed_bytes <= self.wanted.allowed_bytes)
        return found

    def all(self) -> tuple[Tried, ...]:
        return tuple(self._known.values())


def _check(wanted: Wanted) -> None:
    if wanted.global_batch < 1 or wanted.world < 1:
        raise BadInput(
            f"a batch of {wanted.global_batch} on {wanted.world} devices", hint="both count from 1 up"
        )
    if wanted.global_batch % wanted.world:
        below = wanted.global_batch // wanted.world * wanted.world
        near = " or ".join(str(n) for n in (below, below + wanted.world) if n)
        raise BadInput(
            f"a batch of {wanted.global_batch} cannot be shared evenly by {wanted.world} devices",
            hint=f"{near}: the effective batch is never changed without being asked",
        )


def _first(asked: _Asked, length: int | None) -> Tried | None:
    """With the first optimizer with which anything fits, the fastest."""
    for optimizer in asked.wanted.optimizers:
        found = _fastest(asked, optimizer, length)
        if found is not None:
            return found
    return None


def _fastest(asked: _Asked, optimizer: str, length: int | None) -> Tried | None:
    allowed = asked.wanted.checkpointing
    kept = _largest(asked, optimizer, length, checkpointing=False) if False in allowed else None
    if True not in allowed or (kept is not None and kept.candidate.accumulation == 1):
        return kept  # computing again what need not be can only be slower
    above = kept.candidate.micro_batch if kept is not None else 0
    recomputed = _largest(asked, optimizer, length, checkpointing=True, above=above)
    return min((one for one in (kept, recomputed) if one is not None), key=_cost, default=None)


def _cost(one: Tried) -> tuple[float, bool]:
    """Where no time is known, recomputing, which is about a third more, comes last."""
    return (one.seconds or 0.0, one.candidate.checkpointing)


def _largest(
    asked: _Asked, optimizer: str, length: int | None, *, checkpointing: bool, above: int = 0
) -> Tried | None:
    """The largest micro-batch above this one that fits."""
    wanted = asked.wanted

    def at(micro_batch: int) -> Tried:
        return asked(candidate(wanted, micro_batch, checkpointing=checkpointing, optimizer=optimizer, length=length))

    sizes = [n for n in divisors(wanted.on_one_device) if n > above and n <= (wanted.at_most or n)]
    if sizes and sizes[-1] == wanted.on_one_device:
        whole = at(sizes.pop())
        if whole.fits:
            return whole
    found = None
    while sizes:
        middle = len(sizes) // 2
        one = at(sizes[middle])
        if one.fits:
            found = one
        sizes = sizes[middle + 1 :] if one.fits else sizes[:middle]
    return found


def _longest(asked: _Asked, lengths: Sequence[int]) -> int | None:
    """The longest of these with which one sample at a time fits, with whatever else may be changed."""
    lightest = max(asked.wanted.checkpointing)
    found = None
    while lengths:
        middle = len(lengths) // 2
        ones = (
            candidate(asked.wanted, 1, checkpointing=lightest, optimizer=optimizer, length=lengths[middle])
            for optimizer in reversed(asked.wanted.optimizers)
        )
        if any(asked(one).fits for one in ones):
            found, lengths = lengths[middle], lengths[middle + 1 :]
        else:
            lengths = lengths[:middle]
    return found


def _neighbours(wanted: Wanted, chosen: Candidate) -> Iterator[Candidate]:
    sizes = divisors(wanted.on_one_device)
    at = sizes.index(chosen.micro_batch)
    if at + 1 < len(sizes):
        yield replace(chosen, micro_batch=sizes[at + 1], accumulation=wanted.on_one_device // sizes[at + 1])
    if at:
        yield replace(chosen, micro_batch=sizes[at - 1], accumulation=wanted.on_one_device // sizes[at - 1])
    if (not chosen.checkpointing) in wanted.checkpointing:
        yield replace(chosen, checkpointing=not chosen.checkpointing)
    for optimizer in ("adamw", "adamw-8bit"):
        if optimizer != chosen.optimizer:
            yield replace(chosen, optimizer=optimizer)
            break
