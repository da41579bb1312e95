"""Numbers as people and files say them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.errors import BadInput
from outlast.host.numbers import COUNT, NOT_NEGATIVE, POSITIVE, WHOLE, Number, shown

ANYTHING: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.just(16**5000), st.just(-(16**5000)),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    st.sampled_from(["nan", "inf", "-1", "1e400", "1e-400", "7"]),
)  # fmt: skip
KINDS = [COUNT, WHOLE, POSITIVE, NOT_NEGATIVE, Number("a limit", -1e20, is_whole=True, floor=0)]


@pytest.mark.parametrize("kind", KINDS)
@given(value=ANYTHING)
def test_what_is_read_is_finite_and_in_range_and_all_else_is_bad_input(kind: Number, value: Any) -> None:
    try:
        number = kind.given("--it", value)
    except BadInput as error:
        assert error.message.startswith("--it is ") and len(error.message) < 400
        return
    assert math.isfinite(number) and kind.least <= number <= kind.most
    assert isinstance(number, int if kind.is_whole else float) and not isinstance(value, bool)
    # Beyond 2^53 a float is another number than the whole one that was said.
    said = value if kind.is_whole and isinstance(value, int) else float(value)
    assert number == max(said, kind.floor if kind.floor is not None else -math.inf)


@given(st.integers(1, 10**20))
def test_a_count_is_itself_however_it_is_written(number: int) -> None:
    assert COUNT.read(number) == number
    assert COUNT.read(str(number)) == float(number)


@pytest.mark.parametrize(
    ("value", "text"),
    [({"a": 1}, "a mapping"), ([1], "a list"), (16**5000, "a number of 20,001 bits"), (-3.0, "-3.0"), ("x", "'x'"),
     ("a\ud800b", "'a\\ud800b'")],
    ids=shown,
)  # fmt: skip
def test_a_value_is_shown_shortly(value: Any, text: str) -> None:
    assert shown(value) == text
    assert len(shown("y" * 10**6)) < 300
