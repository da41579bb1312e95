"""Singular values of each layer's update s B A, and the figures that follow from them.

B A is never formed: with B = Q_B R_B and A^T = Q_A R_A its singular values are those of the r x r matrix R_B R_A^T.
That is backward stable, where the eigenvalues of A A^T and B^T B would lose half of the digits. Factors are scaled
by powers of two first, so that no square leaves the range of numbers; that is exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from outlast.audit.adapter import Factors

_NEARLY = 1e-3
"""How far columns may be from orthogonal after one Cholesky factorisation."""
_TIE = 1e-12
"""Shares of energy that differ by less are equal: ten equal values reach 90 % at nine."""


@dataclass(frozen=True, slots=True)
class Spectrum:
    """How much of a layer's rank is used. Shares are of the update's energy, the sum of squared singular values."""

    sigmas: tuple[float, ...]
    """Singular values of the update, largest first; of B A itself where the scale is unknown."""
    sigma_max: float
    """The largest: the update's spectral norm."""
    fro_norm: float
    """The update's Frobenius norm."""
    stable_rank: float | None
    """fro_norm^2 / sigma_max^2, from 1 to r; None for an update of zero."""
    effective_rank: float | None
    """exp of the entropy of the values' shares of their sum (Roy and Vetterli 2007); None for an update of zero."""
    energy_ranks: tuple[int, int, int]
    """The least ranks that hold 90, 95 and 99 % of the energy; 0 for an update of zero."""


def spectra(layers: Sequence[Factors]) -> list[Spectrum]:
    """The spectrum of each layer's update, layers of one rank together."""
    groups: dict[int, list[int]] = {}
    for index, layer in enumerate(layers):
        groups.setdefault(layer.r, []).append(index)
    found: dict[int, Spectrum] = {}
    for members in groups.values():
        cores = [core(*layers[index].load()) for index in members]
        values = np.linalg.svd(np.stack([matrix for matrix, _ in cores]), compute_uv=False)
        for index, sigmas, (_, exponent) in zip(members, values, cores, strict=True):
            found[index] = of_values(np.ldexp(sigmas, exponent) * abs(_scale(layers[index])))
    return [found[index] for index in range(len(layers))]


def _scale(layer: Factors) -> float:
    return 1.0 if layer.scale is None else layer.scale


def core(b: Any, a: Any) -> tuple[Any, int]:
    """R_B R_A^T of B (outputs x r) and A (r x inputs), with zeros to r x r, and the power of two that it is times."""
    r = a.shape[0]
    (b, one), (a, two) = _near_one(b), _near_one(a)
    product = triangle(b) @ triangle(a.T).T
    square = np.zeros((r, r))
    square[: product.shape[0], : product.shape[1]] = product
    return square, one + two


def _near_one(matrix: Any) -> tuple[Any, int]:
    largest = float(abs(matrix).max(initial=0.0))
    exponent = math.frexp(largest)[1] if largest else 0
    return np.ldexp(matrix, -exponent), exponent


def triangle(matrix: Any) -> Any:
    """R of a tall matrix's QR, its rows' signs aside."""
    fast = _by_cholesky(matrix) if matrix.shape[0] >= 4 * matrix.shape[1] else None
    return np.linalg.qr(matrix, mode="r") if fast is None else fast


def _by_cholesky(matrix: Any) -> Any | None:
    """R by two Cholesky factorisations, all of it in products of matrices; None where that could cost digits.

    The second one corrects the first, as long as the first made columns that are nearly orthogonal, which is looked
    at: then R is as good as Householder's (CholeskyQR2, Yamamoto and others 2015). LAPACK's QR of narrow matrices is
    slow, and on several threads of OpenBLAS sixty times slower still.
    """
    gram = matrix.T @ matrix
    lengths = np.sqrt(np.diagonal(gram))
    if not lengths.all():
        return None
    try:
        first = np.linalg.cholesky(gram / np.outer(lengths, lengths)).T
        nearly = matrix @ (np.linalg.inv(first) / lengths[:, None])
        again = nearly.T @ nearly
        if not np.linalg.norm(again - np.eye(len(again))) < _NEARLY:
            return None
        return np.linalg.cholesky(again).T @ (first * lengths)
    except np.linalg.LinAlgError:
        return None


def of_values(sigmas: Any) -> Spectrum:
    """The figures of singular values, largest first."""
    largest = float(sigmas[0]) if len(sigmas) else 0.0
    values = tuple(map(float, sigmas))
    if not largest:
        return Spectrum(values, 0.0, 0.0, None, None, (0, 0, 0))
    shares = sigmas / largest
    squares = shares * shares
    energy = float(squares.sum())
    weights = shares / shares.sum()
    entropy = -float((weights[weights > 0] * np.log(weights[weights > 0])).sum())
    return Spectrum(
        values,
        largest,
        largest * math.sqrt(energy),
        energy,
        math.exp(entropy),
        (energy_rank(sigmas, 0.9), energy_rank(sigmas, 0.95), energy_rank(sigmas, 0.99)),
    )


def energy_rank(sigmas: Any, share: float) -> int:
    """The least number of leading singular values that hold a share of the energy."""
    if not len(sigmas) or not sigmas[0]:
        return 0
    squares = (np.asarray(sigmas) / sigmas[0]) ** 2
    reached = np.cumsum(squares) >= share * squares.sum() * (1 - _TIE)
    return int(np.argmax(reached)) + 1


def lost(sigmas: Sequence[float], rank: int) -> float | None:
    """Relative Frobenius error of the best approximation of a rank (Eckart, Young 1936); None for an update of zero."""
    if not len(sigmas) or not sigmas[0]:
        return None
    squares = (np.asarray(sigmas) / sigmas[0]) ** 2
    return math.sqrt(float(squares[rank:].sum()) / float(squares.sum()))
