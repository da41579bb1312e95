"""Our own safetensors writer writes what the library writes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from outlast.checkpoints import ReservedFile
from outlast.checkpoints.tensors import dtype_name, write_torch

DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.int16,
    torch.uint16,
    torch.float16,
    torch.bfloat16,
    torch.int32,
    torch.uint32,
    torch.float32,
    torch.int64,
    torch.uint64,
    torch.float64,
    torch.complex64,
]


def tensor(dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    data = torch.arange(math.prod(shape) * dtype.itemsize) % 2
    return data.to(torch.uint8).view(dtype).reshape(shape) if len(data) else torch.empty(shape, dtype=dtype)


TENSORS = st.dictionaries(
    st.text(st.characters(blacklist_categories=["Cs"]), max_size=8).filter(lambda name: name != "__metadata__"),
    st.builds(tensor, st.sampled_from(DTYPES), st.lists(st.integers(0, 4), max_size=3).map(tuple)),
    max_size=6,
)


def ours(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> bytes:
    with ReservedFile(path) as file:
        write_torch(file, tensors, metadata)
    return path.read_bytes()


@given(TENSORS, st.none() | st.builds(lambda key, value: {key: value}, st.text('ab\n"é'), st.text('ab\n"é')))
def test_the_bytes_are_those_that_the_library_writes(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None
) -> None:
    folder = tmp_path_factory.mktemp("tensors")
    save_file(tensors, folder / "theirs", metadata)
    assert ours(folder / "ours", tensors, metadata) == (folder / "theirs").read_bytes()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_library_reads_back_what_we_wrote(tmp_path: Path, dtype: torch.dtype) -> None:
    given = {"matrix": tensor(dtype, (2, 3)), "scalar": tensor(dtype, ()), "empty": tensor(dtype, (0, 4))}
    ours(tmp_path / "file", given)
    back = load_file(tmp_path / "file")
    assert back.keys() == given.keys()
    for name, value in given.items():
        assert (back[name].dtype, back[name].shape) == (dtype, value.shape)
        assert back[name].view(torch.uint8).tolist() == value.view(torch.uint8).tolist() if value.dim() else True


def test_a_view_is_written_as_it_looks(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    ours(tmp_path / "file", {"turned": base.T, "column": base[:, 1], "parameter": torch.nn.Parameter(base)})
    back = load_file(tmp_path / "file")
    assert torch.equal(back["turned"], base.T) and torch.equal(back["column"], base[:, 1])
    assert torch.equal(back["parameter"], base)


def test_a_dtype_that_the_format_does_not_have_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="odd has dtype torch.complex128"), ReservedFile(tmp_path / "file") as file:
        write_torch(file, {"odd": torch.zeros(2, dtype=torch.complex128)})


def test_a_dtype_is_known_by_torchs_name_and_by_the_formats_own() -> None:
    assert dtype_name("torch.float32") == dtype_name("float32") == dtype_name("F32") == "F32"
    assert dtype_name("float128") is None
