from __future__ import annotations

import numpy as np
import pytest

from outlast.audit.largest import TOLERANCE, norms


def _with_values(rows: int, columns: int, values: np.ndarray, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    left = np.linalg.qr(random.standard_normal((rows, len(values))))[0]
    right = np.linalg.qr(random.standard_normal((columns, len(values))))[0]
    return (left * values) @ right.T


@pytest.mark.parametrize("gap", [0.5, 1e-2, 1e-3, 1e-4, 1e-6, 1e-9, 0.0])
def test_any_gap_between_the_first_two_values_is_met(gap: float) -> None:
    values = np.concatenate([[1.0, 1.0 - gap], np.linspace(0.99 * (1 - gap), 0, 500)])
    matrix = _with_values(700, 600, values)
    found = norms(matrix)
    assert found.sigma_max == pytest.approx(1.0, rel=TOLERANCE)
    assert found.error <= TOLERANCE


@pytest.mark.parametrize("shape", [(900, 500), (500, 900), (2000, 3), (1, 50), (385, 385)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_norms_are_those_of_numpys_svd(shape: tuple[int, int], dtype: type) -> None:
    matrix = np.random.default_rng(1).standard_normal(shape).astype(dtype)
    found = norms(matrix)
    wide = matrix.astype(np.float64)
    assert found.sigma_max == pytest.approx(np.linalg.svd(wide, compute_uv=False)[0], rel=TOLERANCE)
    assert found.fro_norm == pytest.approx(np.linalg.norm(wide), rel=1e-12)


def test_the_same_matrix_has_the_same_norm_bit_for_bit() -> None:
    matrix = np.random.default_rng(2).standard_normal((800, 500)).astype(np.float32)
    assert norms(matrix) == norms(matrix)


def test_a_low_rank_matrix_and_one_of_zeros_have_norms() -> None:
    random = np.random.default_rng(3)
    low = random.standard_normal((900, 2)) @ random.standard_normal((2, 700))
    assert norms(low).sigma_max == pytest.approx(np.linalg.norm(low, 2), rel=TOLERANCE)
    assert norms(np.zeros((500, 600), np.float32)).sigma_max == 0.0


def test_a_matrix_of_very_small_numbers_has_its_norm() -> None:
    matrix = (np.random.default_rng(4).standard_normal((600, 500)) * 1e-30).astype(np.float32)
    assert norms(matrix).sigma_max == pytest.approx(np.linalg.norm(matrix.astype(np.float64), 2), rel=TOLERANCE)
