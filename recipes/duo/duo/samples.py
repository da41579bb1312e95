"""Text drawn from a network, into a JSON file that is whole at every moment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from duo import sampler
from duo.batches import mixed
from duo.dit import DiT
from duo.settings import Settings
from outlast import durable


def write(
    path: Path,
    network: DiT,
    tokenizer: Any,
    settings: Settings,
    device: torch.device,
    facts: Mapping[str, Any],
    autocast: AbstractContextManager[Any] | None = None,
) -> int:
    """Draw samples and write them, after each batch anew.

    Args:
        path: the file.
        network: in eval mode, on the device.
        tokenizer: makes text of the tokens.
        settings: how to draw, and how many.
        device: where to.
        facts: what else the file says.
        autocast: context of the network's calls.

    Returns:
        How many were drawn.
    """
    asked, batch = settings.sampling, settings.loader.eval_batch_size
    removal = "greedy" if asked.predictor == "greedy_tail" else asked.noise_removal
    generator = torch.Generator(device).manual_seed(mixed(settings.seed, "samples"))
    texts: list[str] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    bar = tqdm(total=asked.num_sample_batches * asked.steps, desc="sampling", unit="step", leave=False)
    with bar, autocast or nullcontext():
        for _ in range(asked.num_sample_batches):
            drawn = sampler.sample(
                network,
                batch,
                settings.model.length,
                asked.steps,
                generator=generator,
                noise_removal=removal,
                p_nucleus=asked.p_nucleus,
                use_float64=asked.use_float64,
                progress=lambda done, steps: bar.update(),
            )
            # Published networks may know a mask beyond the tokenizer; it has no text.
            texts += tokenizer.decode_batch(drawn.cpu().tolist(), skip_special_tokens=False)
            held = {**facts, "steps": asked.steps, "noise_removal": removal, "p_nucleus": asked.p_nucleus}
            held["samples"] = [{"text": text} for text in texts]
            durable.write_bytes(path, json.dumps(held, indent=1, ensure_ascii=False).encode())
    return len(texts)
