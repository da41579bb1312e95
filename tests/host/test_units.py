"""Sizes and durations as people write and read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.errors import BadInput
from outlast.host import parse_bytes, show_bytes, show_seconds


@given(st.integers(1, 10**15))
def test_a_size_that_was_shown_reads_back_as_nearly_the_same_number(size: int) -> None:
    # One decimal of at least 1.0 units: half a unit of the last place is at most 5 %.
    assert parse_bytes(show_bytes(size)) == pytest.approx(size, rel=0.05)


@given(st.integers(1, 10**12))
def test_a_plain_number_is_bytes(size: int) -> None:
    assert parse_bytes(str(size)) == size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("45MB", 45 * 10**6),
        ("45 MB", 45 * 10**6),
        ("45m", 45 * 10**6),
        ("45MiB", 45 * 2**20),
        ("1.5GB", 1_500_000_000),
        ("2gib", 2 * 2**30),
        ("3kB", 3000),
        ("1TB", 10**12),
        (" 7 ", 7),
        ("7b", 7),
    ],
)
def test_decimal_and_binary_units_are_told_apart_in_any_case(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "0", "0MB", "-5MB", "MB", "5XB", "5MBB", "five", "1e3", "1.MB", "0.4"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadInput, match="such as 45MB") as caught:
        parse_bytes(text)
    assert "MiB is 2^20" in caught.value.hint


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, "unknown"), (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (13_470_000, "13.5 MB"), (10**15, "1000.0 TB")],
)
def test_sizes_are_shown_in_decimal_units(size: int | None, text: str) -> None:
    assert show_bytes(size) == text


@given(st.integers(0, 10**15))
def test_no_unit_is_shown_with_four_digits_before_the_point(size: int) -> None:
    number, unit = show_bytes(size).split()
    assert float(number) < 1000 or unit == "TB"


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "unknown"), (0.44, "0.4 s"), (119, "119.0 s"), (720, "12 min"), (12600, "3.5 h")]
)
def test_durations_are_shown_in_the_unit_that_people_would_use(seconds: float | None, text: str) -> None:
    assert show_seconds(seconds) == text
