"""What each framework's checkpoint consists of: data, and opening the files to see whether they are whole.

Used for folders that have no seal: they are adopted when all that their framework needs is there and parses, and set
aside otherwise. Nothing is unpickled.
"""

from __future__ import annotations

import json
import pickletools
import re
import struct
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

INCOMPLETE = "checkpoint-is-incomplete.txt"
"""Mark that the Trainer's save on SIGTERM leaves while it is under way, and that nothing in Transformers reads."""
_HEADER_LIMIT = 100 << 20  # safetensors' own limit for its JSON header


@dataclass(frozen=True, slots=True)
class Layout:
    """What a kind of checkpoint folder must hold."""

    name: str
    """``transformers``, ``accelerate`` ..."""
    folder: re.Pattern[str]
    """Names of its folders, with the step as first group."""
    weights: tuple[str, ...]
    """Globs; at least one file must match one of them."""
    training: tuple[str, ...]
    """Globs of what exact resume needs; each must match. Without them the checkpoint holds weights only."""
    required: tuple[str, ...]
    """Globs of what must be there in any case, as the framework writes it last."""


LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "transformers",
        re.compile(r"checkpoint-(\d+)"),
        ("*.safetensors", "pytorch_model*.bin", "*/adapter_model.safetensors", "pytorch_model_fsdp*", "global_step*/*"),
        ("scheduler.pt", "rng_state*.pth"),
        ("trainer_state.json",),
    ),
    Layout(
        "accelerate",
        re.compile(r"checkpoint[-_](\d+)"),
        ("model*.safetensors", "pytorch_model*", "*.distcp"),
        ("optimizer*.bin",),
        ("random_states_*.pkl",),
    ),
    Layout(
        "outlast",
        re.compile(r"step-(\d+)"),
        ("model.safetensors",),
        ("optimizer.safetensors",),
        ("state.safetensors",),
    ),
    Layout(
        "torch.distributed.checkpoint",
        re.compile(r"(?:step|checkpoint)-(\d+)"),
        ("*.distcp",),
        ("*.distcp",),
        (".metadata",),
    ),
)
"""Layouts that are recognised without a seal. Adding a framework is adding a row."""

_FILES = re.compile(r"(?:.*step=\d+.*|last(?:-v\d+)?)\.ckpt")
"""Lightning's own names for its checkpoints, each one file. Other names may be anyone's, and are left alone."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found in a folder without a seal."""

    layout: str
    """Name of the layout."""
    step: int
    """Step from the folder's name; of a file, from what it holds."""
    kind: str | None
    """``full`` or ``weights``; None when it is not whole."""
    problems: tuple[str, ...]
    """Why it is not whole."""


def is_candidate(name: str) -> bool:
    """True when a tool would take a folder of this name for a checkpoint."""
    return any(layout.folder.fullmatch(name) for layout in LAYOUTS)


def is_file_candidate(name: str) -> bool:
    """True when a tool would take a file of this name for a checkpoint."""
    return _FILES.fullmatch(name) is not None


def is_partial(folder: Path, name: str) -> bool:
    """True when a folder, once of this name, holds weights or training state as some framework writes them."""
    layouts = [layout for layout in LAYOUTS if layout.folder.fullmatch(name)]
    return folder.is_dir() and any(_has(folder, (*layout.weights, *layout.training)) for layout in layouts)


def inspect(checkpoint: Path) -> Findings:
    """Open and parse each file of a checkpoint without a seal."""
    if checkpoint.is_file():
        return _inspect_file(checkpoint)
    layout = _layout_of(checkpoint)
    match = layout.folder.fullmatch(checkpoint.name)
    step = int(match[1]) if match else 0
    missing = [pattern for pattern in layout.required if not _has(checkpoint, (pattern,))]
    problems = [f"{pattern} is missing" for pattern in missing]
    if not _has(checkpoint, layout.weights):
        problems.append("no weights: none of " + ", ".join(layout.weights[:2]))
    if (checkpoint / INCOMPLETE).exists():
        problems.append("marked incomplete by the Trainer's save on SIGTERM")
    problems += [f"{path.name}: {fault}" for path in sorted(checkpoint.rglob("*")) if (fault := fault_in(path))]
    problems += _missing_shards(checkpoint)
    has_training = all(_has(checkpoint, (pattern,)) for pattern in layout.training)
    optimizers = ("optimizer*", "global_step*", "pytorch_model_fsdp*", "*-optimizer.pt", "*.distcp")
    has_optimizer = _has(checkpoint, optimizers)
    if has_training != has_optimizer and not problems and layout.name == "transformers":
        problems.append("its optimizer, scheduler and random state are not all there")
    kind = None if problems else "full" if has_training and has_optimizer else "weights"
    return Findings(layout.name, step, kind, tuple(problems))


