"""mode=ppl_eval and mode=sample_eval: a trained network, its perplexity on held-out text, and text of its own."""

from __future__ import annotations

import json
import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from duo import checkpoint, machine, samples, saving, start, text, training
from duo.checkpoint import Trained
from duo.said import say
from duo.settings import Settings
from outlast import durable
from outlast.errors import BadInput

_TYPES = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


def perplexity(settings: Settings) -> None:
    """Exp of the mean negative ELBO a token on the validation split: an upper bound of the perplexity."""
    trained = subject(settings)
    device, autocast = place(settings)
    network = trained.network.to(device)
    folder, source = text.subset(settings.data, _same_text(settings, trained), say)
    blocks = text.packed(folder, "validation", settings.data, trained.tokenizer, trained.length)
    loader = training.validation_loader(blocks, settings)
    limit = settings.trainer.limit_val_batches
    most = len(loader) if limit is None else int(limit * len(loader)) if isinstance(limit, float) else limit
    means: list[torch.Tensor] = []
    for index, batch in zip(range(most), loader, strict=False):
        generator = training.validation_generator(settings.seed, index, 0, device)
        with torch.no_grad(), autocast:
            noisy = training.corrupted(batch.to(device), network.vocab, settings.training, generator)
            means.append(training.nats_of(network, noisy, settings.training).mean(1).double().cpu())
    if not means:
        raise BadInput(f"no block of {trained.length} tokens to validate on", hint="more documents, or fewer tokens")
    each = torch.cat(means)
    nats = float(each.mean())
    error = float(each.std() / math.sqrt(len(each))) if len(each) > 1 else None
    found = {
        "perplexity": math.exp(min(nats, 700.0)),
        "nats_per_token": nats,
        "standard_error_nats": error,
        "blocks": len(each),
        "blocks_in_all": len(blocks),
        "tokens_per_block": trained.length,
        "text": source,
        "checkpoint": trained.name,
        "step": trained.step,
        "seed": settings.seed,
    }
    path = Path(settings.eval.perplexity_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.write_bytes(path, json.dumps(found, indent=1).encode())
    say(f"perplexity {found['perplexity']:.2f} (at most), {nats:.4f} nats a token over {len(each):,} blocks: {path}")


def sample(settings: Settings) -> None:
    """Text, into samples.json."""
    trained = subject(settings)
    device, autocast = place(settings)
    path = Path(settings.eval.generated_samples_path)
    settings = replace(settings, model=replace(settings.model, length=trained.length))
    facts = {"checkpoint": trained.name, "step": trained.step}
    count = samples.write(path, trained.network.to(device), trained.tokenizer, settings, device, facts, autocast)
    say(f"{count} samples of {trained.length} tokens: {path}")


def subject(settings: Settings) -> Trained:
    """What is evaluated: the checkpoint that is named, published weights, the run's newest, or random weights.

    Raises:
        BadInput: when there is nothing to evaluate, or it cannot be read.
    """
    named = settings.eval.checkpoint_path
    if named and (Path(named).is_file() or named.endswith(".ckpt")):
        return _said(checkpoint.load(Path(named)), settings)
    if not named and (path := saving.newest(settings)):
        return _said(checkpoint.load(path), settings)
    if settings.algo.backbone != "hf_dit":
        raise BadInput(
            f"no checkpoint {named}" if named else f"no checkpoint in {saving.folder(settings)}",
            hint="train first, or eval.checkpoint_path=RUN/checkpoints/last.ckpt "
            "(published weights: algo.backbone=hf_dit eval.checkpoint_path=OWNER/NAME)",
        )
    tokenizer = _tokenizer(settings)
    network = start.network(settings, tokenizer.get_vocab_size(), say).eval()
    return Trained(network, tokenizer, settings.model.length, None, named or "random weights", {})


def place(settings: Settings) -> tuple[torch.device, AbstractContextManager[Any]]:
    """The device, and the context of what is computed there."""
    chosen = machine.decide(settings.trainer, machine.here(settings.trainer))
    for note in chosen.notes:
        say(note)
    device = torch.device("cuda" if chosen.accelerator == "gpu" else "cpu")
    dtype = _TYPES.get(chosen.precision)
    return device, torch.autocast(device.type, dtype) if dtype else nullcontext()


def _said(trained: Trained, settings: Settings) -> Trained:
    say(f"{trained.name}, step {trained.step:,}")
    if trained.length != settings.model.length:
        say(f"its blocks have {trained.length} tokens, so model.length={settings.model.length} is left aside")
    return trained


def _same_text(settings: Settings, trained: Trained) -> str | None:
    """What it was trained on, where the same was asked for: also when that was not to be had then."""
    return trained.text["used"] if trained.text.get("asked", ()) == settings.data.source else None


def _tokenizer(settings: Settings) -> Any:
    folder, source = text.subset(settings.data, None, say)
    saved = Path(settings.checkpointing.save_dir) / "tokenizer.json"
    return text.tokenizer_for(settings.data, saved, folder, source, say)
