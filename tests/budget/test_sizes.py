"""How large a save is, and where the figure is from."""

from __future__ import annotations

import pytest

from outlast.budget.sizes import OPTIMIZERS, counted, measured, optimizer_named, parse_count, said, with_logs
from outlast.errors import BadInput


@pytest.mark.parametrize(
    ("name", "ours"),
    [("adamw_torch_fused", "adamw"), ("AdamW", "adamw"), ("OptimizerNames.ADAMW_TORCH", "adamw"),
     ("paged_adamw_8bit", "adamw-8bit"), ("adamw_bnb_8bit", "adamw-8bit"), ("AdamW8bit", "adamw-8bit"),
     ("paged_adamw_32bit", "adamw"), ("lion_8bit", "lion-8bit"), ("Adafactor", "adafactor"), ("SGD", "sgd"),
     ("sgd-momentum", "sgd-momentum"), ("rmsprop_bnb", "rmsprop"), ("shampoo", None)],
)  # fmt: skip
def test_optimizers_are_known_by_the_names_that_frameworks_give_them(name: str, ours: str | None) -> None:
    assert optimizer_named(name) == ours


def test_what_was_said_is_what_a_full_save_takes() -> None:
    size = said(3 * 10**9)
    assert size.full == 3 * 10**9
    assert size.plain(only_model=True) < 1.1 * 10**9
    assert size.source.startswith("said with --save-bytes")


def test_a_full_fine_tune_in_fp32_is_twelve_bytes_a_parameter() -> None:
    size = counted(10**6)
    assert (size.weights, size.moments) == (4 * 10**6, 8 * 10**6)
    assert size.source == "counted: 1,000,000 numbers in fp32, adamw"


def test_of_an_adapter_only_what_is_trained_is_saved() -> None:
    size = counted(8 * 10**9, 40 * 10**6, dtype="bf16")
    assert (size.weights, size.moments) == (80 * 10**6, 160 * 10**6)
    assert "40,000,000 numbers in bf16 of 8,000,000,000" in size.source


@pytest.mark.parametrize(
    ("optimizer", "each"), [("adamw", 8), ("adamw-8bit", 2.03125), ("sgd", 0), ("sgd-momentum", 4), ("lion", 4)]
)
def test_an_optimizers_state_is_that_of_the_table(optimizer: str, each: float) -> None:
    assert counted(10**6, optimizer=optimizer).moments == int(each * 10**6)


def test_where_there_are_no_moments_outlast_adds_none_in_light_form() -> None:
    assert all((counted(10**6, optimizer=name).sidecar > 0) == (row.moments > 0) for name, row in OPTIMIZERS.items())


def test_under_outlast_a_light_save_is_a_third_and_the_model_alone_is_light() -> None:
    size = counted(10**6, small=0)
    kinds = size.kinds(is_light=False)
    assert list(kinds) == ["full", "light"]
    assert kinds["light"] / kinds["full"] == pytest.approx(0.343, abs=0.002)
    assert list(size.kinds(is_light=True)) == ["light"]


def test_a_log_grows_a_counted_save_and_not_one_that_was_said_or_measured() -> None:
    assert with_logs(counted(10**6), 100).small - counted(10**6).small == 17_000
    assert with_logs(said(10**9), 100) == said(10**9)
    assert with_logs(measured(1, 2, 3, "checkpoint-5"), 100) == measured(1, 2, 3, "checkpoint-5")


@pytest.mark.parametrize(
    ("text", "count"), [("8B", 8 * 10**9), ("1.5b", 1_500_000_000), ("40 M", 40_000_000), ("7", 7)]
)
def test_numbers_of_parameters_are_read(text: str, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "0", "many", "8GB", "-1"])
def test_what_is_no_number_of_parameters_is_said_to_be_none(text: str) -> None:
    with pytest.raises(BadInput, match="expected a number of parameters"):
        parse_count(text)


def test_what_cannot_be_counted_is_bad_input() -> None:
    with pytest.raises(BadInput, match="no optimizer"):
        counted(10, optimizer="shampoo")
    with pytest.raises(BadInput, match="no type"):
        counted(10, dtype="fp4")
    with pytest.raises(BadInput, match="are trained of"):
        counted(10, 11)