def _layout_of(checkpoint: Path) -> Layout:
    """Frameworks share names (``checkpoint-500``): the one whose last-written file is there wrote it."""
    named = [layout for layout in LAYOUTS if layout.folder.fullmatch(checkpoint.name)]
    return next((layout for layout in named if all(_has(checkpoint, (p,)) for p in layout.required)), named[0])


def _inspect_file(checkpoint: Path) -> Findings:
    fault = fault_in(checkpoint)
    if fault:
        return Findings("lightning", 0, None, (f"{checkpoint.name} {fault}",))
    step, has_optimizer = 0, False
    try:
        step, has_optimizer = _read_lightning(checkpoint)
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        return Findings("lightning", 0, None, (f"{checkpoint.name} does not parse: {error}",))
    return Findings("lightning", step, "full" if has_optimizer else "weights", ())


def _read_lightning(checkpoint: Path) -> tuple[int, bool]:
    """Step, and whether there is an optimizer's state: read off the pickle's opcodes, nothing is unpickled."""
    step: int | None = None
    has_optimizer = is_next = False
    for value in _constants(checkpoint):
        if is_next and isinstance(value, int):
            step, is_next = value, False
        is_next = is_next or (step is None and value == "global_step")
        has_optimizer = has_optimizer or value == "optimizer_states"
    return step or 0, has_optimizer


def _constants(checkpoint: Path) -> Iterator[object]:
    """Text and numbers of a torch file's pickle, in order, without the numbers that the memo is kept with."""
    if not zipfile.is_zipfile(checkpoint):
        return  # torch's format before 1.6
    with zipfile.ZipFile(checkpoint) as archive:
        name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
        for code, argument, _ in pickletools.genops(archive.read(name)):
            if argument is not None and "PUT" not in code.name and "GET" not in code.name:
                yield argument


def _has(checkpoint: Path, patterns: Sequence[str]) -> bool:
    return any(any(checkpoint.glob(pattern)) for pattern in patterns)


def _missing_shards(checkpoint: Path) -> list[str]:
    problems = []
    for index in checkpoint.glob("*.index.json"):
        try:
            shards = set(json.loads(index.read_bytes())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # named by fault_in already
        problems += [f"shard {name} is missing" for name in sorted(shards) if not (checkpoint / str(name)).is_file()]
    return problems


def fault_in(path: Path) -> str | None:
    """What is wrong with a file, judged by its own format; None when nothing is, or the format is unknown."""
    check = _CHECKS.get(path.suffix)
    if path.is_symlink():
        return "is a link; a checkpoint must hold its own bytes"
    if check is None or not path.is_file():
        return None
    try:
        return check(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError) as error:
        return f"does not parse: {error}"


def _safetensors_fault(path: Path) -> str | None:
    length = path.stat().st_size
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        if size > min(_HEADER_LIMIT, length - 8):
            return f"its header of {size} bytes does not fit in {length}"
        header = json.loads(file.read(size))
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    expected = 8 + size + max(ends, default=0)
    return None if length == expected else f"has {length} bytes, its header says {expected}"


def _torch_fault(path: Path) -> str | None:
    """A .pt file of torch is a zip: its directory is at the end, so a cut file has none."""
    with path.open("rb") as file:
        start = file.read(4)
    if start[:2] != b"PK":
        # torch's older format and plain pickles start with the protocol mark; they cannot be checked without loading.
        return None if start[:1] == b"\x80" else "is neither a zip nor a pickle"
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        return f"its zip directory is torn: {error}"
    return None if any(name.endswith(("data.pkl", "constants.pkl")) for name in names) else "holds no data.pkl"


def _json_fault(path: Path) -> str | None:
    json.loads(path.read_bytes())
    return None


_CHECKS: dict[str, Callable[[Path], str | None]] = {
    ".safetensors": _safetensors_fault,
    ".pt": _torch_fault,
    ".pth": _torch_fault,
    ".ckpt": _torch_fault,
    ".bin": _torch_fault,
    ".json": _json_fault,
}
