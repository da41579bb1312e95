"""How good predictions are: confusion matrix, F1 of each class, macro F1. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class ClassScore:
    """One class."""

    label: str
    """Its name."""
    precision: float
    """Share of what was called so that is so; 0 when nothing was."""
    recall: float
    """Share of what is so that was called so; 0 when there is none."""
    f1: float
    """Harmonic mean of the two."""
    support: int
    """Sentences of this class."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Predictions against the truth."""

    macro_f1: float
    """Mean F1 over the classes that the held-out sentences have, each class alike."""
    accuracy: float
    """Share of sentences that are right."""
    classes: tuple[ClassScore, ...]
    """Each class, those without a held-out sentence too."""
    confusion: tuple[tuple[int, ...], ...]
    """Rows: the truth; columns: what was predicted; in the order of the classes."""


def score(truth: Sequence[int], predicted: Sequence[int], labels: Sequence[str]) -> Scores:
    """All figures of some predictions.

    Args:
        truth: the number of each sentence's class.
        predicted: what was said.
        labels: the classes' names, by number.

    Raises:
        ValueError: for nothing to score, or lists of different lengths.
    """
    if not len(truth) or len(truth) != len(predicted):
        raise ValueError(f"{len(truth)} truths, {len(predicted)} predictions")
    count = len(labels)
    cells = np.bincount(np.asarray(truth) * count + np.asarray(predicted), minlength=count * count)
    confusion = cells.reshape(count, count)
    right, said, is_so = np.diag(confusion), confusion.sum(0), confusion.sum(1)
    precision = right / np.maximum(said, 1)
    recall = right / np.maximum(is_so, 1)
    f1 = 2 * right / np.maximum(said + is_so, 1)
    classes = tuple(
        ClassScore(label, float(precision[at]), float(recall[at]), float(f1[at]), int(is_so[at]))
        for at, label in enumerate(labels)
    )
    rows = tuple(tuple(int(cell) for cell in row) for row in confusion)
    return Scores(float(f1[is_so > 0].mean()), float(right.sum() / len(truth)), classes, rows)
