"""Which rows a sample is made of. Pure: takes how many rows each row group of each file has, returns runs of rows.

The result is always in source order, each row once. With R rows in G row groups, N of them wanted (all, where R <= N):

head            the first N rows.
spread          the row groups floor(i * G / K) for i in 0 .. K-1, K the least number for which these hold N rows; the
                rows that are too many are left off the end of the last one.
random          every set of N rows is equally likely: the first N draws of a Fisher-Yates shuffle of all rows.
random-groups   the row groups in the order of such a shuffle, whole, until they hold N rows; the last one drawn gives
                its first rows only.

head, random and random-groups grow: the sample of N rows is part of the sample of more rows with the same seed.
The generator is `random.Random(seed).random()`, whose sequence Python guarantees for all versions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from random import Random
from typing import Any

import numpy as np

from outlast.data.index import Run

Groups = Sequence[Sequence[int]]
"""Rows of each row group, for each file."""


def choose(groups: Groups, rows: int | None, sample: str, seed: int) -> list[Run]:
    """Rows of a sample, as runs in source order that do not touch each other."""
    total = sum(map(sum, groups))
    if rows is None or rows >= total:
        return merged(Run(i, 0, sum(file)) for i, file in enumerate(groups))
    return merged(_SAMPLES[sample](groups, rows, seed))


def merged(runs: Iterator[Run] | Sequence[Run]) -> list[Run]:
    """Runs in order, without empty ones, those that touch made one."""
    found: list[Run] = []
    for run in runs:
        if run.first >= run.stop:
            continue
        if found and found[-1].file == run.file and found[-1].stop == run.first:
            found[-1] = Run(run.file, found[-1].first, run.stop)
        else:
            found.append(run)
    return found


def shuffled(total: int, seed: int) -> Iterator[int]:
    """The numbers below ``total``, every order equally likely; takes memory only for what is drawn."""
    draw = Random(seed).random
    moved: dict[int, int] = {}
    for i in range(total):
        j = i + int(draw() * (total - i))
        yield moved.get(j, j)
        moved[j] = moved.pop(i, i)


def _places(groups: Groups) -> list[Run]:
    """Each row group as a run."""
    found = []
    for i, file in enumerate(groups):
        ends = list(accumulate(file))
        found += [Run(i, end - rows, end) for rows, end in zip(file, ends, strict=True)]
    return found


def _head(groups: Groups, rows: int, seed: int) -> list[Run]:
    found, left = [], rows
    for i, file in enumerate(groups):
        taken = min(left, sum(file))
        found.append(Run(i, 0, taken))
        left -= taken
    return found


def _spread(groups: Groups, rows: int, seed: int) -> list[Run]:
    places = [place for place in _places(groups) if place.rows]
    sizes = np.array([place.rows for place in places], np.int64)
    number = max(1, rows // int(sizes.max()))
    while True:
        taken: Any = np.arange(number) * len(places) // number
        surplus = int(sizes[taken].sum()) - rows
        if surplus >= 0:
            return _without_last([places[i] for i in taken], surplus)
        number += 1


def _without_last(runs: list[Run], surplus: int) -> list[Run]:
    """Runs without so many of their last rows."""
    while surplus:
        last = runs.pop()
        if last.rows > surplus:
            return [*runs, Run(last.file, last.first, last.stop - surplus)]
        surplus -= last.rows
    return runs


def _random(groups: Groups, rows: int, seed: int) -> Iterator[Run]:
    order = shuffled(sum(map(sum, groups)), seed)
    drawn = sorted(next(order) for _ in range(rows))
    starts = [0, *accumulate(map(sum, groups))]
    file = 0
    for row in drawn:
        while row >= starts[file + 1]:
            file += 1
        yield Run(file, row - starts[file], row - starts[file] + 1)


def _random_groups(groups: Groups, rows: int, seed: int) -> list[Run]:
    places, found, left = _places(groups), [], rows
    for i in shuffled(len(places), seed):
        place = places[i]
        found.append(Run(place.file, place.first, min(place.stop, place.first + left)))
        left -= found[-1].rows
        if left == 0:
            break
    return sorted(found)


_SAMPLES: dict[str, Callable[[Groups, int, int], Sequence[Run] | Iterator[Run]]] = {
    "head": _head,
    "spread": _spread,
    "random": _random,
    "random-groups": _random_groups,
}
