"""A checkpoint of this program read for evaluation: the mean weights, the network and its tokenizer. No code is run."""

from __future__ import annotations

import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from duo import tokens, training
from duo.dit import DiT
from duo.ema import Ema
from duo.settings import Model
from outlast.checkpoints import Vault
from outlast.errors import BadInput


@dataclass(frozen=True, slots=True)
class Trained:
    """A network that can be evaluated."""

    network: DiT
    tokenizer: Any
    length: int
    """Tokens of a block that it was trained on."""
    step: int | None
    """Steps that it was trained for; None for published weights, which don't say."""
    name: str
    """Where it came from."""
    text: dict[str, Any]
    """What it was trained on: ``asked`` for and ``used``; empty where it is not known."""


def load(path: Path) -> Trained:
    """Read a checkpoint onto the CPU, with the mean weights where it has them.

    Raises:
        BadInput: when the file is not one of this program.
    """
    _verified(path)
    try:
        # Memory-mapped: the optimizer's state, half of the file, is never read.
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError as error:
        raise BadInput(f"no checkpoint {path}", hint="eval.checkpoint_path=.../checkpoints/last.ckpt") from error
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise BadInput(
            f"{path} is not a whole checkpoint: {reason}", hint="`outlast checkpoints list` shows others"
        ) from error
    carried = checkpoint.get(training.CARRIED) if isinstance(checkpoint, dict) else None
    if not carried:
        raise BadInput(f"{path} is not a checkpoint of this program", hint="a .ckpt that mode=train wrote")
    model = Model(**carried["model"])
    network = training.network(model, carried["vocab"])
    prefix = "network."
    weights = {name.removeprefix(prefix): value for name, value in checkpoint["state_dict"].items()}
    network.load_state_dict(weights)
    if carried["ema"]:
        mean = Ema(network.parameters(), 0.0)
        mean.load_state_dict(carried["ema"])
        mean.swap()
    return Trained(
        network.eval(), tokens.from_text(carried["tokenizer"]), model.length, int(checkpoint["global_step"]), str(path),
        carried["text"],
    )  # fmt: skip


def _verified(path: Path) -> None:
    """What Outlast sealed has to be what was sealed: a flipped bit would only be another perplexity.

    Raises:
        BadInput: when it is not.
    """
    real = Path(os.path.realpath(path))
    if not real.is_file():
        return
    vault = Vault(real.parent)
    sealed = next((one for one in vault.checkpoints() if one.name == real.name), None)
    if sealed is not None and not (found := vault.check(sealed)).is_whole:
        reason = "; ".join(map(str, found.problems))[:200]
        raise BadInput(f"{path} is not a whole checkpoint: {reason}", hint="`outlast checkpoints list` shows others")
