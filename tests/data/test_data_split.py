"""Splits: disjoint, complete, and by a hash stable as the subset or the source grows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.data.index import Probe, Run, count
from outlast.data.request import PARTS, Split, parse_split
from outlast.data.spans import cut, rows_of, span_rows
from outlast.data.split import parts_by_hash
from outlast.errors import BadInput

SHARES = st.lists(st.integers(1, 20), min_size=1, max_size=3).map(tuple)
RUNS = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 40), st.integers(0, 9)), min_size=1, max_size=8)
PATHS = ["a.parquet", "b.parquet", "c.parquet", "d.parquet"]


def runs_of(drawn: list[tuple[int, int, int]]) -> list[Run]:
    """Runs in order with gaps between them."""
    found, at = [], dict.fromkeys(range(4), 0)
    for file, rows, gap in sorted(drawn, key=lambda one: one[0]):
        first = at[file] + gap + 1
        found.append(Run(file, first, first + rows))
        at[file] = first + rows
    return found


def rows(runs: list[Run]) -> list[tuple[int, int]]:
    return [(run.file, row) for run in runs for row in range(run.first, run.stop)]


@given(RUNS, SHARES, st.booleans(), st.integers(0, 3), st.integers(1, 50))
def test_the_parts_are_disjoint_and_complete_and_each_shard_has_the_rows_it_says(
    drawn: list[tuple[int, int, int]], shares: tuple[int, ...], by_hash: bool, seed: int, size: int
) -> None:
    runs, split = runs_of(drawn), Split(shares, by_hash)
    spans = cut(runs, split, seed, PATHS, size)
    parts: dict[str, list[tuple[int, int]]] = {part: [] for part in PARTS}
    for span in spans:
        assert count(span.runs) <= size
        for shard in span.shards:
            mine = rows(rows_of(span.runs, shard.part, split, seed, PATHS))
            assert len(mine) == shard.rows > 0
            parts[shard.part] += mine
    together = [row for mine in parts.values() for row in mine]
    assert sorted(together) == rows(runs) and len(set(together)) == len(together)
    names = [shard.name for span in spans for shard in span.shards]
    assert len(set(names)) == len(names)


@given(st.integers(1, 10**6), SHARES)
def test_by_order_the_first_rows_are_train(total: int, shares: tuple[int, ...]) -> None:
    spans = cut([Run(0, 0, total)], Split(shares, False), 0, PATHS, 10**6)
    train = sum(shard.rows for span in spans for shard in span.shards if shard.part == "train")
    assert train == total * shares[0] // sum(shares)


def test_eleven_thousand_rows_are_9900_and_1100_documents() -> None:
    spans = cut([Run(0, 0, 11_000)], Split((90, 10), False), 0, PATHS, 20_000)
    assert [(shard.name, shard.rows) for span in spans for shard in span.shards] == [
        ("train/part-00000.parquet", 9900),
        ("validation/part-00000.parquet", 1100),
    ]


@given(st.integers(0, 10**6), st.integers(1, 1000), st.integers(0, 9))
def test_by_hash_a_row_stays_in_its_part_whatever_else_is_there(first: int, more: int, seed: int) -> None:
    split = Split((80, 10, 10), True)
    alone = parts_by_hash(split, seed, "a", np.array([first]))
    among = parts_by_hash(split, seed, "a", np.arange(first, first + more))
    assert alone[0] == among[0]


def test_by_hash_shares_are_kept_about_and_files_and_seeds_differ() -> None:
    split, many = Split((90, 10), True), np.arange(100_000)
    one = parts_by_hash(split, 0, "a", many)
    # Standard deviation 95: five of them.
    assert abs(int(one.sum()) - 10_000) < 475
    assert (one != parts_by_hash(split, 0, "b", many)).any() and (one != parts_by_hash(split, 1, "a", many)).any()


def test_the_hash_is_what_it_was() -> None:
    """A change here would move rows between training and validation of everybody's subsets."""
    assert parts_by_hash(Split((1, 1), True), 0, "a", np.arange(16)).tolist() == HASHED


HASHED = [0, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1, 1, 0, 0, 1, 0]


@pytest.mark.parametrize("text", ["90", "90/", "/10", "90/10/5/1", "a/b", "0/10", "hash:90", "x:90/10", "90/-10", ""])
def test_what_is_no_split_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadInput, match="hash:90/10"):
        parse_split(text)


@given(st.floats(0, 1e9))
def test_a_span_has_rows_and_thousands_where_there_are_thousands(stored: float) -> None:
    rows = span_rows(Probe(1, 1.0, 1.0, stored))
    assert 100 <= rows <= 10**6 and (rows < 1000 or rows % 1000 == 0)
