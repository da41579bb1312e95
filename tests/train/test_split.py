"""Into how many pieces a batch goes, and what each counts for."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.train import split
from outlast.train.split import FIRST_WAIT, LAST_WAIT, Known

SAMPLES = st.integers(1, 5000)
KNOWN = st.builds(
    Known, st.integers(0, 10**6), st.none() | st.integers(1, 10**6), st.integers(0, 200), st.integers(1, LAST_WAIT)
)


@given(SAMPLES, st.integers(1, 6000))
def test_pieces_hold_every_sample_once_and_differ_by_one_at_most(samples: int, pieces: int) -> None:
    sizes = split.even(samples, pieces)
    assert sum(sizes) == samples and len(sizes) == min(samples, pieces)
    assert max(sizes) - min(sizes) <= 1 and sorted(sizes, reverse=True) == list(sizes)


@given(SAMPLES, st.integers(0, 6000))
def test_no_piece_is_larger_than_asked_and_there_is_none_too_many(samples: int, size: int) -> None:
    sizes = split.at_most(samples, size)
    assert sum(sizes) == samples and max(sizes) <= max(1, size)
    assert len(sizes) == math.ceil(samples / max(1, size))


@given(SAMPLES)
def test_halving_ends_at_single_samples_after_as_many_turns_as_the_batch_has_bits(samples: int) -> None:
    sizes, turns = (samples,), 0
    while (smaller := split.halved(sizes)) is not None:
        assert max(smaller) == (max(sizes) + 1) // 2 and sum(smaller) == samples
        sizes, turns = smaller, turns + 1
    assert sizes == (1,) * samples and turns == (samples - 1).bit_length()


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=50))
def test_shares_are_the_weights_parts_of_the_whole(weights: list[int]) -> None:
    found, total = split.shares(weights), sum(weights)
    assert math.isclose(sum(found), 1)
    if total:
        assert all(math.isclose(one, Fraction(w, total)) for one, w in zip(found, weights, strict=True))


@given(st.lists(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9), min_size=1, max_size=9))
def test_shared_means_add_up_to_the_mean_of_all(pieces: list[list[float]]) -> None:
    weighted = zip(split.shares([len(piece) for piece in pieces]), pieces, strict=True)
    added = math.fsum(share * math.fsum(piece) / len(piece) for share, piece in weighted)
    everything = [value for piece in pieces for value in piece]
    assert math.isclose(added, math.fsum(everything) / len(everything), rel_tol=1e-9, abs_tol=1e-6)


@given(SAMPLES, st.floats(1, 1e4), KNOWN, st.none() | st.integers(1, 100))
def test_the_first_try_keeps_to_what_is_known_and_to_the_users_cap(
    samples: int, width: float, known: Known, cap: int | None
) -> None:
    sizes = split.first_sizes(samples, width, known, cap)
    assert sum(sizes) == samples and (cap is None or max(sizes) <= cap)
    if known.limit is None:
        assert len(sizes) == math.ceil(samples / (cap or samples))
    else:
        assert max(sizes) == 1 or max(sizes) * width <= known.limit * (1 + 1e-9)


def test_what_was_found_for_long_sequences_does_not_cut_short_ones() -> None:
    known = split.after_success(split.after_failure(Known(), 8 * 512), 4 * 512, was_cut=True)
    assert split.first_sizes(8, 512, known) == (4, 4)
    assert split.first_sizes(8, 256, known) == (8,)
    assert split.first_sizes(8, 1024, known) == (2, 2, 2, 2)


@given(KNOWN, st.integers(1, 10**6))
def test_a_failure_leaves_a_limit_below_what_failed(known: Known, elements: int) -> None:
    after = split.after_failure(known, elements)
    assert after.limit is not None and after.limit < elements and not after.is_trying
    assert after.wait == (min(LAST_WAIT, 2 * known.wait) if known.is_trying else known.wait)


@given(KNOWN, st.integers(1, 10**6), st.booleans())
def test_a_success_is_allowed_again(known: Known, elements: int, was_cut: bool) -> None:
    after = split.after_success(known, elements, was_cut=was_cut)
    assert after.limit is None or after.limit >= elements


def _train(capacity: list[int], samples: int = 16) -> tuple[list[int], int]:
    """Steps on a device that holds so many samples at each: the sizes that worked, and how often memory ran out."""
    known, worked, failures = Known(), [], 0
    for room in capacity:
        sizes = split.first_sizes(samples, 1, known)
        was_cut = len(sizes) > 1
        while max(sizes) > room:
            known, failures, was_cut = split.after_failure(known, max(sizes)), failures + 1, True
            sizes = split.halved(sizes) or pytest.fail("a single sample fits")
        known = split.after_success(known, max(sizes), was_cut=was_cut)
        worked.append(max(sizes))
    return worked, failures


@given(st.integers(1, 16), st.integers(1, 2000))
def test_where_room_stays_short_memory_runs_out_ever_more_seldom(room: int, steps: int) -> None:
    worked, failures = _train([room] * steps)
    assert all(size <= room and 2 * size > min(room, 15) for size in worked)
    assert failures <= 4 + math.log2(1 + steps / FIRST_WAIT)


def test_when_room_comes_back_the_whole_batch_is_computed_at_once_again() -> None:
    worked, _ = _train([3] * 10 + [16] * 400)
    assert worked[0] == 2 and worked[-1] == 16
    assert worked == sorted(worked), "it grows and does not fall back"


@given(st.lists(st.integers(1, 16), min_size=1, max_size=300))
def test_whatever_the_room_does_each_step_ends_in_a_size_that_fits(capacity: list[int]) -> None:
    worked, _ = _train(capacity)
    assert all(size <= room for size, room in zip(worked, capacity, strict=True))


@given(KNOWN)
def test_what_was_learned_survives_a_checkpoint(known: Known) -> None:
    assert Known.from_data(json.loads(json.dumps(known.as_data()))) == known


@pytest.mark.parametrize("data", [None, {}, {"fits": "much"}, {"other": 1}, {"fits": -1}, 7, []])
def test_what_is_no_record_of_it_means_that_nothing_is_known(data: object) -> None:
    assert Known.from_data(data) == Known()


@given(st.lists(KNOWN, min_size=1, max_size=6))
def test_ranks_agree_on_what_each_of_them_can_hold(known: list[Known]) -> None:
    common = split.agreed(known)
    limits = [one.fits for one in known if one.fails is not None]
    assert (common.fails is None) == (not limits)
    assert all(common.fits <= limit for limit in limits)
    assert split.agreed([common, *known]) == common or not limits
