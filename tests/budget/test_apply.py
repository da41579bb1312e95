"""Configurations rewritten: the effective batch stays, what does harm is mended, everything else is left alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.budget import PRESETS, Candidate, Estimate, Fit, Wanted, apply
from outlast.budget.keys import ADDED, KEYS
from outlast.errors import BadInput

NOTEBOOK = {"batch_size": 16, "num_epochs": 5, "learning_rate": 2e-5, "max_length": 512, "keep_only_best": True}
MEMORY_CONFIG = {  # seeds/002
    "reduced_batch_size": 8,
    "gradient_accumulation_steps": 2,
    "use_mixed_precision": True,
    "save_optimizer_state": False,
    "clear_cache_every": 100,
}
T4 = Candidate(4, 4, 1, "fp16", True, "adamw-8bit", 512)


def effective(config: dict[str, Any]) -> int:
    micro = next(
        config[key] for key in ("batch_size", "per_device_train_batch_size", "reduced_batch_size") if key in config
    )
    steps = config.get("gradient_accumulation_steps", config.get("accumulate_grad_batches", 1))
    return int(micro * steps * config.get("world_size", config.get("devices", 1)))


def test_seed_twos_configuration_becomes_what_its_author_did_by_hand() -> None:
    done = apply(NOTEBOOK, MEMORY_CONFIG)
    assert done.config == {
        **NOTEBOOK, "batch_size": 8, "gradient_accumulation_steps": 2, "use_mixed_precision": True, "save": "light",
    }  # fmt: skip
    assert NOTEBOOK["batch_size"] == 16
    assert "batch_size: 16 -> 8" in str(done) and "effective batch: 16, as before (8 x 2)" in str(done)


def test_both_in_one_dict_mean_the_batch_that_stood_there_first() -> None:
    done = apply({**NOTEBOOK, **MEMORY_CONFIG, "gradient_accumulation_steps": 4})
    assert (done.config["batch_size"], done.config["gradient_accumulation_steps"]) == (8, 2)


def test_a_memory_config_alone_is_mended_with_reasons() -> None:
    done = apply(MEMORY_CONFIG)
    why = {change.key: change.why for change in done.changes}
    assert done.config["save"] == "light" and "save_optimizer_state" not in done.config
    assert "fresh optimizer" in why["save_optimizer_state"] and "clear_cache_every" not in done.config
    assert "costs speed" in why["clear_cache_every"] and done.effective_batch == 16


@given(
    batch=st.integers(1, 64), steps=st.integers(1, 8), world=st.sampled_from([1, 2, 4]),
    preset=st.sampled_from([preset.name for preset in PRESETS]),
    key=st.sampled_from(["batch_size", "per_device_train_batch_size"]),
    other=st.dictionaries(st.text("abcxyz", min_size=3, max_size=5), st.integers(), max_size=3),
)  # fmt: skip
def test_the_effective_batch_never_changes_and_unknown_keys_stay(
    batch: int, steps: int, world: int, preset: str, key: str, other: dict[str, int]
) -> None:
    known = {one.name for one in KEYS}
    other = {name: value for name, value in other.items() if name not in known}
    config = {key: batch, "gradient_accumulation_steps": steps, "world_size": world, **other}
    done = apply(config, preset)
    assert effective(done.config) == effective(config) == done.effective_batch
    assert {name: done.config[name] for name in other} == other
    assert done.micro_batch <= batch


def test_applying_again_changes_nothing() -> None:
    for preset in PRESETS:
        once = apply({**NOTEBOOK, **MEMORY_CONFIG}, preset.name)
        assert apply(once.config, preset.name).changes == ()


def test_a_candidate_goes_into_a_trainers_arguments_under_their_names() -> None:
    given_ = {"per_device_train_batch_size": 16, "bf16": True, "auto_find_batch_size": True, "save_only_model": True}
    done = apply(given_, T4, transformers="5.23.0")
    assert done.config == {
        "per_device_train_batch_size": 4, "gradient_accumulation_steps": 4, "bf16": False, "fp16": True,
        "activation_checkpointing": True, "optim": "adamw_bnb_8bit", "save_only_model": False,
    }  # fmt: skip
    assert apply(given_, T4, transformers="4.57.1").config["gradient_checkpointing"] is True


def test_a_candidate_goes_into_lightnings_words() -> None:
    done = apply({"batch_size": 8, "accumulate_grad_batches": 2, "precision": "32-true"}, T4)
    assert (done.config["batch_size"], done.config["accumulate_grad_batches"]) == (4, 4)
    assert done.config["precision"] == "16-mixed"


def test_half_precision_of_either_kind_is_left_as_it_is_where_it_is_not_said_which() -> None:
    assert apply({"batch_size": 4, "use_amp": True}, "max-quality").config["use_amp"] is True


@pytest.mark.parametrize(
    ("config", "to", "says"),
    [
        ({"lr": 1}, None, "no batch size"),
        ({"batch_size": 16}, {"reduced_batch_size": 5}, "do not make a batch of 16"),
        ({"batch_size": 32}, T4, "the fit is for a batch of 16"),
        ({"batch_size": 16}, "low-fat", "no preset"),
        ({"batch_size": 16}, Fit(Wanted(16, 1, 0, "fp16"), None, ()), "nothing fitted"),
    ],
)
def test_what_would_change_the_batch_is_refused(config: dict[str, Any], to: Any, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        apply(config, to)


def test_no_word_is_in_the_table_twice_and_every_added_one_is_in_it() -> None:
    names = [key.name for key in KEYS]
    assert len(names) == len(set(names))
    roles = {key.name: (key.role, key.family) for key in KEYS}
    assert all(roles[name][0] == role for (role, _), name in ADDED.items())


def test_trainers_words_are_those_of_the_installed_transformers() -> None:
    from transformers import TrainingArguments

    there = set(TrainingArguments.__dataclass_fields__)
    gone = {"per_gpu_train_batch_size"}  # of Transformers 2
    assert {key.name for key in KEYS if key.family == "trainer"} - gone <= there


def test_an_estimate_says_nothing_that_it_does_not_know() -> None:
    assert Estimate(1).optimizer_bytes is None and Estimate(1).batch_seconds is None
