"""Is this machine ready to train? Facts are looked up at one place, judged at another; a line each, with its fix."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from duo import network
from outlast.host import room

OK, NOTE, BAD = "✓", "!", "✗"
NEEDED = {
    "torch": "pip install torch",
    "lightning": "pip install '.[recipes]', in a clone of Outlast",
    "hydra-core": "pip install '.[recipes]', in a clone of Outlast",
    "tokenizers": "pip install '.[recipes]', in a clone of Outlast",
    "pyarrow": "pip install '.[recipes]', in a clone of Outlast",
    "huggingface_hub": "pip install '.[recipes]', in a clone of Outlast",
}
"""Distributions that the program imports, and how to get them."""
SAVES = 4
"""Checkpoints on disk at once: two newest, the best, and the one being written."""
CHECKPOINT_BYTES = 2_720_000_000
"""Of model=small with GPT-2's vocabulary: 170 M parameters, four copies of them in fp32."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found."""

    python: tuple[int, int]
    versions: Mapping[str, str | None]
    """Version of each needed distribution; None where it is not installed."""
    lightning_as: str | None
    """Version of the older distribution pytorch-lightning; None where it is not installed."""
    gpus: tuple[tuple[str, float, str], ...] | None
    """Name, memory in GB and best precision of each GPU; None where torch cannot be asked."""
    flash: bool
    wandb: bool
    place: str
    """Where the run goes."""
    free_bytes: int | None
    """Bytes that can be written there; None when unknown."""
    can_write: bool
    hub: bool
    """The hub's name resolves and answers a connection."""
    subset: str | None
    """OWT_SUBSET_NUM as it is set."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the report."""

    mark: str
    what: str
    fix: str | None = None
    """What to do; None where nothing is to do."""

    def __str__(self) -> str:
        return f"{self.mark} {self.what}" + (f"\n    fix: {self.fix}" if self.fix else "")


def judge(facts: Facts) -> list[Line]:
    """A line for each thing that a training needs. Pure."""
    return [line for judged in JUDGES for line in judged(facts)]


def _python(facts: Facts) -> Iterator[Line]:
    version = ".".join(map(str, facts.python))
    yield (
        Line(OK, f"Python {version}")
        if facts.python >= (3, 11)
        else Line(BAD, f"Python {version}", "Python 3.11 or newer")
    )


def _packages(facts: Facts) -> Iterator[Line]:
    for name, fix in NEEDED.items():
        version = facts.versions.get(name)
        if version:
            yield Line(OK, f"{name} {version}")
        elif name == "lightning" and facts.lightning_as:
            yield Line(BAD, f"pytorch-lightning {facts.lightning_as}, the program wants lightning", fix)
        else:
            yield Line(BAD, f"{name} is not installed", fix)


def _gpu(facts: Facts) -> Iterator[Line]:
    if facts.gpus is None:
        return  # torch is missing, which has its own line
    if not facts.gpus:
        yield Line(NOTE, "no GPU: a CPU is for model=toy", "Kaggle: Settings, Accelerator")
    for name, gigabytes, precision in facts.gpus:
        yield Line(OK, f"{name}, {gigabytes:.0f} GB, best at {precision}")
        if gigabytes < 7:
            yield Line(NOTE, f"{gigabytes:.0f} GB are little for model=small", "model=tiny, or model.length=256")
    if facts.gpus and not facts.flash:
        yield Line(OK, "flash-attn is not installed, and not needed: torch's own attention is used")


def _wandb(facts: Facts) -> Iterator[Line]:
    if facts.wandb:
        yield Line(OK, "wandb is installed")
    else:
        yield Line(OK, "wandb is not installed, and not needed: figures go to log.jsonl")


def _disk(facts: Facts) -> Iterator[Line]:
    if not facts.can_write:
        yield Line(BAD, f"{facts.place} cannot be written", "checkpointing.save_dir=A_FOLDER_OF_YOURS")
        return
    if facts.free_bytes is None:
        yield Line(NOTE, f"free room at {facts.place} is not known", "outlast doctor")
        return
    free, wanted = facts.free_bytes / 1e9, SAVES * CHECKPOINT_BYTES / 1e9
    text = f"{free:.1f} GB free at {facts.place}; model=small wants {wanted:.0f} GB for its checkpoints"
    if free >= wanted:
        yield Line(OK, text)
    elif free >= wanted / 2:
        yield Line(
            NOTE, text, "checkpointing.keep_last=1 checkpointing.keep_best=0, or scripts/cleanup_kaggle_cache.sh"
        )
    else:
        yield Line(BAD, text, "model=tiny (0.5 GB each), or scripts/cleanup_kaggle_cache.sh")


def _network(facts: Facts) -> Iterator[Line]:
    if facts.hub:
        yield Line(OK, "the hub can be reached")
    else:
        yield Line(
            NOTE,
            "the hub cannot be reached: this Python's own library would be the text",
            "Kaggle: Settings, Internet on; or data=offline",
        )


def _subset(facts: Facts) -> Iterator[Line]:
    if facts.subset is None:
        yield Line(
            NOTE,
            "OWT_SUBSET_NUM is not set: main.py takes all of OpenWebText, 40 GB; the scripts 11,000 documents",
            "export OWT_SUBSET_NUM=11000",
        )
    elif not facts.subset.isdecimal() or int(facts.subset) < 2:
        yield Line(BAD, f"OWT_SUBSET_NUM={facts.subset} is no number of documents", "export OWT_SUBSET_NUM=11000")
    else:
        train = int(facts.subset) * 9 // 10
        rest = int(facts.subset) - train
        yield Line(OK, f"OWT_SUBSET_NUM={facts.subset}: {train:,} documents to train on, {rest:,} held out")


JUDGES: tuple[Callable[[Facts], Iterator[Line]], ...] = (_python, _packages, _gpu, _wandb, _disk, _network, _subset)
"""What is looked at, in the order of the report."""


def look(place: Path, environment: Mapping[str, str] = os.environ) -> Facts:
    """Facts of this machine.

    Args:
        place: where the run is to go.
        environment: variables.
    """
    here = room(place)
    return Facts(
        python=sys.version_info[:2],
        versions={name: _version(name) for name in NEEDED},
        lightning_as=_version("pytorch-lightning"),
        gpus=_gpus(),
        flash=_version("flash-attn") is not None,
        wandb=_version("wandb") is not None,
        place=str(place),
        free_bytes=here.free_bytes,
        can_write=os.access(here.path, os.W_OK),
        hub=network.unreachable("hf://", environment) is None,
        subset=environment.get("OWT_SUBSET_NUM"),
    )


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpus() -> tuple[tuple[str, float, str], ...] | None:
    try:
        import torch
    except ImportError:
        return None
    from outlast.train import precision

    found = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        best = precision.decide(precision.look(f"cuda:{index}")).name
        properties = torch.cuda.get_device_properties(index)
        found.append((properties.name, properties.total_memory / 1e9, best))
    return tuple(found)
