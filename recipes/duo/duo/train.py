"""mode=train: from settings to a finished training, resumed where it stopped."""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from duo import machine, saving, start, text, training
from duo.said import Lines, loggers, say
from duo.settings import Settings
from outlast import durable
from outlast.errors import BadInput
from outlast.integrations.lightning import OutlastCheckpointIO

RUN = "run.json"
"""What the run in a folder is."""
MEANT_TO_STAY = ("data.source", "data.column", "data.rows", "data.split", "data.wrap", "data.tokenizer",
                 "model", "algo", "seed", "loader.batch_size", "trainer.accumulate_grad_batches", "trainer.devices",
                 "trainer.num_nodes", "trainer.gradient_clip_val", "optim", "training")  # fmt: skip
"""What a run is: with other values it would be another run, and its checkpoints would not fit or not mean the same.

A checkpoint holds the rates of its optimizer: another one would not count, without a word.
"""
_FREE = "optim.warmup_steps"
"""Where nothing is said it follows from trainer.max_steps, which may grow: the run keeps what it began with."""


def run(settings: Settings) -> None:
    """Train."""
    quiet()
    place = Path(settings.checkpointing.save_dir)
    chosen = machine.decide(settings.trainer, machine.here(settings.trainer))
    for note in chosen.notes:
        say(note)
    place.mkdir(parents=True, exist_ok=True)
    resume = saving.resume_from(settings)
    known = remembered(home_of(resume, place), settings, is_new=resume is None)
    if known and settings.optim.warmup_steps is None:
        settings = replace(settings, optim=replace(settings.optim, warmup_steps=known[_FREE]))
    source = str(known["text"]) if known else None
    ready = text.prepare(settings.data, settings.model.length, place / "tokenizer.json", source, say)
    what = what_it_is(settings) | {"text": ready.source, "tokens": digest(ready)}
    if known and known["tokens"] != what["tokens"]:
        raise _another(f"{place} was begun with another text or tokenizer")
    durable.write_bytes(place / RUN, json.dumps(what, indent=1).encode())
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


def home_of(resume: str | None, place: Path) -> Path:
    """The folder of the run that a checkpoint belongs to: this one, unless it lies in another one's."""
    other = Path(resume).absolute().parent.parent if resume and resume != "last" else place
    return other if (other / RUN).exists() else place


def remembered(place: Path, settings: Settings, *, is_new: bool) -> dict[str, Any] | None:
    """What the run in this folder was started with; None at its start.

    Raises:
        BadInput: when the folder holds a run of other settings.
    """
    if is_new or not (place / RUN).exists():
        return None
    saved: dict[str, Any] = json.loads((place / RUN).read_bytes())
    now = what_it_is(settings)
    if settings.optim.warmup_steps is None:
        now.pop(_FREE)
    other = [f"{key}={saved.get(key)}, now {now[key]}" for key in now if saved.get(key) != now[key]]
    if other:
        raise _another(f"{place} holds a run with {'; '.join(other)}")
    return saved


def _another(what: str) -> BadInput:
    return BadInput(
        what,
        hint="checkpointing.save_dir=ANOTHER for a new run; checkpointing.resume_from_ckpt=false starts anew there",
    )


def digest(ready: text.Text) -> str:
    """Of the tokens of both splits, in order: the same text and tokenizer, wherever they lie."""
    parts = [part.blake3 for split in text.SPLITS for part in ready.blocks[split].index.parts]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()


def what_it_is(settings: Settings) -> dict[str, Any]:
    """The values of `MEANT_TO_STAY`, each leaf under its dotted key."""
    leaves = _leaves(asdict(settings), "")
    kept = {
        key: value for key, value in leaves.items() if any(f"{key}.".startswith(f"{name}.") for name in MEANT_TO_STAY)
    }
    return kept | {_FREE: training.warmup_steps(settings)}


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
