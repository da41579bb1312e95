"""What the values of the keys may be, each alone and together. Pure; tables where a table will do."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from outlast.errors import BadInput

if TYPE_CHECKING:
    from duo.settings import Model, Settings

CHOICES: Mapping[str, tuple[str, ...]] = {
    "mode": ("train", "ppl_eval", "sample_eval"),
    "algo.name": ("duo_base",),
    "algo.backbone": ("dit", "hf_dit"),
    "strategy.name": ("single", "ddp"),
    "trainer.accelerator": ("auto", "gpu", "cuda", "cpu"),
    "training.loss_precision": ("float32", "bf16"),
    "sampling.predictor": ("ancestral", "greedy_tail"),
    "sampling.noise_removal": ("greedy", "ancestral"),
}
"""Keys that take one of a few words."""
LEAST: Mapping[str, int] = {
    "data.rows": 2,
    "data.vocab_size": 260,
    "model.hidden_size": 2,
    "model.n_blocks": 1,
    "model.n_heads": 1,
    "model.cond_dim": 1,
    "model.length": 4,
    "loader.batch_size": 1,
    "loader.eval_batch_size": 1,
    "loader.num_workers": 0,
    "trainer.max_steps": 1,
    "trainer.devices": 1,
    "trainer.num_nodes": 1,
    "trainer.accumulate_grad_batches": 1,
    "trainer.log_every_n_steps": 1,
    "trainer.val_check_interval": 1,
    "optim.warmup_steps": 0,
    "sampling.steps": 1,
    "sampling.num_sample_batches": 1,
    "checkpointing.every_n_train_steps": 1,
    "checkpointing.keep_last": 1,
    "checkpointing.keep_best": 0,
}
"""The least that a number may be. A BPE starts from 256 bytes and the end of a document."""
BETWEEN: Mapping[str, tuple[float, float]] = {
    "model.dropout": (0.0, 0.999),
    "training.ema": (0.0, 0.999999999),
    "training.sampling_eps": (1e-9, 0.5),
    "sampling.p_nucleus": (1e-9, 1.0),
    "optim.lr": (0.0, 10.0),
    "optim.beta1": (0.0, 0.999999),
    "optim.beta2": (0.0, 0.999999),
}
"""The range of a number, ends included."""


def value_of(settings: Any, key: str) -> Any:
    """The value of a dotted key."""
    for name in key.split("."):
        settings = getattr(settings, name)
    return settings


def check(settings: Settings) -> None:
    """Whether the values are possible, each alone and all together.

    Raises:
        BadInput: for the first that is not, with what to write instead.
    """
    for key, words in CHOICES.items():
        if (value := value_of(settings, key)) not in words:
            near = difflib.get_close_matches(str(value), words, n=1)
            raise BadInput(
                f"{key} is {value!r}; expected {', '.join(words)}", hint=f"{key}={near[0] if near else words[0]}"
            )
    for key, least in LEAST.items():
        if (value := value_of(settings, key)) is not None and value < least:
            raise BadInput(f"{key} is {value}; the least is {least}", hint=f"{key}={least} or more")
    for key, (low, high) in BETWEEN.items():
        if not low <= (value := value_of(settings, key)) <= high:
            raise BadInput(f"{key} is {value}; expected {low:g} to {high:g}", hint=f"for example {key}={high:g}")
    _check_heads(settings.model)
    _check_batches(settings)
    devices = settings.trainer.devices * settings.trainer.num_nodes
    if settings.strategy.name == "single" and devices > 1:
        raise BadInput(f"strategy=single, and {devices} devices were asked for", hint="strategy=ddp")


def _check_heads(model: Model) -> None:
    if model.hidden_size % (2 * model.n_heads):
        raise BadInput(
            f"model.hidden_size={model.hidden_size} does not divide into {model.n_heads} heads of an even width",
            hint="rotary positions turn pairs: hidden_size has to be a multiple of 2 x n_heads",
        )


def _check_batches(settings: Settings) -> None:
    loader, trainer = settings.loader, settings.trainer
    devices = trainer.devices * trainer.num_nodes
    sums = {
        "": (loader.global_batch_size, loader.batch_size, trainer.accumulate_grad_batches),
        "eval_": (loader.eval_global_batch_size, loader.eval_batch_size, 1),
    }
    for name, (asked, size, accumulated) in sums.items():
        product = size * devices * accumulated
        if asked is not None and asked != product:
            parts = f"{size} (loader.{name}batch_size) x {trainer.devices} (devices) x {trainer.num_nodes} (nodes)"
            parts += f" x {accumulated} (trainer.accumulate_grad_batches)" if not name else ""
            raise BadInput(
                f"loader.{name}global_batch_size is {asked}, and {parts} is {product}",
                hint=_batch_hint(name, asked, size, devices, product),
            )


def _batch_hint(name: str, asked: int, size: int, devices: int, product: int) -> str:
    if not name and asked > 0 and asked % (size * devices) == 0:
        return f"trainer.accumulate_grad_batches={asked // (size * devices)} makes it {asked}"
    return f"loader.{name}global_batch_size={product}, or leave it out: it is computed"
