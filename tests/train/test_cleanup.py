"""When the GPU's cache is emptied: made-up figures of the allocator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch
from hypothesis import given
from hypothesis import strategies as st

import outlast
from outlast.train.cleanup import EVERY_STEPS, CacheReading, Cleanup, Past, decide, reading

GB = 10**9
FINE = CacheReading(10 * GB, 6 * GB, GB // 10, 0, 5 * GB, 16 * GB)
FULL = CacheReading(15 * GB, 6 * GB, 4 * GB, 0, GB, 16 * GB)
"""Nearly full, a quarter of it rests."""


class Gpu:
    """An allocator that the test sets."""

    def __init__(self, now: CacheReading | None) -> None:
        self.now, self.emptied, self.looks = now, [], 0
        self.told: list[dict[str, object]] = []
        self.step = 0
        self.cleanup = Cleanup(self.tell, read=self.read, empty=self.empty)

    def read(self) -> CacheReading | None:
        self.looks += 1
        return self.now

    def empty(self) -> None:
        assert self.now is not None
        self.emptied.append(self.step)
        self.now = replace(self.now, reserved_bytes=self.now.allocated_bytes + self.now.split_bytes)

    def tell(self, event: str, **facts: object) -> None:
        self.told.append({"event": event, **facts})

    def go(self, steps: int, **after: int) -> None:
        for _ in range(steps):
            self.step += 1
            self.cleanup.after_step(self.step)
            if after and self.now is not None:
                self.now = replace(self.now, **after)


def test_nothing_is_emptied_while_nothing_is_wrong() -> None:
    gpu = Gpu(FINE)
    gpu.go(10_000)
    assert gpu.emptied == [] and gpu.told == []


def test_without_a_gpu_nothing_happens() -> None:
    gpu = Gpu(None)
    gpu.go(1000)
    assert gpu.emptied == [] and gpu.looks <= 1000 // EVERY_STEPS + 1


def test_it_is_looked_at_every_64_steps_only() -> None:
    gpu = Gpu(FINE)
    gpu.go(6400)
    assert gpu.looks == 100


def test_rests_on_a_nearly_full_gpu_are_a_reason_and_both_figures_are_journaled() -> None:
    gpu = Gpu(FULL)
    gpu.go(1)
    (told,) = gpu.told
    assert told["event"] == "cache_emptied" and told["why"] == "26 % of what torch holds is rests of blocks"
    assert (told["step"], told["before_bytes"], told["after_bytes"]) == (1, 15 * GB, 10 * GB)


def test_rests_on_a_gpu_with_room_are_none() -> None:
    assert decide(replace(FULL, free_bytes=4 * GB), 1, Past())[0] == ""


def test_allocations_that_had_to_be_tried_again_are_a_reason() -> None:
    _, past = decide(FINE, 1, Past())
    why, past = decide(replace(FINE, retries=3), 65, past)
    assert why == "3 allocations had to be tried again"
    assert past.emptied_at == 65
    assert decide(replace(FINE, retries=3), 2000, past)[0] == "", "no new ones since"


def test_retries_from_before_the_first_look_are_no_news() -> None:
    assert decide(replace(FINE, retries=9), 1, Past())[0] == ""


def test_where_nothing_whole_can_be_given_back_it_is_not_done() -> None:
    assert decide(replace(FULL, split_bytes=9 * GB - 1), 1, Past())[0] == ""
    assert decide(replace(FINE, allocated_bytes=10 * GB, retries=5), 65, Past(retries=0))[0] == ""


def test_what_does_not_help_for_long_is_done_less_and_less_often() -> None:
    gpu = Gpu(FULL)
    gpu.go(20_000, reserved_bytes=FULL.reserved_bytes)
    gaps = [later - one for one, later in zip(gpu.emptied, gpu.emptied[1:], strict=False)]
    assert gaps[0] >= 256 and all(later > one for one, later in zip(gaps, gaps[1:], strict=False))
    assert len(gpu.emptied) <= 8


@given(
    st.lists(
        st.builds(
            CacheReading, st.integers(0, 16 * GB), st.integers(0, 16 * GB), st.integers(0, 16 * GB),
            st.integers(0, 100), st.integers(0, 16 * GB), st.just(16 * GB),
        ),
        min_size=1, max_size=60,
    )
)  # fmt: skip
def test_whatever_the_figures_two_emptyings_are_256_steps_apart(figures: list[CacheReading]) -> None:
    past, emptied = Past(), []
    for number, now in enumerate(figures):
        why, past = decide(now, EVERY_STEPS * number, past)
        if why:
            emptied.append(EVERY_STEPS * number)
    assert all(later - one >= 256 for one, later in zip(emptied, emptied[1:], strict=False))


def test_a_run_looks_once_in_its_first_steps(tmp_path: Path) -> None:
    gpu = Gpu(FULL)
    run = outlast.Run(tmp_path, model=torch.nn.Linear(2, 2))
    run._cleanup = gpu.cleanup
    for _ in run.steps([torch.ones(1)] * 10):
        pass
    assert gpu.looks == 2 and gpu.told[0]["step"] == 1, "before and after the one emptying"


def test_the_figures_are_torchs_own_and_none_before_a_gpu_is_used() -> None:
    stats = {"reserved_bytes.all.current": 5, "allocated_bytes.all.current": 3, "inactive_split_bytes.all.current": 1,
             "num_alloc_retries": 2}  # fmt: skip
    cuda = SimpleNamespace(is_initialized=lambda: True, memory_stats=lambda: stats, mem_get_info=lambda: (7, 9))
    assert reading(SimpleNamespace(cuda=cuda)) == CacheReading(5, 3, 1, 2, 7, 9)
    cuda.is_initialized = lambda: False
    assert reading(SimpleNamespace(cuda=cuda)) is None
