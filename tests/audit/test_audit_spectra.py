from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.audit.spectra import core, energy_rank, lost, of_values, triangle
from tests.audit.against_dense import adapters, compare


@settings(max_examples=60)
@given(adapters)
def test_every_figure_is_that_of_a_dense_svd_to_nine_digits(case: dict[str, object]) -> None:
    compare(case)


@pytest.mark.parametrize("condition", [1.0, 1e3, 1e6, 1e7, 1e9, 1e14])
@pytest.mark.parametrize("is_graded", [True, False])
def test_the_fast_reduction_is_as_good_as_householders_at_any_condition(condition: float, is_graded: bool) -> None:
    random = np.random.default_rng(1)
    left, right = np.linalg.qr(random.standard_normal((900, 16)))[0], np.linalg.qr(random.standard_normal((16, 16)))[0]
    values = condition ** -np.linspace(0, 1, 16)
    matrix = left * values if is_graded else (left * values) @ right
    other = np.linalg.qr(random.standard_normal((16, 16)))[0]
    found = np.linalg.svd(triangle(matrix) @ other, compute_uv=False)
    assert found == pytest.approx(values, rel=0, abs=1e-14)


@pytest.mark.parametrize("size", [1e-160, 1e150])
def test_numbers_whose_squares_leave_the_range_have_a_spectrum(size: float) -> None:
    b, a = np.eye(6, 2) * size, np.eye(2, 5)
    square, exponent = core(b, a)
    found = of_values(np.ldexp(np.linalg.svd(square, compute_uv=False), exponent))
    assert found.sigma_max == pytest.approx(size, rel=1e-12)
    assert found.stable_rank == pytest.approx(2, rel=1e-12)


def test_equal_values_reach_nine_tenths_at_nine_of_ten() -> None:
    assert energy_rank(np.full(10, 0.1), 0.9) == 9


def test_an_update_of_zero_has_no_stable_rank_and_loses_nothing_that_can_be_told() -> None:
    found = of_values(np.zeros(4))
    assert (found.stable_rank, found.effective_rank, found.energy_ranks) == (None, None, (0, 0, 0))
    assert lost(np.zeros(4), 1) is None


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20))
def test_ranks_stay_between_one_and_r(values: list[float]) -> None:
    found = of_values(np.array(sorted(values, reverse=True)))
    if found.stable_rank is not None and found.effective_rank is not None:
        assert 1 - 1e-9 <= found.stable_rank <= len(values) + 1e-9
        assert 1 - 1e-9 <= found.effective_rank <= len(values) + 1e-9
        assert found.energy_ranks == tuple(sorted(found.energy_ranks))
