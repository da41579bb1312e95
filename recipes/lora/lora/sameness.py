"""What a run is, beside its adapter: written down at its first step, looked at before it goes on.

The Trainer would go on without a word: with other data or another batch at the wrong place of them, with another
learning rate at the old one, which is in the checkpoint.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from lora.masking import Samples
from lora.settings import Settings
from outlast import durable
from outlast.errors import BadInput

NAME = "run.json"
_BINDING = ("lora_dropout", "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "optim", "seed")
"""Settings with another value of which it would be another training. How long it is may change."""


def identity(settings: Settings, samples: Samples, world: int) -> dict[str, Any]:
    """What must not change from one session of a run to the next.

    Args:
        settings: what it was told.
        samples: its training data, as tokens.
        world: processes that train.
    """
    batch = settings.per_device_train_batch_size * settings.gradient_accumulation_steps * world
    digest = hashlib.blake2b(digest_size=16)
    for values in (samples.ends, samples.ids, samples.learned):
        digest.update(values.tobytes())
    return {name: getattr(settings, name) for name in _BINDING} | {"batch": batch, "data": digest.hexdigest()}


def remember(root: Path, settings: Settings, samples: Samples, world: int) -> None:
    """Write it into the run's folder, once: it is checked at each later start."""
    content = json.dumps(identity(settings, samples, world), indent=1).encode()
    if not (root / NAME).exists() or (root / NAME).read_bytes() != content:
        root.mkdir(parents=True, exist_ok=True)
        durable.write_bytes(root / NAME, content)


def check(root: Path, settings: Settings, samples: Samples, world: int) -> None:
    """Whether the run in a folder with checkpoints is this one.

    Raises:
        BadInput: when it is another one, with what differs.
    """
    try:
        before = json.loads((root / NAME).read_bytes())
    except (OSError, ValueError):
        return  # of a run that was begun without it
    now = identity(settings, samples, world)
    differing = [name for name in now if before.get(name) != now[name]]
    if differing:
        told = "; ".join(f"{name}: {before.get(name)} there, {now[name]} now" for name in differing)
        raise BadInput(f"{root} holds another training ({told})", hint="the same settings, or another --output-dir")
