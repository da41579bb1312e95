"""The model of CUDA's caching allocator: its rules one by one, and what holds for any order of requests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.budget import allocator
from outlast.budget.allocator import CachingAllocator, rounded, segment_bytes

MIB = 1 << 20

# A program: sizes to allocate, and between them numbers that say which of the living blocks goes.
sizes = st.one_of(
    st.integers(1, 4 * MIB), st.sampled_from([1, 512, 513, MIB, MIB + 1, 10 * MIB - 512, 10 * MIB, 33 * MIB])
)
programs = st.lists(st.one_of(sizes.map(lambda size: ("take", size)), st.integers(0, 99).map(lambda n: ("give", n))))


def run(program: list[tuple[str, int]], capacity: int | None = None) -> tuple[CachingAllocator, list[int]]:
    held = CachingAllocator(capacity)
    alive: list[int] = []
    for what, number in program:
        if what == "take":
            address = held.allocate(number)
            if address is not None:
                alive.append(address)
        elif alive:
            held.free(alive.pop(number % len(alive)))
    return held, alive


@pytest.mark.parametrize(
    ("asked", "block"), [(1, 512), (512, 512), (513, 1024), (MIB, MIB), (MIB + 1, MIB + 512), (10 * MIB, 10 * MIB)]
)
def test_a_request_is_rounded_up_to_512_bytes(asked: int, block: int) -> None:
    assert rounded(asked) == block


@pytest.mark.parametrize(
    ("block", "segment"),
    [
        (512, 2 * MIB),
        (MIB, 2 * MIB),
        (MIB + 512, 20 * MIB),
        (10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB),
        (10 * MIB + 512, 12 * MIB),
        (33 * MIB, 34 * MIB),
    ],
)
def test_a_segment_has_the_size_that_torch_asks_the_driver_for(block: int, segment: int) -> None:
    assert segment_bytes(block) == segment
    held = CachingAllocator()
    held.allocate(block)
    assert held.reserved_bytes == segment


def test_the_figures_are_those_of_the_header_that_torch_ships() -> None:
    torch = pytest.importorskip("torch")
    header = Path(torch.__file__).parent / "include/c10/core/AllocatorConfig.h"
    if not header.exists():
        pytest.skip("this torch ships no such header")
    found = dict(re.findall(r"constexpr size_t (k\w+) = (\d+);", header.read_text()))
    ours = {
        "kMinBlockSize": allocator.MIN_BLOCK,
        "kSmallSize": allocator.SMALL_SIZE,
        "kSmallBuffer": allocator.SMALL_SEGMENT,
        "kMinLargeAlloc": allocator.MIN_OWN_SEGMENT,
        "kRoundLarge": allocator.ROUND_LARGE,
    }
    assert {name: int(found[name]) for name in ours} == ours


def test_the_smallest_free_block_that_fits_is_taken() -> None:
    held = CachingAllocator()
    big, small = held.allocate(40 * MIB), held.allocate(30 * MIB)
    assert big is not None and small is not None
    held.free(big)
    held.free(small)
    assert held.allocate(29 * MIB + MIB // 2) == small
    assert held.reserved_bytes == 70 * MIB


def test_a_large_block_is_split_only_when_more_than_a_mib_remains() -> None:
    held = CachingAllocator()
    address = held.allocate(12 * MIB)
    assert address is not None
    held.free(address)
    whole = held.allocate(11 * MIB)  # exactly 1 MiB would remain
    assert whole is not None
    assert held.size_at(whole) == 12 * MIB
    held.free(whole)
    part = held.allocate(11 * MIB - 512)
    assert part is not None
    assert held.size_at(part) == 11 * MIB - 512


def test_small_and_large_requests_do_not_share_segments() -> None:
    held = CachingAllocator()
    address = held.allocate(5 * MIB)
    assert address is not None
    held.free(address)
    held.allocate(512)
    assert held.reserved_bytes == 22 * MIB


def test_free_segments_are_given_back_before_it_fails() -> None:
    held = CachingAllocator(capacity_bytes=50 * MIB)
    address = held.allocate(30 * MIB)
    assert address is not None
    held.free(address)
    assert held.allocate(40 * MIB) is not None
    assert (held.reserved_bytes, held.emptied) == (40 * MIB, 1)


def test_what_does_not_fit_is_refused_and_changes_nothing_in_use() -> None:
    held = CachingAllocator(capacity_bytes=50 * MIB)
    held.allocate(30 * MIB)
    assert held.allocate(30 * MIB) is None
    assert (held.allocated_bytes, held.reserved_bytes) == (30 * MIB, 30 * MIB)


@given(programs)
def test_blocks_in_use_never_overlap(program: list[tuple[str, int]]) -> None:
    held, alive = run(program)
    blocks = held.blocks()
    assert [address for address, _ in blocks] == sorted(alive)
    for (address, size), (following, _) in zip(blocks, blocks[1:], strict=False):
        assert address + size <= following


@given(programs)
def test_reserved_is_never_less_than_allocated_and_peaks_are_never_less_than_now(
    program: list[tuple[str, int]],
) -> None:
    held, _ = run(program)
    assert held.allocated_bytes == sum(size for _, size in held.blocks())
    assert held.allocated_bytes <= held.reserved_bytes <= held.peak_reserved_bytes
    assert held.allocated_bytes <= held.peak_allocated_bytes <= held.peak_reserved_bytes


@given(programs)
def test_freed_blocks_merge_until_every_segment_is_whole_again(program: list[tuple[str, int]]) -> None:
    held, alive = run(program)
    for address in alive:
        held.free(address)
    assert held.allocated_bytes == 0
    held.empty()
    assert held.reserved_bytes == 0


@given(programs, st.integers(2 * MIB, 80 * MIB))
def test_it_never_holds_more_than_its_capacity(program: list[tuple[str, int]], capacity: int) -> None:
    held, _ = run(program, capacity)
    assert held.peak_reserved_bytes <= capacity


@given(programs)
def test_the_same_requests_end_in_the_same_place(program: list[tuple[str, int]]) -> None:
    first, second = run(program)[0], run(program)[0]
    assert first.blocks() == second.blocks()
    assert first.peak_reserved_bytes == second.peak_reserved_bytes
