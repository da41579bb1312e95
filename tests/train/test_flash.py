"""FlashAttention's package: not there, there, or broken in the ways in which it breaks."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.train import fake_flash
from tests.train.fake_flash import installed

from outlast.budget import FLASH_PACKAGES, Attention, Package, choose_backend
from outlast.train.flash import function_of, look

FLASH_3, FLASH_2 = FLASH_PACKAGES
CALL = Attention("float32", 4, 8, 8, False, False, True, False, True)
CPU = torch.device("cpu")


def test_a_torch_without_it_is_said_to_be_without_it() -> None:
    assert look(FLASH_2) == Package(None, "flash-attn is not installed")
    assert look(FLASH_3) == Package(None, "flash-attn-3 is not installed")


def test_one_that_can_be_imported_has_a_version_and_no_problem(tmp_path: Path) -> None:
    with installed(tmp_path, fake_flash.COMPUTES):
        assert look(FLASH_2) == Package("2.8.3", None)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (fake_flash.MISSING_SYMBOL, "ImportError: flash_attn_2_cuda.cpython-311-x86_64-linux-gnu.so: undefined symbol"),
        (fake_flash.MISSING_LIBRARY, "OSError: libcudart.so.11.0: cannot open shared object file"),
        (fake_flash.NEEDS_ANOTHER, "ModuleNotFoundError: No module named 'einops_that_is_not_here'"),
        (fake_flash.LEAVES, "SystemExit: 3"),
        (fake_flash.HAS_NOTHING, "AttributeError: module 'flash_attn' has no attribute 'flash_attn_func'"),
    ],
)
def test_one_that_raises_on_import_is_a_reason_and_leaves_nothing_behind(tmp_path: Path, code: str, words: str) -> None:
    with installed(tmp_path, code):
        found = look(FLASH_2)
        assert found.version == "2.8.3"
        assert found.problem is not None
        assert found.problem.startswith(f"flash-attn 2.8.3 cannot be imported: {words}")
        assert "\n" not in found.problem
        assert not [name for name in sys.modules if name.startswith("flash_attn")]
        choice = choose_backend(replace(CALL, dtype="bfloat16"), (8, 0), {FLASH_2.name: found})
    assert choice.name == "sdpa"
    assert words in str(choice)


def test_what_it_brought_in_that_is_not_its_own_stays(tmp_path: Path) -> None:
    (tmp_path / "bystander_of_flash.py").write_text("")
    try:
        with installed(tmp_path / "site", "import bystander_of_flash\nraise ImportError('no')"):
            sys.path.insert(0, str(tmp_path))
            try:
                look(FLASH_2)
            finally:
                sys.path.remove(str(tmp_path))
        assert "bystander_of_flash" in sys.modules
    finally:
        sys.modules.pop("bystander_of_flash", None)


def test_a_module_that_is_forbidden_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    assert look(FLASH_2) == Package(None, "flash-attn is not installed")


def test_warnings_of_its_import_are_not_errors_here(tmp_path: Path) -> None:
    with installed(tmp_path, fake_flash.WARNS):
        assert look(FLASH_2).problem is None


def test_one_without_a_version_is_not_taken(tmp_path: Path) -> None:
    with installed(tmp_path, fake_flash.COMPUTES, version=None):
        found = look(FLASH_2)
    choice = choose_backend(replace(CALL, dtype="bfloat16"), (8, 0), {FLASH_2.name: found})
    assert (choice.name, dict(choice.tried)["flash_attention_2"]) == (
        "sdpa", "flash_attn is there, but pip knows no flash-attn: its version cannot be told",
    )  # fmt: skip


def test_one_whose_kernels_are_not_for_this_gpu_is_found_out_by_a_try(tmp_path: Path) -> None:
    with installed(tmp_path, fake_flash.NO_KERNEL):
        assert look(FLASH_2).problem is None
        assert look(FLASH_2, CALL, CPU).problem == (
            "flash-attn 2.8.3 fails on this GPU: RuntimeError: "
            "CUDA error: no kernel image is available for execution on the device"
        )


@pytest.mark.parametrize("call", [CALL, replace(CALL, causal=True), replace(CALL, needs_grad=False)])
def test_the_try_is_of_the_type_and_size_that_are_wanted(tmp_path: Path, call: Attention) -> None:
    with installed(tmp_path, fake_flash.COMPUTES):
        assert look(FLASH_2, call, CPU).problem is None
        import flash_attn  # type: ignore[import-not-found]

        assert [((1, 16, 1, 8), "torch.float32", 0.0, call.causal, False)] == flash_attn.CALLS


def test_the_function_is_that_of_the_package(tmp_path: Path) -> None:
    with installed(tmp_path, fake_flash.COMPUTES):
        function = function_of(FLASH_2)
        assert function is function_of(FLASH_2) is sys.modules["flash_attn"].flash_attn_func
