"""The training: a model, an optimizer and a schedule under `outlast.Run`, scored on held-out documents each epoch."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import outlast
from legal import books
from legal import model as models
from legal.documents import read
from legal.scores import Scores, score
from legal.sentences import Encoded, Example, examples
from legal.settings import Settings
from legal.splits import Split, split
from outlast.checkpoints import Checkpoint, Vault
from outlast.errors import BadInput
from outlast.train.out_of_memory import is_out_of_memory, let_go

METRIC = "val_f1"


@dataclass(frozen=True, slots=True)
class Trained:
    """A training that came to its end, and what its report is made of."""

    settings: Settings
    """What was asked for."""
    split: Split
    """Documents of both sides."""
    train: list[Example]
    """Sentences learned from."""
    held_out: list[Example]
    """Sentences held out."""
    start: models.Start
    """The model, with the weights of ``chosen``."""
    run: outlast.Run
    """Its run."""
    chosen: Checkpoint
    """The best checkpoint that is there and verifies."""
    predicted: list[int]
    """What the model of ``chosen`` says of each held-out sentence."""
    log: books.Log
    """Losses and scores of all steps."""


def train(settings: Settings) -> Trained:
    """Train, or go on where the last session stopped.

    Raises:
        BadInput: for data or settings that cannot be, or another run in the same folder.
        Stopped: when the session ends; the last step is sealed, and the same call goes on from there.
    """
    if settings["data"] is None:
        raise BadInput("no documents given", hint="--data FOLDER, or data: in the configuration")
    out = Path(settings["out"])
    documents = read(settings["data"])
    subset = settings["subset_ratio"] if settings["use_subset"] else 1.0
    sides = split(documents, validation=settings["validation"], seed=settings["seed"], subset=subset)
    resumes = bool(Vault(_vault(out)).checkpoints())
    books.claim(out, books.identity(settings, documents), resumes=resumes)
    context = settings["context"]
    known, held_out = examples(sides.train, context), examples(sides.validation, context)
    _tell_data(sides, known, held_out)
    start = models.start(
        out / books.START, settings["model"], sides.labels, [one.text for one in known],
        max_length=settings["max_length"], seed=settings["seed"], resumes=resumes,
    )  # fmt: skip
    print(f"model: {start.said}")
    learned, unseen = (
        Encoded(made, sides.labels, start.tokenizer, settings["max_length"]) for made in (known, held_out)
    )
    run, loader = _run(settings, out, start.model, learned)
    log = books.Log(out / "log.jsonl", run.steps_done)
    outlast.check_memory()
    _loop(settings, run, loader, unseen, sides.labels, log)
    chosen = best(run)
    load(start.model, chosen)
    predicted = predict(run, start.model, unseen, settings.micro_batch)
    return Trained(settings, sides, known, held_out, start, run, chosen, predicted, log)


def _vault(out: Path) -> Path:
    return out / "checkpoints"


def _tell_data(sides: Split, known: list[Example], held_out: list[Example]) -> None:
    print(
        f"data: {len(known)} sentences of {len(sides.train)} documents to learn from, "
        f"{len(held_out)} of {len(sides.validation)} held out, {len(sides.labels)} classes"
    )
    for names, why in (
        (sides.unseen(), "no document in training, so they cannot be learned"),
        (sides.untested(), "no held-out document, so nothing is known of how well they are told"),
    ):
        if names:
            print(f"data: ! {', '.join(names)}: {why}")


def _run(settings: Settings, out: Path, model: Any, learned: Encoded) -> tuple[outlast.Run, Any]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    if settings["use_gradient_checkpointing"]:
        # Transformers 5 gave it another name.
        getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    loader = torch.utils.data.DataLoader(
        learned, batch_size=settings.batch, shuffle=True, collate_fn=learned.together,
        num_workers=settings["num_workers"], generator=torch.Generator().manual_seed(settings["seed"]),
        pin_memory=device.type == "cuda",
    )  # fmt: skip
    total = len(loader) * settings["num_epochs"]
    warm = max(1, round(settings["warmup_ratio"] * total))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings["learning_rate"], weight_decay=settings["weight_decay"]
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, max(0.0, (total - step) / max(1, total - warm)))
    )
    every = settings["save_frequency"]
    run = outlast.Run(
        _vault(out), model=model, optimizer=optimizer, scheduler=schedule,
        every=every if isinstance(every, int) else None, keep=keep(settings), save=settings["save"],
        precision="auto" if settings["use_mixed_precision"] else "fp32", deadline=settings["deadline"],
    )  # fmt: skip
    if run.resumed is not None:
        print(f"goes on from step {run.steps_done} of {total} ({run.resumed.kind} checkpoint)")
    print(f"precision: {run.precision}")
    return run, loader


def keep(settings: Mapping[str, Any] | Settings) -> outlast.Keep | None:
    """What keep_n_checkpoints and keep_only_best mean; the newest is kept in any case. None keeps all."""
    count = settings["keep_n_checkpoints"]
    if settings["keep_only_best"]:
        return outlast.Keep(best=count or 1, metric=METRIC, mode="max")
    return None if count is None else outlast.Keep(last=count, best=1, metric=METRIC, mode="max")


def _loop(
    settings: Settings, run: outlast.Run, loader: Any, unseen: Encoded, labels: tuple[str, ...], log: books.Log
) -> None:
    """Every step that is left. Saves come last in a step, so that a checkpoint is a step's end."""
    model, frequency = run.model, settings["save_frequency"]
    device = next(model.parameters()).device
    total, began, first = len(loader) * settings["num_epochs"], time.monotonic(), run.steps_done
    model.train()
    for batch in run.steps(loader, epochs=settings["num_epochs"]):
        batch = {name: values.to(device, non_blocking=True) for name, values in batch.items()}
        loss = run.step(batch, lambda part: model(**part).loss, micro_batch=settings.micro_batch, clip_norm=1.0)
        step = run.steps_done
        if step % settings["log_every"] == 0 or step == total:
            log.add(step=step, loss=loss.item())
        _clear(settings["clear_cache_every"], step, device)
        if step % len(loader):
            run.checkpoint()
            continue
        scores = score(unseen.labels, predict(run, model, unseen, settings.micro_batch), labels)
        epoch = step // len(loader)
        log.add(step=step, epoch=epoch, val_f1=scores.macro_f1, val_accuracy=scores.accuracy)
        _tell_epoch(epoch, settings["num_epochs"], scores, (time.monotonic() - began) / (step - first), total - step)
        if frequency != "none" or step == total:
            run.checkpoint({METRIC: scores.macro_f1}, now=True)


