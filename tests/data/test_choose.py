"""Which rows a sample is made of: true to its definition, in source order, and growing."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from outlast.data.choose import choose, shuffled
from outlast.data.index import Run, count

GROUPS = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=6), min_size=1, max_size=5)
SAMPLE = st.sampled_from(["head", "spread", "random", "random-groups"])


def rows(runs: list[Run]) -> list[tuple[int, int]]:
    return [(run.file, row) for run in runs for row in range(run.first, run.stop)]


def everything(groups: list[list[int]]) -> list[tuple[int, int]]:
    return [(i, row) for i, file in enumerate(groups) for row in range(sum(file))]


@given(GROUPS, st.integers(1, 400), SAMPLE, st.integers(0, 5))
def test_each_sample_has_as_many_rows_as_asked_each_once_in_source_order(
    groups: list[list[int]], wanted: int, sample: str, seed: int
) -> None:
    found = rows(choose(groups, wanted, sample, seed))
    assert found == sorted(set(found))
    assert set(found) <= set(everything(groups))
    assert len(found) == min(wanted, sum(map(sum, groups)))


@given(GROUPS, st.integers(1, 400))
def test_head_is_the_first_rows_in_file_order(groups: list[list[int]], wanted: int) -> None:
    assert rows(choose(groups, wanted, "head", 0)) == everything(groups)[:wanted]


@given(GROUPS, st.integers(1, 400), st.sampled_from(["head", "random", "random-groups"]), st.integers(0, 5))
def test_a_sample_is_part_of_a_larger_one_with_the_same_seed(
    groups: list[list[int]], wanted: int, sample: str, seed: int
) -> None:
    small, large = (set(rows(choose(groups, n, sample, seed))) for n in (wanted, wanted + 17))
    assert small <= large


@given(GROUPS, st.integers(1, 150))
def test_spread_takes_whole_row_groups_at_equal_distance(groups: list[list[int]], wanted: int) -> None:
    places = [(i, sum(file[:j]), size) for i, file in enumerate(groups) for j, size in enumerate(file)]
    found = rows(choose(groups, wanted, "spread", 0))
    if wanted >= sum(map(sum, groups)):
        return
    for number in range(1, len(places) + 1):
        taken = [places[i * len(places) // number] for i in range(number)]
        if sum(size for *_, size in taken) >= wanted:
            break
    expected = [(file, row) for file, first, size in taken for row in range(first, first + size)]
    assert found == expected[:wanted]


@given(GROUPS, st.integers(1, 100), st.integers(0, 5))
def test_random_groups_are_whole_but_for_one(groups: list[list[int]], wanted: int, seed: int) -> None:
    found = set(rows(choose(groups, wanted, "random-groups", seed)))
    cut = 0
    for i, file in enumerate(groups):
        for j, size in enumerate(file):
            inside = sum((i, sum(file[:j]) + row) in found for row in range(size))
            cut += 0 < inside < size
    assert cut <= 1


def test_every_row_is_as_likely_in_a_random_sample() -> None:
    counts: Counter[tuple[int, int]] = Counter()
    for seed in range(4000):
        counts.update(rows(choose([[3, 4], [5]], 4, "random", seed)))
    expected = 4000 * 4 / 12
    # 11 degrees of freedom: above 31.3 in one of 1,000 draws.
    assert sum((n - expected) ** 2 / expected for n in counts.values()) < 31.3
    assert len(counts) == 12


def test_the_order_of_a_seed_never_changes() -> None:
    assert list(shuffled(10, 0)) == [8, 7, 5, 4, 1, 3, 9, 2, 0, 6]
    assert choose([[1000]], 3, "random", 7) == choose([[400, 600]], 3, "random", 7)


def test_a_million_rows_of_a_billion_are_drawn_without_listing_the_billion() -> None:
    assert count(choose([[10**9]], 10_000, "random", 0)) == 10_000
