"""What was asked for: which rows, which columns, how they are parted. Checked once, here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from outlast.errors import BadInput
from outlast.host import parse_bytes

SAMPLES = {
    "head": "the first rows in file order",
    "spread": "whole row groups at equal distance through the source",
    "random": "a uniform sample of rows; touches most row groups",
    "random-groups": "a uniform sample of row groups: far fewer bytes, but neighbours come together",
}
"""Ways to choose rows; `outlast.data.choose` has their exact definitions."""
PARTS = ("train", "validation", "test")
"""Names of the parts of a split, in order."""


@dataclass(frozen=True, slots=True)
class Split:
    """How rows are parted."""

    shares: tuple[int, ...]
    """Share of each part, in the order of `PARTS`; only their proportion counts."""
    by_hash: bool
    """By a hash of each row's place in the source; otherwise by order."""

    def __str__(self) -> str:
        return ("hash:" if self.by_hash else "") + "/".join(map(str, self.shares))

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts."""
        return PARTS[: len(self.shares)]


WHOLE = Split((1,), False)
"""No split: everything is `train`."""


@dataclass(frozen=True, slots=True)
class Request:
    """A subset that somebody wants."""

    rows: int | None
    """How many rows; None takes all."""
    columns: tuple[str, ...] | None
    """Top-level columns, in this order; None takes all."""
    split: Split
    """How they are parted."""
    sample: str
    """A key of `SAMPLES`."""
    seed: int
    """Of the sample and of a split by hash."""
    max_bytes: int | None
    """The subset takes at most so many bytes of disk; None sets no bound."""
    keep_free: int
    """Bytes of the volume that stay free."""


def request(
    rows: int | None = None,
    columns: Sequence[str] | str | None = None,
    split: str | None = None,
    sample: str = "head",
    seed: int = 0,
    max_bytes: int | str | None = None,
    keep_free: int | str | None = None,
) -> Request:
    """Check what was asked for.

    Args:
        rows: how many; None takes all.
        columns: names, or one text with commas.
        split: ``90/10`` by order, ``hash:90/10`` by a hash; up to three parts.
        sample: a key of `SAMPLES`.
        seed: of the sample and of a split by hash.
        max_bytes: bound of the subset on disk, bytes or ``500MB``.
        keep_free: bytes of the volume that stay free, or ``2GB``.

    Raises:
        BadInput: what makes no sense, and what would.
    """
    if rows is not None and (isinstance(rows, bool) or not isinstance(rows, int) or rows < 1):
        raise BadInput(f"expected a number of rows from 1 on, got {rows!r}", hint="leave it out to take all rows")
    if sample not in SAMPLES:
        raise BadInput(f"there is no sample {sample!r}", hint=f"one of: {', '.join(SAMPLES)}")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise BadInput(f"expected a seed from 0 on, got {seed!r}", hint="any whole number below 2^63")
    return Request(
        rows, _columns(columns), parse_split(split), sample, seed, _size(max_bytes, "max_bytes") or None,
        _size(keep_free, "keep_free") or 0,
    )  # fmt: skip


def _columns(columns: Sequence[str] | str | None) -> tuple[str, ...] | None:
    if columns is None:
        return None
    names = tuple(name.strip() for name in columns.split(",")) if isinstance(columns, str) else tuple(columns)
    if not names or not all(isinstance(name, str) and name for name in names) or len(set(names)) != len(names):
        raise BadInput(
            f"expected names of columns, each once, got {columns!r}", hint="for example --columns text,label"
        )
    return names


def _size(value: int | str | None, name: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, str):
        return parse_bytes(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BadInput(f"{name}: expected bytes or a size such as 500MB, got {value!r}", hint="0 sets no bound")
    return value


def parse_split(text: str | None) -> Split:
    """A split from ``90/10``, ``80/10/10`` or ``hash:90/10``; None is no split.

    Raises:
        BadInput: anything else.
    """
    if text is None:
        return WHOLE
    kind, colon, rest = text.partition(":")
    words = (rest if colon else kind).split("/")
    good = 2 <= len(words) <= len(PARTS) and all(word.isascii() and word.isdigit() and int(word) for word in words)
    if not good or (colon and kind != "hash") or any(len(word) > 6 for word in words):
        raise BadInput(
            f"expected a split such as 90/10, 80/10/10 or hash:90/10, got {text!r}",
            hint="two or three shares: train/validation/test, each at least 1",
        )
    return Split(tuple(map(int, words)), bool(colon))
