"""Which part of a split each row is in. Pure; parts are disjoint and complete.

By order: of n rows, part k ends behind row floor(n * (shares of parts 0 .. k) / (all shares)).
By hash: h = splitmix64(seed, the file's name, the row's number in the file); the row is in the first part k with
h * (all shares) < 2^64 * (shares of parts 0 .. k). It depends on nothing else, so a row stays in its part as the
subset or the source grows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from blake3 import blake3

from outlast.data.index import Run, count
from outlast.data.request import Split

_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def ends(split: Split, rows: int) -> list[int]:
    """Where each part of a split by order ends."""
    total = sum(split.shares)
    return [rows * sum(split.shares[: i + 1]) // total for i in range(len(split.shares))]


def by_order(runs: Sequence[Run], split: Split) -> Iterator[tuple[int, list[Run]]]:
    """Each part's number and its runs."""
    start = 0
    for part, end in enumerate(ends(split, count(runs))):
        yield part, list(between(runs, start, end))
        start = end


def between(runs: Sequence[Run], first: int, stop: int) -> Iterator[Run]:
    """The rows first .. stop-1 of those in runs, counted from 0."""
    at = 0
    for run in runs:
        low, high = max(first - at, 0), min(stop - at, run.rows)
        if low < high:
            yield Run(run.file, run.first + low, run.first + high)
        at += run.rows
        if at >= stop:
            return


def parts_by_hash(split: Split, seed: int, path: str, rows: Any) -> Any:
    """The part of each row.

    Args:
        split: the shares.
        seed: of the hash.
        path: name of the file in its source.
        rows: numpy array of row numbers in that file.

    Returns:
        numpy array of part numbers, int8.
    """
    name = int.from_bytes(blake3(path.encode("utf-8", "surrogateescape"), key=_key(seed)).digest(8), "little")
    hashes = _mix(rows.astype(np.uint64), name)
    total, passed = sum(split.shares), 0
    found: Any = np.zeros(len(rows), np.int8)
    for share in split.shares[:-1]:
        passed += share
        found += hashes >= np.uint64(-(-(passed << 64) // total))
    return found


def _key(seed: int) -> bytes:
    return seed.to_bytes(32, "little")


def _mix(values: Any, salt: int) -> Any:
    """Splitmix64's finaliser (Steele, Lea, Flood 2014) of salt + (value + 1) * golden ratio, modulo 2^64."""
    with np.errstate(over="ignore"):
        mixed = (values + np.uint64(1)) * np.uint64(_GOLDEN) + np.uint64(salt)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(_FIRST)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(_SECOND)
        return mixed ^ (mixed >> np.uint64(31))
