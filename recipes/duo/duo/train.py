"""mode=train: from settings to a finished training, resumed where it stopped."""

from __future__ import annotations

import json
import logging
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from duo import machine, saving, start, text, training
from duo.said import Lines, loggers, say
from duo.settings import Settings
from outlast import durable
from outlast.errors import BadInput
from outlast.integrations.lightning import OutlastCheckpointIO

MEANT_TO_STAY = ("data.source", "data.column", "data.rows", "data.split", "data.wrap", "data.tokenizer",
                 "model", "algo", "seed", "loader.batch_size", "trainer.accumulate_grad_batches")  # fmt: skip
"""What a run is: with other values it would be another run, and its checkpoints would not fit or not mean the same."""


def run(settings: Settings) -> None:
    """Train."""
    quiet()
    place = Path(settings.checkpointing.save_dir)
    chosen = machine.decide(settings.trainer, machine.here(settings.trainer))
    for note in chosen.notes:
        say(note)
    place.mkdir(parents=True, exist_ok=True)
    resume = saving.resume_from(settings)
    source = remembered(place / "run.json", settings, is_new=resume is None)
    ready = text.prepare(settings.data, settings.model.length, place / "tokenizer.json", source, say)
    durable.write_bytes(
        place / "run.json", json.dumps(what_it_is(settings) | {"text": ready.source}, indent=1).encode()
    )
    network = start.network(settings, ready.tokenizer.get_vocab_size(), say)
    module = training.Diffusion(settings, network, ready)
    told(settings, ready, network)
    trainer(settings, chosen).fit(module, ckpt_path=resume)
    say(f"done: the newest checkpoint is {saving.folder(settings) / saving.LAST}")


def trainer(settings: Settings, chosen: machine.Machine) -> pl.Trainer:
    """Lightning's Trainer for these settings."""
    asked = settings.trainer
    tokens = settings.loader.batch_size * settings.model.length * asked.accumulate_grad_batches
    tokens *= asked.devices * asked.num_nodes
    return pl.Trainer(
        accelerator=chosen.accelerator,
        devices=chosen.devices,
        num_nodes=asked.num_nodes,
        strategy="ddp" if settings.strategy.name == "ddp" else "auto",
        precision=chosen.precision,  # type: ignore[arg-type]
        max_steps=asked.max_steps,
        max_epochs=-1,
        accumulate_grad_batches=asked.accumulate_grad_batches,
        gradient_clip_val=asked.gradient_clip_val,
        log_every_n_steps=asked.log_every_n_steps,
        val_check_interval=min(asked.val_check_interval, asked.max_steps) * asked.accumulate_grad_batches,
        check_val_every_n_epoch=None,
        limit_val_batches=1.0 if asked.limit_val_batches is None else asked.limit_val_batches,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        callbacks=[*saving.callbacks(settings), Lines(Path(settings.checkpointing.save_dir) / "log.jsonl", tokens)],
        plugins=[OutlastCheckpointIO()],
        logger=loggers(settings) or False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=settings.checkpointing.save_dir,
    )


def quiet() -> None:
    """Leave out what Lightning says that is not the user's to act on."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    # The blocks are memory-mapped: reading them costs nothing that workers could save.
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    # Lightning's own use of what torch is about to drop.
    warnings.filterwarnings("ignore", ".*treespec, LeafSpec.*")
    # The last validation sets val/nll; a checkpoint between two of them carries that of the last one.
    warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")


def remembered(path: Path, settings: Settings, *, is_new: bool) -> str | None:
    """The text that the run in this folder was started on; None at its start.

    Raises:
        BadInput: when the folder holds a run of other settings.
    """
    if is_new or not path.exists():
        return None
    saved = json.loads(path.read_bytes())
    now = what_it_is(settings)
    other = [f"{key}={saved.get(key)}, now {now[key]}" for key in now if saved.get(key) != now[key]]
    if other:
        raise BadInput(
            f"{path.parent} holds a run with {'; '.join(other)}",
            hint="checkpointing.save_dir=ANOTHER for a new run; checkpointing.resume_from_ckpt=false starts anew there",
        )
    return str(saved["text"])


def what_it_is(settings: Settings) -> dict[str, Any]:
    """The values of `MEANT_TO_STAY`, each leaf under its dotted key."""
    leaves = _leaves(asdict(settings), "")
    return {
        key: value for key, value in leaves.items() if any(f"{key}.".startswith(f"{name}.") for name in MEANT_TO_STAY)
    }


def _leaves(tree: dict[str, Any], above: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= _leaves(value, f"{above}{name}.") if isinstance(value, dict) else {above + name: value}
    return found


def told(settings: Settings, ready: text.Text, network: Any) -> None:
    """Say what is about to be trained, and what a checkpoint of it takes."""
    parameters = sum(one.numel() for one in network.parameters())
    copies = 3 + bool(settings.training.ema)  # weights, two moments, the mean of the weights
    sizes = {name: len(one) for name, one in ready.blocks.items()}
    say(f"text: {ready.source}")
    length, megabytes = settings.model.length, 4e-6 * copies * parameters
    say(f"{sizes['train']:,} blocks of {length} tokens to train on, {sizes['validation']:,} to validate on")
    say(f"{parameters:,} parameters, vocabulary {network.vocab:,}; a checkpoint takes {megabytes:,.0f} MB")
