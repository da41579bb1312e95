"""Into how many pieces a batch goes, and what each counts for. Pure: no torch, no clock, no memory of its own.

Memory is measured in elements: the numbers that a batch's tensors hold, samples times what one sample has. So a size
that was found for long sequences does not cut short ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

FIRST_WAIT = 32
"""Steps after which a larger piece is tried again for the first time."""
LAST_WAIT = 4096
"""The most steps between two tries: each that fails doubles the wait."""


@dataclass(frozen=True, slots=True)
class Known:
    """What this run has learned about the memory; saved with each checkpoint."""

    fits: int = 0
    """Elements of the largest piece that went through; 0 when nothing has."""
    fails: int | None = None
    """Elements of the piece that did not; None while nothing has to be held back."""
    held: int = 0
    """Steps since then in which a batch was cut because of it."""
    wait: int = FIRST_WAIT
    """Such steps until a larger piece is tried."""

    def as_data(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_data(cls, data: Any) -> Known:
        """What `as_data` gave; nothing known when there is nothing, or it is not that."""
        try:
            known = cls(**data)
            numbers = (known.fits, known.held, known.wait, 1 if known.fails is None else known.fails)
            return known if all(isinstance(n, int) and n >= 0 for n in numbers) else cls()
        except TypeError:
            return cls()

    @property
    def is_trying(self) -> bool:
        """True when the next batch that would be cut is tried in larger pieces."""
        return self.fails is not None and self.held >= self.wait

    @property
    def limit(self) -> int | None:
        """The most elements that the next piece may have; None for as many as the batch has."""
        if self.fails is None:
            return None
        return 2 * self.fits if self.is_trying else self.fits


def even(samples: int, pieces: int) -> tuple[int, ...]:
    """Sizes of so many pieces, or of one a sample where there are fewer; they differ by one at most, larger first."""
    pieces = max(1, min(samples, pieces))
    size, more = divmod(samples, pieces)
    return (size + 1,) * more + (size,) * (pieces - more)


def at_most(samples: int, size: int) -> tuple[int, ...]:
    """Sizes of the fewest even pieces of which none is larger than ``size``."""
    return even(samples, -(-samples // max(1, size)))


def first_sizes(samples: int, width: float, known: Known, cap: int | None = None) -> tuple[int, ...]:
    """The pieces that a batch is tried in first.

    Args:
        samples: in the batch.
        width: elements of one sample.
        known: what was learned so far.
        cap: the most samples of a piece that the user allows; None for no cap.
    """
    size = samples if known.limit is None else int(known.limit // max(width, 1))
    return at_most(samples, min(size, cap or samples))


def halved(sizes: Sequence[int]) -> tuple[int, ...] | None:
    """The pieces to try after these did not fit; None when they are single samples already."""
    return at_most(sum(sizes), (max(sizes) + 1) // 2) if max(sizes) > 1 else None


def after_failure(known: Known, elements: int) -> Known:
    """A piece of so many elements did not fit. A try that failed doubles the wait for the next."""
    wait = min(LAST_WAIT, 2 * known.wait) if known.is_trying else known.wait
    # What went through before at this size or above says nothing any more: something else has taken the room.
    fits = known.fits if known.fits < elements else 0
    return Known(fits, elements, 0, wait)


def after_success(known: Known, elements: int, *, was_cut: bool) -> Known:
    """All pieces of a step went through.

    Args:
        known: what was learned before.
        elements: of the largest of them.
        was_cut: it was more than one piece.
    """
    if known.fails is None or elements >= known.fails:
        return Known(max(known.fits, elements), None, 0, known.wait)
    if elements > known.fits:
        return replace(known, fits=elements, held=0)
    return replace(known, held=known.held + was_cut)


def agreed(known: Sequence[Known]) -> Known:
    """What all ranks go on with: the least that any of them can hold."""
    tight = [one for one in known if one.fails is not None]
    if not tight:
        return min(known, key=lambda one: one.fits)
    fails = min(one.fails for one in tight if one.fails is not None)
    fits = min(one.fits for one in tight)
    return Known(fits, fails, min(one.held for one in tight), max(one.wait for one in tight))


def shares(weights: Sequence[float]) -> tuple[float, ...]:
    """What each piece's mean counts for in the mean of the whole batch.

    Args:
        weights: samples, or tokens, that each piece's mean is over. Where there are none at all the whole batch's
            mean is no number, and so is theirs.
    """
    total = sum(weights)
    return tuple(weight / total for weight in weights) if total else (1 / len(weights),) * len(weights)
