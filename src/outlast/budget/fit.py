"""The fastest way to train a batch that fits a GPU. Pure: what a way needs is a function that is passed in.

What changes training the least is given up first:

1. micro-batch x accumulation, and recomputation: the same gradient. The fastest that fits is taken;
2. the optimizer: 8-bit moments, then Adafactor's factored ones: another, if close, course of training;
3. the sequence length, only where that is allowed: other data.

Precision is as asked. A micro-batch that does not divide the batch is never taken: the effective batch is exact.

Few predictions are made. In one way of training, a larger micro-batch needs more memory and takes less time a sample,
so the largest divisor that fits is the fastest of its kind; needs being nearly linear in it, it is guessed from two
known ones, then bisected. The whole batch is asked apart: it needs no gradients beside its activations, so it may fit
where half of it does not. Optimizers are not asked for where the state of the first one is less than what is short.
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
    optimizer_bytes: int | None = None
    """Of what is needed, the optimizer's state; None when not known."""
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
            while the micro-batch grows, and recomputing must not need more than keeping.

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

    def __init__(self, wanted: Wanted, estimate: Callable[[Candidate], Estimate], known: Sequence[Tried] = ()) -> None:
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
        raise BadInput(f"a batch of {wanted.global_batch} on {wanted.world} devices", hint="both count from 1 up")
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
        if not any(_hangs_on_optimizer(one, asked.wanted) for one in asked.all()):
            return None
    return None


def _hangs_on_optimizer(one: Tried, wanted: Wanted) -> bool:
    state = one.estimate.optimizer_bytes
    return state is None or one.estimate.needed_bytes - state <= wanted.allowed_bytes


def _fastest(asked: _Asked, optimizer: str, length: int | None) -> Tried | None:
    kinds = asked.wanted.checkpointing
    ways = {kind: _Way(asked, optimizer, length, checkpointing=kind) for kind in sorted(kinds)}
    first, *others = ways.values()
    whole = first.whole()
    if whole is not None:
        return whole  # computing again what need not be can only be slower
    whole = next(filter(None, (way.whole() for way in others)), None)
    least = ways[max(kinds)].at(1)
    if not least.fits:
        return whole
    kept = ways[False].largest(least) if False in ways else None
    above = kept.candidate.micro_batch if kept is not None else 0
    recomputed = whole or (ways[True].largest(least, above) if True in ways else None)
    return min((one for one in (kept, recomputed) if one is not None), key=_cost, default=None)


def _cost(one: Tried) -> tuple[float, bool]:
    """Where no time is known, recomputing, which is about a third more, comes last."""
    return (one.seconds or 0.0, one.candidate.checkpointing)


class _Way:
    """Candidates that differ in the micro-batch only."""

    def __init__(self, asked: _Asked, optimizer: str, length: int | None, *, checkpointing: bool) -> None:
        self._asked, self._wanted = asked, asked.wanted
        self._optimizer, self._length, self._checkpointing = optimizer, length, checkpointing

    def at(self, micro_batch: int) -> Tried:
        return self._asked(
            candidate(
                self._wanted, micro_batch, checkpointing=self._checkpointing, optimizer=self._optimizer,
                length=self._length,
            )
        )  # fmt: skip

    def whole(self) -> Tried | None:
        """All samples at once, where that is allowed and fits."""
        size = self._wanted.on_one_device
        if size > (self._wanted.at_most or size):
            return None
        found = self.at(size)
        return found if found.fits else None

    def largest(self, least: Tried, above: int = 0) -> Tried | None:
        """The largest micro-batch that fits of those above this one and below the whole batch.

        Args:
            least: one sample at a time, in this way or in a lighter one: where the guesses start from.
            above: a smaller one is of no use.
        """
        size, most = self._wanted.on_one_device, self._wanted.at_most
        sizes = [n for n in divisors(size) if above < n < size and n <= (most or n)]
        low, high, found, rounds = (1, least.estimate.needed_bytes), None, None, 0
        if most is None or most >= size:
            high = (size, self.at(size).estimate.needed_bytes)
        while sizes:
            index = _guess(sizes, low, high, self._wanted.allowed_bytes) if rounds < 2 else len(sizes) // 2
            one = self.at(sizes[index])
            point = (sizes[index], one.estimate.needed_bytes)
            low, high = (point, high) if one.fits else (low, point)
            found = one if one.fits else found
            sizes = sizes[index + 1 :] if one.fits else sizes[:index]
            rounds += 1
        return found


def _guess(sizes: Sequence[int], low: tuple[int, int], high: tuple[int, int] | None, allowed: int) -> int:
    """Index of the largest size that fits if needs grow in a straight line from one known point to the other."""
    if high is None or high[1] <= low[1]:
        return len(sizes) - 1
    largest = low[0] + (allowed - low[1]) * (high[0] - low[0]) / (high[1] - low[1])
    return max(0, sum(size <= largest for size in sizes) - 1)


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
