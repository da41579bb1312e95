"""A trace through the allocator's model: where its peak is, of what it is made, whether it fits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outlast.budget.replay import Event, Trace, alive_at, counted_peak, replay

MIB = 1 << 20


def take(storage: int, size: int, phase: str = "forward 1") -> Event:
    return Event(storage, size, True, phase, f"op {storage}")


def give(storage: int, size: int) -> Event:
    return Event(storage, size, False, "forward 1", "")


def test_the_peak_is_at_the_event_that_reached_it() -> None:
    found = replay([take(1, 4 * MIB), take(2, 8 * MIB), give(2, 8 * MIB), take(3, 2 * MIB)])
    assert (found.peak_allocated_bytes, found.peak_at) == (12 * MIB, 1)


def test_what_is_alive_at_the_peak_is_split_by_kind() -> None:
    trace = Trace((take(1, 4 * MIB), take(2, 100), take(3, MIB), give(3, MIB), take(4, MIB)), {1: "parameters"})
    assert alive_at(trace, 4) == {"parameters": 4 * MIB, "activations": 512 + MIB}


def test_a_trace_that_does_not_fit_says_which_event_failed() -> None:
    found = replay([take(1, 30 * MIB), take(2, 30 * MIB), take(3, 1)], capacity_bytes=50 * MIB)
    assert found.failed_at == 1


def test_empty_tensors_ask_for_nothing() -> None:
    found = replay([take(1, 0), give(1, 0)])
    assert (found.peak_reserved_bytes, found.peak_at) == (0, None)


def test_an_empty_trace_has_no_peak() -> None:
    assert replay([]).peak_at is None
    assert counted_peak([]) == 0


@given(st.lists(st.integers(1, 40 * MIB), min_size=1, max_size=30))
def test_rounding_never_makes_less_than_what_was_counted(sizes: list[int]) -> None:
    events = [take(number, size) for number, size in enumerate(sizes)]
    found = replay(events)
    assert counted_peak(events) <= found.peak_allocated_bytes <= found.peak_reserved_bytes
    assert replay(events, found.peak_reserved_bytes).failed_at is None
