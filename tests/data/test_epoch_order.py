"""The order of an epoch: every row once, the same everywhere, mixed, and never more row groups at a time than said."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from outlast.data.epochs.order import Order, Walk, drawn, width_for

GROUPS = st.lists(st.integers(0, 40), min_size=1, max_size=30).map(tuple)

DRAWN = [1, 3, 4, 5, 0, 2, 7, 6]
SLIDING = [13, 5, 0, 4, 6, 2, 3, 9, 1, 7, 8, 10, 11, 12]
ONE_SLOT = [6, 7, 13, 1, 10, 0, 11, 3, 5, 12, 4, 2, 8, 9]


def everything(order: Order) -> list[int]:
    walk = Walk(order)
    return walk.between(0, len(walk)).tolist()


@given(GROUPS, st.booleans(), st.integers(-(2**70), 2**70), st.integers(0, 5), st.integers(1, 12))
def test_an_epoch_has_every_row_once(
    groups: tuple[int, ...], shuffled: bool, seed: int, epoch: int, width: int
) -> None:
    order = Order(groups, shuffled, seed, epoch, width)
    assert sorted(everything(order)) == list(range(sum(groups)))
    assert len(Walk(order)) == order.rows


@given(GROUPS, st.integers(1, 12), st.integers(1, 9), st.data())
def test_any_part_of_it_is_the_same_wherever_one_begins(
    groups: tuple[int, ...], width: int, size: int, data: st.DataObject
) -> None:
    order = Order(groups, True, 3, 1, width)
    whole = everything(order)
    start = data.draw(st.integers(0, len(whole)))
    parts = [part.tolist() for part in Walk(order).batches(size, start, len(whole))]
    assert [row for part in parts for row in part] == whole[start:]
    assert all(len(part) == size for part in parts[:-1])


def test_without_shuffle_it_is_the_files_order() -> None:
    assert everything(Order((3, 0, 2))) == [0, 1, 2, 3, 4]


def test_seeds_and_epochs_differ_and_repeat() -> None:
    groups = (50,) * 20
    orders = [everything(Order(groups, True, seed, epoch, 4)) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert orders[0] == everything(Order(groups, True, 0, 0, 4))


def test_the_order_never_changes_with_a_new_version() -> None:
    # A run is resumed in the order that it was begun in, also years later: these figures may never change.
    assert drawn(8, 1, 2, 3).tolist() == DRAWN
    assert everything(Order((4, 3, 5, 2), True, 7, 1, 2)) == SLIDING
    assert everything(Order((4, 3, 5, 2), True, 7, 1, 4)) == ONE_SLOT


@given(st.integers(5, 60), st.integers(2, 8))
def test_a_reader_that_holds_width_groups_and_two_decodes_each_group_once_but_for_the_wrap(
    count: int, width: int
) -> None:
    rows = 30
    held: list[int] = []
    decoded = 0
    for row in everything(Order((rows,) * count, True, 1, 0, width)):
        group = row // rows
        if group in held:
            held.remove(group)
        else:
            decoded += 1
            held = held[-(width + 1) :]
        held.append(group)
    assert decoded <= count + width


def test_every_batch_mixes_all_groups_of_the_window_and_rows_stay_within_it() -> None:
    order = Order((100,) * 50, True, 5, 0, 10)
    groups_at = np.asarray(everything(order)) // 100
    for start in range(0, 5000, 100):
        assert len(set(groups_at[start : start + 100])) == 10
    places = np.argwhere(groups_at == groups_at[2500]).ravel()
    assert places.max() - places.min() < 10 * 100


def test_one_slot_is_a_fair_shuffle() -> None:
    # Where does row 0 of 6 land? Chi-square, 5 degrees of freedom; 30 is one in 80,000 by chance; seeds are fixed.
    landed = [everything(Order((3, 3), True, seed, 0, 2)).index(0) for seed in range(600)]
    counts = np.bincount(landed, minlength=6)
    assert ((counts - 100.0) ** 2 / 100.0).sum() < 30


@given(st.integers(0, 10**12), st.integers(0, 10**6), st.integers(1, 10**12))
def test_a_window_is_of_two_groups_at_least_and_fits_where_more_do(total: int, groups: int, window: int) -> None:
    width = width_for(total, groups, window)
    assert 2 <= width <= 256
    if width > 2 and groups:
        assert width * (total // groups) <= window
