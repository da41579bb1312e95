"""The largest singular value of a large matrix, to a stated error, in a few passes over it.

Block Lanczos on W^T W with full reorthogonalisation (Golub and Underwood 1977) from a fixed random start: each pass
multiplies eight vectors at once, part by part, so that a part is read from memory once for W and W^T together. Passes
are in the matrix's own precision; the result is checked in float64: with x the vector found, t = ||W x||^2 and
r = ||W^T W x - t x||, an eigenvalue of W^T W lies within r of t; and within r^2 / gap, where the next one is known to
be further away (Temple 1928, Kato 1949). The first bound needs no gap: where two values are close, a mixture of their
vectors has a residual as small as the gap.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

TOLERANCE = 1e-6
"""Relative error of the largest singular value, at most."""
_DENSE = 384
"""Sides up to which W^T W is small enough to be solved as a whole."""
_VECTORS = 8
_PASSES = 120
_PART_BYTES = 2 << 20
"""Of the matrix at a time: what a core's cache holds."""
_SEED = 20


@dataclass(frozen=True, slots=True)
class Norms:
    """Of one matrix."""

    sigma_max: float
    """Its largest singular value: a lower bound that is as close as `error` says."""
    fro_norm: float
    """Its Frobenius norm."""
    error: float
    """Bound of the relative error of sigma_max."""


def norms(matrix: Any) -> Norms:
    """The norms of a matrix.

    Args:
        matrix: float32 or float64, two-dimensional, finite; is not copied.
    """
    wide = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    fro = float(np.sqrt(sum(float(np.vdot(part, part)) for part in _doubles(matrix))))
    if fro == 0.0:
        return Norms(0.0, 0.0, 0.0)
    if wide.shape[1] <= _DENSE:
        gram = np.zeros((wide.shape[1],) * 2)
        for part in _doubles(wide):
            gram += part.T @ part
        return Norms(float(np.sqrt(np.linalg.eigvalsh(gram)[-1])), fro, 1e-12)
    return _lanczos(wide, fro)


def _lanczos(wide: Any, fro: float) -> Norms:
    random = np.random.default_rng(_SEED)
    basis = [np.linalg.qr(random.standard_normal((wide.shape[1], _VECTORS)))[0]]
    small = np.zeros((0, 0))
    scale = wide.dtype.type(2.0 ** -math.frexp(fro)[1])  # exact, and keeps squares of small numbers in float32's range
    target, best = TOLERANCE, Norms(0.0, fro, float("inf"))
    for done in range(1, _PASSES + 1):
        image = _squared(wide, basis[-1].astype(wide.dtype), scale).astype(np.float64)
        small, rest = _extended(small, basis, image)
        following, couple = np.linalg.qr(rest)
        values, vectors = np.linalg.eigh(small)
        first, second = np.linalg.norm(couple @ vectors[-_VECTORS:, [-1, -2]], axis=0) / values[-1]
        gap = 1 - values[-2] / values[-1] - second
        is_out = len(small) + _VECTORS > wide.shape[1] or done == _PASSES
        if _bound(first, gap) <= target or is_out:
            best = _checked(wide, np.hstack(basis) @ vectors[:, -1], fro, gap)
            if best.error <= TOLERANCE or is_out:
                return best
            target /= 4
        basis.append(_beside(following, basis))
    return best


def _bound(residual: float, gap: float) -> float:
    """Of the relative error of the singular value, from the relative residual and the gap to the next eigenvalue."""
    return min(residual, residual * residual / gap if gap > 0 else residual) / 2


def _extended(small: Any, basis: list[Any], image: Any) -> tuple[Any, Any]:
    """The projected matrix with the last block's row and column, and what is left of the image beside the basis."""
    whole = np.hstack(basis)
    column = whole.T @ image
    rest = image - whole @ column
    again = whole.T @ rest  # once is not enough in finite precision, twice is (Kahan, in Parlett 1980)
    rest -= whole @ again
    column += again
    known = len(small)
    larger = np.zeros((known + _VECTORS,) * 2)
    larger[:known, :known] = small
    larger[:, known:] = column
    larger[known:, :known] = column[:known].T
    block = larger[known:, known:]
    larger[known:, known:] = (block + block.T) / 2
    return larger, rest


def _beside(block: Any, basis: list[Any]) -> Any:
    """A block without what the basis has of it: where an image had few dimensions, rounding filled up the rest."""
    whole = np.hstack(basis)
    for _ in range(2):
        block = np.linalg.qr(block - whole @ (whole.T @ block))[0]
    return block


def _squared(wide: Any, vectors: Any, scale: Any) -> Any:
    """W^T (W V) x scale^2."""
    found = np.zeros((wide.shape[1], vectors.shape[1]), wide.dtype)
    for part in _parts(wide):
        found += part.T @ (part @ vectors * scale)
    return found * scale


def _checked(wide: Any, vector: Any, fro: float, gap: float) -> Norms:
    vector = vector / np.linalg.norm(vector)
    value, image = 0.0, np.zeros(wide.shape[1])
    for part in _doubles(wide):
        forth = part @ vector
        value += float(forth @ forth)
        image += part.T @ forth
    residual = float(np.linalg.norm(image - value * vector))
    return Norms(float(np.sqrt(value)), fro, _bound(residual / value, gap))


def _parts(wide: Any) -> Iterator[Any]:
    rows = max(64, _PART_BYTES // (wide.shape[1] * wide.itemsize))
    for first in range(0, wide.shape[0], rows):
        yield wide[first : first + rows]


def _doubles(wide: Any) -> Iterator[Any]:
    for part in _parts(wide):
        yield part.astype(np.float64)
