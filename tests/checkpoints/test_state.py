"""The random generators of a training process."""

from __future__ import annotations

import random

import numpy
import torch

from outlast.checkpoints import state


def drawn() -> tuple[float, float, float]:
    return random.random(), numpy.random.random(), torch.rand(1).item()


def test_generators_that_were_put_back_draw_the_same_again() -> None:
    taken = state.take_generators()
    first = drawn()
    drawn()
    state.put_generators(taken)
    assert drawn() == first


def test_what_was_taken_does_not_move_with_the_generators() -> None:
    taken = state.take_generators()
    first = drawn()
    for _ in range(2):
        state.put_generators(taken)
        assert drawn() == first


def test_states_of_devices_that_are_not_here_are_left_out() -> None:
    taken = {**state.take_generators(), "cuda": [torch.zeros(16, dtype=torch.uint8)] * 9}
    if not torch.cuda.is_available():
        first = drawn()
        state.put_generators(taken)
        assert drawn() == first
