"""Judging what nobody sealed, by opening it."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import safetensors_bytes

from outlast.checkpoints import inspect, is_candidate
from outlast.checkpoints.layouts import fault_in


def zipped(name: str = "archive/data.pkl") -> bytes:
    """A file as torch.save writes it, as far as its directory goes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, pickle.dumps({}))
        archive.writestr("archive/data/0", bytes(5000))
    return buffer.getvalue()


FILES: dict[str, bytes] = {
    "model.safetensors": safetensors_bytes(),
    "optimizer.pt": zipped(),
    "scheduler.pt": zipped(),
    "rng_state.pth": zipped(),
    "config.json": b"{}",
    "trainer_state.json": b'{"global_step": 40}',
}


def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint-40"
    folder.mkdir()
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    return folder


def test_a_whole_checkpoint_of_the_trainer_is_full(tmp_path: Path) -> None:
    found = inspect(checkpoint(tmp_path))
    assert (found.layout, found.step, found.kind, found.problems) == ("transformers", 40, "full", ())


def test_without_any_training_state_it_holds_weights(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (folder / name).unlink()
    assert inspect(folder).kind == "weights"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda f: (f / "trainer_state.json").unlink(), "trainer_state.json is missing"),
        (lambda f: (f / "trainer_state.json").write_bytes(b""), "trainer_state.json: does not parse"),
        (lambda f: (f / "config.json").write_text('{"a": '), "config.json: does not parse"),
        (lambda f: (f / "model.safetensors").unlink(), "no weights"),
        (lambda f: (f / "model.safetensors").write_bytes(safetensors_bytes()[:-1]), "its header says"),
        (lambda f: (f / "model.safetensors").write_bytes(safetensors_bytes() + b"x"), "its header says"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 100), "does not fit in 100"),
        (lambda f: (f / "model.safetensors").write_bytes(b"abc"), "does not parse"),
        (lambda f: (f / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"[]"), "does not parse"),
        (lambda f: (f / "optimizer.pt").write_bytes(zipped()[:-30]), "zip directory is torn"),
        (lambda f: (f / "optimizer.pt").write_bytes(b""), "neither a zip nor a pickle"),
        (lambda f: (f / "optimizer.pt").write_bytes(zipped("archive/other")), "holds no data.pkl"),
        (lambda f: (f / "optimizer.pt").unlink(), "are not all there"),
        (lambda f: (f / "scheduler.pt").unlink(), "are not all there"),
        (lambda f: (f / "checkpoint-is-incomplete.txt").touch(), "marked incomplete"),
        (lambda f: (f / "model.bin").symlink_to("optimizer.pt"), "is a link"),
    ],
)
def test_what_is_not_whole_is_named(tmp_path: Path, change: Callable[[Path], object], problem: str) -> None:
    folder = checkpoint(tmp_path)
    change(folder)
    found = inspect(folder)
    assert found.kind is None and any(problem in line for line in found.problems), found.problems


def test_a_shard_that_its_index_names_must_be_there(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    shards = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    assert inspect(folder).problems == ("shard model-2.safetensors is missing",)
    (folder / "model-2.safetensors").write_bytes(safetensors_bytes())
    assert inspect(folder).kind == "full"


@pytest.mark.parametrize(
    ("name", "files", "layout", "kind"),
    [
        ("checkpoint_3", ("model.safetensors", "optimizer.bin", "random_states_0.pkl"), "accelerate", "full"),
        ("checkpoint_3", ("model.safetensors", "random_states_0.pkl"), "accelerate", "weights"),
        ("checkpoint_3", ("model.safetensors", "optimizer.bin"), "accelerate", None),
        ("step-7", ("model.safetensors", "optimizer.safetensors", "state.safetensors"), "outlast", "full"),
        ("step-7", ("model.safetensors", "optimizer.safetensors"), "outlast", None),
    ],
)
def test_each_framework_has_its_own_needs(
    tmp_path: Path, name: str, files: tuple[str, ...], layout: str, kind: str | None
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    for file in files:
        (folder / file).write_bytes(safetensors_bytes() if file.endswith(".safetensors") else zipped())
    found = inspect(folder)
    assert (found.layout, found.kind) == (layout, kind)


def test_names_that_tools_take_for_checkpoints_are_known() -> None:
    assert all(map(is_candidate, ["checkpoint-1", "checkpoint-100000", "checkpoint_0", "step-9"]))
    assert not any(map(is_candidate, ["checkpoint-", "checkpoint-best", "checkpoint-1.bak", "x-checkpoint-1", "step-"]))


@given(length=st.integers(0, len(safetensors_bytes()) - 1))
def test_a_safetensors_file_is_never_whole_when_it_is_cut(
    tmp_path_factory: pytest.TempPathFactory, length: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "model.safetensors"
    path.write_bytes(safetensors_bytes()[:length])
    assert fault_in(path) is not None


@given(length=st.integers(0, len(zipped()) - 1))
def test_a_file_of_torch_is_never_whole_when_it_is_cut(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "optimizer.pt"
    path.write_bytes(zipped()[:length])
    assert fault_in(path) is not None


@given(data=st.binary(max_size=300), suffix=st.sampled_from([".safetensors", ".pt", ".json", ".bin", ".ckpt"]))
def test_no_bytes_whatever_make_looking_at_them_fail(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, suffix: str
) -> None:
    path = tmp_path_factory.mktemp("junk") / f"file{suffix}"
    path.write_bytes(data)
    fault = fault_in(path)
    assert fault is None or isinstance(fault, str)


@pytest.mark.parametrize("name", ["notes.txt", "model.gguf"])
def test_a_file_of_a_format_that_is_not_known_is_not_judged(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"anything")
    assert fault_in(tmp_path / name) is None
