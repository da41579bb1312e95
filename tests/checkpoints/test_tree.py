"""Nested data as JSON and tensors, and back."""

from __future__ import annotations

import json
import math
import random
import struct
from collections import OrderedDict
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from outlast.checkpoints import tree
from outlast.errors import BadInput

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool, torch.complex64]
TENSORS = st.builds(
    lambda dtype, shape: torch.arange(math.prod(shape)).reshape(shape).to(dtype),
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
)
ARRAYS = st.builds(
    lambda dtype, shape: numpy.arange(math.prod(shape)).reshape(shape).astype(dtype),
    st.sampled_from(["f4", "f8", "i8", "u4", "u8", "u1", "?", "f2"]),
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary()
    | TENSORS
    | ARRAYS
    | st.sampled_from([numpy.float64(0.1), numpy.int64(-3), numpy.uint32(7), numpy.bool_(True)])
)
KEYS = st.text() | st.integers() | st.booleans() | st.none() | st.tuples(st.integers(), st.text()) | st.just("!")
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(KEYS, inner), max_leaves=12
)


def through_a_file(value: Any) -> Any:
    """Encoded, through JSON text as in a file, and decoded."""
    doc, tensors = tree.encode(value)
    return tree.decode(json.loads(json.dumps(doc)), tensors)


def is_same(one: Any, other: Any) -> bool:
    """Equal in type, shape and every bit."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and one.shape == other.shape and bool((one == other).all())
    if isinstance(one, numpy.ndarray | numpy.generic):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, float):
        return struct.pack("<d", one) == struct.pack("<d", other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, dict):
        return list(map(repr, one)) == list(map(repr, other)) and all(map(is_same, one.values(), other.values()))
    return bool(one == other)


@given(VALUES)
def test_what_is_encoded_comes_back_the_same_in_type_shape_and_every_bit(value: Any) -> None:
    assert is_same(through_a_file(value), value)


@given(st.integers(0, 2**64 - 1))
def test_a_float_comes_back_with_every_bit_whatever_they_are(bits: int) -> None:
    value = struct.unpack("<d", struct.pack("<Q", bits))[0]
    assert struct.pack("<d", through_a_file(value)) == struct.pack("<d", value)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, -math.nan, -0.0, 5e-324, 0.1])
def test_the_odd_floats_come_back(value: float) -> None:
    assert is_same(through_a_file([value])[0], value)


def test_the_state_of_every_generator_comes_back() -> None:
    states = {
        "python": random.getstate(),
        "numpy": numpy.random.get_state(),
        "new numpy": numpy.random.default_rng(3).bit_generator.state,
        "torch": torch.get_rng_state(),
    }
    back = through_a_file(states)
    expected = random.random(), numpy.random.random(), torch.rand(1)
    random.setstate(back["python"])
    numpy.random.set_state(back["numpy"])
    torch.set_rng_state(back["torch"])
    assert (random.random(), numpy.random.random(), torch.rand(1)) == expected
    generator = numpy.random.default_rng()
    generator.bit_generator.state = back["new numpy"]
    assert generator.random() == numpy.random.default_rng(3).random()


def test_the_state_of_an_optimizer_comes_back_with_its_numbers_as_keys() -> None:
    parameter = torch.nn.Parameter(torch.ones(2, 3))
    optimizer = torch.optim.AdamW([parameter])
    parameter.grad = torch.ones(2, 3)
    optimizer.step()
    assert is_same(through_a_file(optimizer.state_dict()), optimizer.state_dict())


def test_a_tensor_on_the_graph_comes_back_without_it() -> None:
    leaf = torch.ones(2, requires_grad=True)
    back = through_a_file({"parameter": torch.nn.Parameter(torch.ones(2)), "result": leaf * 2})
    assert not back["parameter"].requires_grad and not back["result"].requires_grad


def test_an_ordered_mapping_keeps_its_order() -> None:
    assert list(through_a_file(OrderedDict(b=1, a=2))) == ["b", "a"]


def test_an_array_that_is_a_view_comes_back_as_it_looks() -> None:
    array = numpy.arange(12).reshape(3, 4)[:, ::2]
    assert is_same(through_a_file(array), numpy.ascontiguousarray(array))


def test_an_array_that_may_not_be_written_to_is_taken_all_the_same() -> None:
    array = numpy.arange(3)
    array.flags.writeable = False
    assert through_a_file(array).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        lambda: None,
        numpy.array([object()]),
        numpy.str_("text"),
        numpy.datetime64("2026-01-01"),
        numpy.array([1 + 2j]),
        1j,
        range(3),
    ],
    ids=["object", "set", "function", "array of objects", "numpy text", "numpy time", "complex128", "complex", "range"],
)
def test_what_has_no_safe_form_is_refused_and_its_place_named(value: Any) -> None:
    with pytest.raises(BadInput, match=r"state\['scheduler'\]\[1\] is a"):
        tree.encode({"scheduler": [0, value]})


def test_an_object_as_a_key_is_refused_too() -> None:
    with pytest.raises(BadInput, match="key is a"):
        tree.encode({frozenset(): 1})


def test_a_mark_of_a_newer_outlast_is_refused_and_not_guessed_at() -> None:
    with pytest.raises(BadInput, match="unknown mark 'graph'"):
        tree.decode({"a": {"!": "graph"}}, {})


def test_nothing_in_a_saved_state_runs_when_it_is_read() -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (pytest.fail, ("it ran",))

    with pytest.raises(BadInput):
        tree.encode(Trap())
