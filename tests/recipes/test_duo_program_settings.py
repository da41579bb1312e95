"""What the program is told: every key of the upstream list, types, contradictions, and errors that help."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from duo import limits, overrides, settings
from duo.dit import SIZES
from duo.settings import Settings
from outlast.errors import BadInput

CONFIGS = Path(__file__).resolve().parents[2] / "recipes/duo/configs"
SEEDS = (
    "mode=train data=openwebtext-split algo=duo_base algo.backbone=hf_dit strategy=single data.cache_dir=/tmp/c "
    "loader.batch_size=2 loader.global_batch_size=2 loader.eval_batch_size=2 loader.eval_global_batch_size=2 "
    "model.length=512 trainer.max_steps=100 trainer.devices=1 trainer.num_nodes=1 trainer.accelerator=gpu "
    "trainer.precision=16 trainer.accumulate_grad_batches=1 trainer.log_every_n_steps=10 +wandb.offline=true"
)


def composed(*words: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONFIGS), version_base=None):
        config = compose("config", overrides.checked(words, CONFIGS))
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    return values


def read(*words: str) -> Settings:
    return settings.read(composed(*words))


def test_the_seeds_command_is_read_word_for_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWT_SUBSET_NUM", "11000")
    asked = read(*SEEDS.split())
    assert asked.data.rows == 11000
    assert asked.data.split == "90/10"
    assert (asked.algo.backbone, asked.trainer.precision, asked.wandb.offline) == ("hf_dit", "16", True)
    assert (asked.model.length, asked.trainer.max_steps, asked.loader.global_batch_size) == (512, 100, 2)


KEYS = (
    """mode=ppl_eval data=offline algo=duo_base algo.backbone=dit strategy=ddp data.cache_dir=x loader.batch_size=3
    loader.global_batch_size=6 loader.eval_batch_size=4 loader.eval_global_batch_size=4 loader.num_workers=2 model=tiny
    model.length=128 trainer.max_steps=5 trainer.devices=1 trainer.num_nodes=1 trainer.accelerator=cpu
    trainer.precision=bf16 trainer.accumulate_grad_batches=2 trainer.log_every_n_steps=2 trainer.val_check_interval=7
    trainer.limit_val_batches=3 eval.checkpoint_path=a.ckpt eval.generate_samples=true wandb.offline=true seed=7""",
    """sampling.steps=9 sampling.predictor=ancestral sampling.noise_removal=ancestral sampling.num_sample_batches=2
    sampling.p_nucleus=0.9 sampling.use_float64=false trainer.limit_val_batches=0.5 optim.lr=0.5 optim.beta1=0.8
    optim.beta2=0.99 optim.eps=1e-06 optim.weight_decay=0.1 training.ema=0.99 training.antithetic_sampling=false
    training.sampling_eps=0.0001 training.loss_precision=bf16 checkpointing.save_dir=x +wandb.offline=false
    checkpointing.resume_from_ckpt=false checkpointing.resume_ckpt_path=a.ckpt""",
)


@pytest.mark.parametrize("words", [keys.split() for keys in KEYS], ids=["first", "second"])
def test_every_key_of_the_upstream_list_works(words: list[str]) -> None:
    asked = read(*words)
    for word in words:
        key, _, value = word.lstrip("+").partition("=")
        key = f"{key}.name" if (CONFIGS / key).is_dir() else key
        assert str(limits.value_of(asked, key)).lower() == value


@pytest.mark.parametrize(
    ("word", "message", "hint"),
    [
        ("trainer.max_step=3", "no key 'trainer.max_step'", "trainer.max_steps"),
        ("+trainer.max_step=3", "no key 'trainer.max_step'", "trainer.max_steps"),
        ("batch_size=3", "no key 'batch_size'", "loader.batch_size"),
        ("+zzz=1", "no key 'zzz'", "--help"),
        ("model=smal", "there is medium, small, tiny, toy", "model="),
        ("~trainer.max_steps", "cannot be taken away", "null"),
        ("trainer.max_steps", "cannot read", "KEY=VALUE"),
        ("algo.backbone=hf_dt", "expected dit, hf_dit", "hf_dit"),
        ("mode=trian", "expected train, ppl_eval, sample_eval", "mode=train"),
        ("trainer.max_steps=many", "expected a whole number", "trainer.max_steps=8"),
        ("sampling.use_float64=3", "expected true or false", "true"),
        ("optim=3", "it is a group of keys", "optim.NAME=VALUE"),
        ("trainer.max_steps=0", "the least is 1", "trainer.max_steps=1"),
        ("sampling.p_nucleus=1.5", "expected 1e-09 to 1", "sampling.p_nucleus=1"),
        ("loader.global_batch_size=48", "loader.global_batch_size is 48", "trainer.accumulate_grad_batches=3"),
        ("loader.global_batch_size=17", "loader.global_batch_size is 17", "loader.global_batch_size=16"),
        ("loader.eval_global_batch_size=17", "loader.eval_global_batch_size is 17", "=16, or leave it out"),
        ("model.n_heads=7", "does not divide", "multiple of 2 x n_heads"),
        ("trainer.devices=2", "strategy=single, and 2 devices", "strategy=ddp"),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(word: str, message: str, hint: str) -> None:
    with pytest.raises(BadInput) as caught:
        read(word)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_the_number_of_documents_may_be_anything_but_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWT_SUBSET_NUM", "all")
    with pytest.raises(BadInput, match="data.rows is 'all'; expected a whole number or null"):
        read()
    monkeypatch.delenv("OWT_SUBSET_NUM")
    assert read().data.rows is None


def test_a_missing_key_is_named() -> None:
    values = composed()
    del values["optim"]["lr"]
    with pytest.raises(BadInput, match="optim.lr has no value"):
        settings.read(values)


@pytest.mark.parametrize("name", sorted(SIZES))
def test_the_presets_are_the_networks_own_table(name: str) -> None:
    model, size = read(f"model={name}").model, SIZES[name]
    assert (model.hidden_size, model.n_blocks, model.n_heads, model.cond_dim) == (
        size.hidden, size.blocks, size.heads, size.cond_dim,
    )  # fmt: skip


@given(st.integers(1, 64), st.integers(1, 8), st.integers(1, 4), st.integers(1, 16), st.integers(-3, 3))
def test_a_global_batch_is_taken_exactly_when_it_is_the_product(
    size: int, devices: int, nodes: int, accumulated: int, off: int
) -> None:
    values = _BASE
    values["loader"].update(batch_size=size, global_batch_size=size * devices * nodes * accumulated + off)
    values["trainer"].update(devices=devices, num_nodes=nodes, accumulate_grad_batches=accumulated)
    values["strategy"]["name"] = "ddp"
    if off == 0:
        assert settings.read(values).loader.batch_size == size
    else:
        with pytest.raises(BadInput, match="loader.global_batch_size"):
            settings.read(values)


@given(st.sampled_from(settings.known_keys()), st.integers(0, 30), st.sampled_from("abcxyz_."))
def test_any_misspelt_key_is_an_error_and_any_right_one_is_not(key: str, place: int, letter: str) -> None:
    wrong = key[: place % len(key)] + letter + key[place % len(key) :]
    if wrong in settings.known_keys() or wrong.startswith("hydra"):
        return
    with pytest.raises(BadInput):
        overrides.checked([f"{wrong}=1"], CONFIGS)
    if not (CONFIGS / key).is_dir():
        assert overrides.checked([f"+{key}=1"], CONFIGS) == [f"{key}=1"]


_BASE = composed()
