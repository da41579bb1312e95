"""What fake tensors know of their data: computed beside them where it follows from known data, else a safe answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from outlast.budget.trace import Recorder
from outlast.budget.values import MOST, Values


@contextmanager
def without_data() -> Iterator[Callable[[torch.Tensor], torch.Tensor]]:
    """A way to make a fake tensor whose data are known."""
    recorder, values = Recorder(), Values()
    recorder.values = values
    with FakeTensorMode() as mode, recorder:

        def known(real: torch.Tensor) -> torch.Tensor:
            fake = mode.from_tensor(real)
            values.learn(fake, real)
            return fake

        yield known


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=4))
def test_what_follows_from_known_data_is_known(rows: list[list[bool]]) -> None:
    real = torch.tensor(rows)
    trues = sum(sum(row) for row in rows)
    with without_data() as known:
        mask = known(real)
        assert bool(mask.all()) == (trues == 3 * len(rows))
        assert int(mask.sum()) == trues
        assert (mask.long().cumsum(-1)[:, -1] == 3).sum().item() == sum(all(row) for row in rows)
        assert len(mask.nonzero()) == trues
        assert torch.zeros(len(rows))[mask[:, 0]].shape == (sum(row[0] for row in rows),)


def test_views_share_what_is_written_into_them() -> None:
    real = torch.tensor([1, 2, 3])
    with without_data() as known:
        numbers = known(real)
        numbers[1:].fill_(7)
        assert numbers.sum().item() == 15


def test_after_something_unknown_was_written_nothing_is_claimed() -> None:
    real = torch.tensor([True, True])
    with without_data() as known:
        numbers = known(real)
        view = numbers[:1]
        numbers.copy_(torch.empty(2) > 0)
        assert numbers.all().item() is False
        assert view.all().item() is False


@pytest.mark.parametrize(
    ("make", "answer"),
    [
        (lambda: torch.empty(()), 1.0),
        (lambda: torch.empty(2).max() > 0, False),
        (lambda: torch.empty((), dtype=torch.int64), 1),
        (lambda: torch.randint(5, (3,)).max(), 1),
    ],
)
def test_what_nobody_knows_has_a_safe_answer(make: Callable[[], torch.Tensor], answer: object) -> None:
    with without_data():
        assert make().item() == answer


def test_a_count_that_nobody_knows_is_as_large_as_it_can_be() -> None:
    with without_data():
        x = torch.empty(4, 3)
        assert (x > 0).nonzero().shape == (12, 2)
        assert x.masked_select(x > 0).shape == (12,)
        assert x[x[:, 0] > 0].shape == (4, 3)


def test_random_numbers_are_not_drawn() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with without_data():
        torch.randint(5, (3,))
        torch.randperm(4)
    assert torch.equal(torch.get_rng_state(), before)


def test_large_tensors_are_not_followed() -> None:
    real = torch.ones(MOST + 1, dtype=torch.bool)
    with without_data() as known:
        assert known(real).all().item() is False
