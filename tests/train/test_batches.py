"""A batch as it comes from a loader: how many samples it holds, and some of them."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from typing import Any

import numpy
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import BatchEncoding

from outlast.errors import BadInput
from outlast.train import batches
from outlast.train.batches import Measure, cut, measure

Pair = namedtuple("Pair", "x y")


@dataclass(frozen=True)
class Sample:
    x: torch.Tensor
    name: str = "whole"
    weights: torch.Tensor | None = None


def rows(samples: int, *shape: int) -> torch.Tensor:
    return torch.arange(samples * torch.Size(shape).numel()).reshape(samples, *shape)


FORMS = {
    "tensor": lambda n: rows(n, 2),
    "array": lambda n: numpy.arange(3 * n).reshape(n, 3),
    "dict": lambda n: {"x": rows(n, 2), "y": rows(n), "scale": torch.tensor(2.0), "task": "a", "none": None},
    "encoding": lambda n: BatchEncoding({"input_ids": rows(n, 4), "labels": rows(n, 4)}),
    "ordered": lambda n: OrderedDict(x=rows(n, 2)),
    "tuple": lambda n: (rows(n, 3), rows(n)),
    "list": lambda n: [rows(n, 3)],
    "named": lambda n: Pair(rows(n, 3), rows(n)),
    "dataclass": lambda n: Sample(rows(n, 3)),
    "nested": lambda n: {"in": {"a": (rows(n), rows(n, 2)), "b": rows(n)}, "out": Sample(rows(n))},
    "texts": lambda n: {"x": rows(n, 2), "text": [f"text {number}" for number in range(n)]},
    "boxes": lambda n: (rows(n, 3, 8, 8), [{"boxes": torch.zeros(number, 4)} for number in range(n)]),
}


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, Sample):
        return _leaves([value.x, value.name, value.weights])
    if hasattr(value, "values") and not hasattr(value, "shape"):
        return [leaf for part in value.values() for leaf in _leaves(part)]
    if isinstance(value, list | tuple):
        return [leaf for part in value for leaf in _leaves(part)]
    return [value.tolist() if hasattr(value, "tolist") else value]


@pytest.mark.parametrize("form", FORMS)
def test_pieces_are_of_the_batches_form_and_hold_their_samples(form: str) -> None:
    whole = FORMS[form](7)
    assert measure(whole).samples == 7
    piece = cut(whole, 0, 5, 7)
    assert type(piece) is type(whole)
    assert _leaves(piece) == _leaves(FORMS[form](5)), "the first five rows of seven are those of a batch of five"


@given(st.integers(1, 9), st.integers(0, 9), st.integers(0, 9), st.sampled_from(["tensor", "dict", "nested"]))
def test_pieces_put_together_are_the_batch(samples: int, first: int, second: int, form: str) -> None:
    assume(samples != 2 or form != "nested")  # two entries for two samples: could be one or the other
    batch = FORMS[form](samples)
    cuts = sorted({0, min(first, samples), min(second, samples), samples})
    pieces = [cut(batch, a, b, samples) for a, b in zip(cuts, cuts[1:], strict=False)]
    for tensors in zip(_tensors(batch), *map(_tensors, pieces), strict=True):
        if tensors[0].ndim:
            assert torch.equal(tensors[0], torch.cat(tensors[1:]))


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else [value.x] if isinstance(value, Sample) else value
    return [tensor for part in parts if not isinstance(part, str | None) for tensor in _tensors(part)]


def test_tensors_of_a_piece_are_views_and_cost_no_memory() -> None:
    batch = {"x": rows(8, 100)}
    assert cut(batch, 4, 8, 8)["x"].untyped_storage().data_ptr() == batch["x"].untyped_storage().data_ptr()


def test_the_batch_itself_is_left_as_it_was() -> None:
    batch = BatchEncoding({"x": rows(4, 2)})
    cut(batch, 0, 1, 4)["x"] += 0
    assert batch["x"].shape == (4, 2)


def test_the_width_is_what_one_sample_has_in_all_tensors() -> None:
    assert measure({"ids": rows(4, 10), "mask": rows(4, 10), "y": rows(4)}) == Measure(4, 21)


REFUSED = {
    "no common dimension": {"x": rows(8, 2), "weights": rows(10)},
    "a packed batch": {"input_ids": rows(1, 64), "cu_seq_lens_q": rows(9), "cu_seq_lens_k": rows(9)},
    "patches": {"input_ids": rows(2, 9), "pixel_values": rows(4096, 8), "grid": rows(2, 3)},
    "no tensor": {"text": ["a", "b"]},
    "nothing": None,
    "only numbers without dimension": {"x": torch.tensor(1.0)},
    "uncollated": ([rows(3, 8, 8)] * 8, [{"boxes": rows(2, 4)}] * 8),
    "packed by torch": torch.nn.utils.rnn.pack_sequence([rows(3), rows(3), rows(2)]),
    "an object": object(),
}


@pytest.mark.parametrize("batch", REFUSED.values(), ids=list(REFUSED))
def test_what_could_be_cut_wrongly_is_refused_with_the_way_out(batch: Any) -> None:
    with pytest.raises(BadInput, match="this batch cannot be split") as caught:
        measure(batch)
    assert "split=lambda batch, start, stop" in caught.value.hint


@pytest.mark.parametrize(
    "batch",
    [{"x": rows(2, 5), "pair": [rows(2, 3), rows(2, 3)]}, {"x": rows(4, 5), "more": [1.5, rows(3)]},
     {"x": rows(4, 5), "graph": object()}, (rows(4), {1, 2})],
    ids=["a list of two for two samples", "a list of three", "a graph", "a set"],
)  # fmt: skip
def test_a_part_that_could_be_one_or_the_other_is_refused_before_it_is_cut(batch: Any) -> None:
    samples = measure(batch).samples
    with pytest.raises(BadInput, match="this batch cannot be split: batch"):
        cut(batch, 0, 1, samples)


def test_a_list_of_uncollated_samples_is_told_by_the_loaders_batch_size() -> None:
    batch = [rows(128) for _ in range(8)]
    with pytest.raises(BadInput, match="have 128 rows, the loader's batches have 8 samples"):
        measure(batch, at_most=8)


def test_labels_that_count_are_counted() -> None:
    labels = torch.tensor([[5, 6, -100], [-100, 7, 8]])
    assert batches.tokens({"labels": labels}, shifted=False) == 4
    assert batches.tokens({"labels": labels}, shifted=True) == 3
    assert batches.tokens({"labels": labels, "shift_labels": labels[:, :1]}, shifted=True) == 1
    assert batches.tokens(BatchEncoding({"labels": labels}), shifted=False) == 4


def test_a_batch_without_labels_is_told_apart() -> None:
    with pytest.raises(BadInput, match="no labels to count in tuple"):
        batches.tokens((rows(2), rows(2)), shifted=False)