def _clear(every: int, step: int, device: torch.device) -> None:
    """What `clear_cache_every` asks for."""
    if every and step % every == 0:
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _tell_epoch(epoch: int, epochs: int, scores: Scores, step_seconds: float, left: int) -> None:
    print(
        f"epoch {epoch}/{epochs}: macro F1 {scores.macro_f1:.3f}, accuracy {scores.accuracy:.3f}; "
        f"{1 / step_seconds:.1f} steps/s, {left * step_seconds / 60:.1f} min left",
        flush=True,
    )


def predict(run: outlast.Run, model: Any, rows: Encoded, size: int) -> list[int]:
    """The class of each sentence, in the order given; draws no random number, so that training is not moved by it."""
    device = next(model.parameters()).device
    predicted = np.zeros(len(rows), np.int64)
    model.eval()
    with torch.no_grad(), run.precision.autocast():
        waiting = list(rows.by_length(size))
        while waiting:
            indices = waiting.pop()
            batch = rows.together([rows[int(at)] for at in indices])
            try:
                batch = {name: values.to(device) for name, values in batch.items() if name != "labels"}
                predicted[indices] = model(**batch).logits.argmax(-1).cpu().numpy()
                continue
            except RuntimeError as error:
                if len(indices) == 1 or not is_out_of_memory(error):
                    raise
                caught = error
            let_go(caught)
            waiting += np.array_split(indices, 2)
    model.train()
    return [int(one) for one in predicted]


def best(run: outlast.Run) -> Checkpoint:
    """The checkpoint with the highest validation F1 that verifies; of equals the newest, without any the last one."""
    ranked = sorted(run.vault.checkpoints(), key=lambda one: (one.seal.metrics.get(METRIC, -1.0), one.age))
    for checkpoint in reversed(ranked):
        if checkpoint.kind and run.vault.check(checkpoint).is_whole:
            return checkpoint
    raise BadInput(f"no checkpoint in {run.vault.root} verifies", hint="outlast checkpoints verify says why")


def load(model: Any, checkpoint: Checkpoint) -> None:
    """Put a checkpoint's weights into the model."""
    from safetensors.torch import load_file

    model.load_state_dict(load_file(checkpoint.path / "model.safetensors"), strict=False)
