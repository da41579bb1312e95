"""The seal of a checkpoint: what is in it, and the proof that it is whole.

A folder counts as a checkpoint once ``outlast.json`` is in it and agrees with the files beside it. The seal lists, for
each kind that the checkpoint can be (full, then light), the files that this kind needs. So making a checkpoint light
is an unlink, and which kind it is now follows from which files are there. A checkpoint that is one file (Lightning's
``.ckpt``) has its seal in ``.outlast/seals/NAME.json`` of the folder above it.
"""

from __future__ import annotations

import json
import math
import os
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from outlast import durable
from outlast.checkpoints import digest
from outlast.errors import SealError
from outlast.journal import FOLDER

NAME = "outlast.json"
"""The seal's file name in a checkpoint folder."""
FORMAT = 1
"""Version of the seal's format; a newer one is refused, not guessed at."""
KINDS = ("full", "compact", "light", "weights")
"""Kinds of checkpoint, richest first. ``weights`` is what was given to us without any training state."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One sealed file."""

    bytes: int
    """Length in bytes."""
    digest: str
    """``algorithm:hex`` of its content."""


@dataclass(frozen=True, slots=True)
class Seal:
    """What a seal says."""

    step: int
    """Optimizer steps done when it was saved."""
    layout: str
    """Who laid the files out: ``outlast``, ``transformers``, ``accelerate``, ``lightning``."""
    files: Mapping[str, Entry]
    """Every file, by its path relative to the checkpoint, with ``/``."""
    kinds: Mapping[str, tuple[str, ...]]
    """For each kind that this checkpoint can be, richest first: the files that it needs."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Metrics known at the save; for retention."""
    made: str = "saved"
    """``saved`` by Outlast, or ``adopted`` as it was found."""
    lineage: str = ""
    """Which training this belongs to: kept over resumes, new for a fresh start; empty when adopted."""
    created: float = 0.0
    """Seconds since the epoch."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """Why it is as it is, e.g. that it had to be light."""


@dataclass(frozen=True, slots=True)
class Check:
    """Result of checking a checkpoint against its seal."""

    kind: str | None
    """Richest kind of which every file is there and as sealed; None when not even the least is."""
    problems: tuple[str, ...]
    """What is wrong, a line each. A file that a poorer kind can do without is no problem when it is gone."""

    @property
    def is_whole(self) -> bool:
        """True when the checkpoint is a kind and nothing in it is damaged."""
        return self.kind is not None and not self.problems


def path_of(checkpoint: Path) -> Path:
    """Where the seal of a checkpoint is: inside a folder, beside a file."""
    if checkpoint.is_dir():
        return checkpoint / NAME
    return checkpoint.parent / FOLDER / "seals" / f"{checkpoint.name}.json"


def measure(checkpoint: Path, known: Mapping[str, Entry] | None = None) -> dict[str, Entry]:
    """Length and digest of each file of a checkpoint, without the seal itself.

    Args:
        checkpoint: a folder or a file.
        known: entries that need not be read again.

    Raises:
        SealError: for a link or special file in it: a seal vouches for bytes that are here.
    """
    known = known or {}
    return {
        name: known.get(name) or Entry(os.stat(path).st_size, digest.of_file(path))
        for name, path in files_in(checkpoint).items()
    }


def files_in(checkpoint: Path) -> dict[str, Path]:
    """Regular files of a checkpoint by relative name, sorted, without the seal.

    Raises:
        SealError: for a link or special file.
    """
    if not checkpoint.is_dir():
        return {checkpoint.name: checkpoint}
    found: dict[str, Path] = {}
    for folder, folders, names in os.walk(checkpoint):
        for name in names + [name for name in folders if os.path.islink(os.path.join(folder, name))]:
            path = Path(folder, name)
            relative = path.relative_to(checkpoint).as_posix()
            if relative == NAME:
                continue
            if not stat.S_ISREG(os.lstat(path).st_mode):
                raise SealError(
                    f"{path} is not a regular file",
                    hint="a checkpoint that is sealed must hold its own bytes: replace the link by the file",
                )
            found[relative] = path
    return dict(sorted(found.items()))


def write(checkpoint: Path, seal: Seal) -> None:
    """Write a seal durably, as the last thing of a save. The files must be fsynced already.

    Raises:
        OSError: when the volume is full; nothing is sealed then.
    """
    record: dict[str, Any] = {
        "format": FORMAT,
        "step": seal.step,
        "layout": seal.layout,
        "made": seal.made,
        "lineage": seal.lineage,
        "created": seal.created or time.time(),
        "metrics": dict(seal.metrics),
        "kinds": {kind: list(names) for kind, names in seal.kinds.items()},
        "files": {name: {"bytes": e.bytes, "digest": e.digest} for name, e in seal.files.items()},
        "notes": dict(seal.notes),
    }
    record["check"] = _own_digest(record)
    durable.write_bytes(path_of(checkpoint), json.dumps(record, indent=1).encode() + b"\n")


def _own_digest(record: Mapping[str, Any]) -> str:
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return digest.of_bytes(text.encode(), "blake2b")


def read(checkpoint: Path) -> Seal:
    """The seal of a checkpoint.

    Raises:
        SealError: when there is none, it is torn or altered, or it is from a newer Outlast.
    """
    path = path_of(checkpoint)
    try:
        return _parse(path.read_bytes())
    except FileNotFoundError:
        raise SealError(
            f"{checkpoint} has no seal", hint="outlast checkpoints verify adopts it if it is whole"
        ) from None
    except OSError as error:
        raise SealError(f"{path} cannot be read: {durable.why_not(error)}", hint="see to the volume") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise SealError(
            f"{path} is not a whole seal: {error}", hint="resume from another checkpoint; this one is set aside"
        ) from None


def _parse(data: bytes) -> Seal:
    record = json.loads(data)
    if record["format"] != FORMAT:
        raise ValueError(f"format {record['format']!r}, this Outlast reads {FORMAT}")
    if record.pop("check") != _own_digest(record):
        raise ValueError("its own digest does not match")
    files = {_inside(name): Entry(int(e["bytes"]), str(e["digest"])) for name, e in record["files"].items()}
    kinds = {kind: tuple(names) for kind, names in record["kinds"].items()}
    if not kinds or not set(kinds) <= set(KINDS) or not all(set(names) <= set(files) for names in kinds.values()):
        raise ValueError("its kinds do not fit its files")
    return Seal(
        step=int(record["step"]),
        layout=str(record["layout"]),
        files=files,
        kinds={kind: kinds[kind] for kind in KINDS if kind in kinds},
        metrics={str(key): float(value) for key, value in record["metrics"].items()},
        made=str(record["made"]),
        lineage=str(record["lineage"]),
        created=_finite(record["created"]),
        notes=dict(record["notes"]),
    )


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is no time")
    return number


def _inside(name: str) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or name.startswith("/") or ".." in parts or "\0" in name:
        raise ValueError(f"{name!r} leads out of the checkpoint")
    return name


def kind_by_presence(checkpoint: Path, seal: Seal) -> str | None:
    """Richest kind of which every file is there with its sealed length. Reads no content."""
    lengths = _lengths(checkpoint, seal)
    return _richest(seal, [name for name, entry in seal.files.items() if lengths[name] == entry.bytes])


def cut_files(checkpoint: Path, seal: Seal) -> list[str]:
    """Sealed files that are there with another length than they were sealed with. Reads no content."""
    lengths = _lengths(checkpoint, seal)
    return [name for name, entry in seal.files.items() if lengths[name] not in (None, entry.bytes)]


def _lengths(checkpoint: Path, seal: Seal) -> dict[str, int | None]:
    """Length of each sealed file; None when it is missing, or a link or folder stands in its place."""
    # Text, because a Path for each file would take most of the time of a list of thousands.
    if checkpoint.is_dir():
        folder = str(checkpoint)
        return {name: _length(f"{folder}/{name}") if _is_within(folder, name) else None for name in seal.files}
    return dict.fromkeys(seal.files, _length(str(checkpoint)))


def _is_within(folder: str, name: str) -> bool:
    """False when a folder on the way is a link: what is behind it is not this checkpoint's."""
    parents = name.split("/")[:-1]
    return not any(os.path.islink("/".join([folder, *parents[: depth + 1]])) for depth in range(len(parents)))


def _length(path: str) -> int | None:
    try:
        info = os.lstat(path)
    except OSError:
        return None
    return info.st_size if stat.S_ISREG(info.st_mode) else None


def is_there(checkpoint: Path, name: str) -> bool:
    """True when a file of a checkpoint folder is there as a regular file of its own."""
    return _is_within(str(checkpoint), name) and _length(f"{checkpoint}/{name}") is not None


def _richest(seal: Seal, good: Sequence[str]) -> str | None:
    return next((kind for kind, names in seal.kinds.items() if set(names) <= set(good)), None)


def check(checkpoint: Path, seal: Seal, known: Mapping[str, Entry] | None = None) -> Check:
    """Read every sealed file and compare its length and digest.

    Args:
        checkpoint: a folder or a file.
        seal: what it should be.
        known: entries that this process has already checked and that have not changed since.
    """
    known = known or {}
    good: list[str] = []
    missing: list[str] = []
    problems: list[str] = []
    lengths = _lengths(checkpoint, seal)
    for name, entry in seal.files.items():
        length = lengths[name]
        if length is None:
            missing.append(name)
        elif length != entry.bytes:
            problems.append(f"{name} has {length} bytes, sealed with {entry.bytes}")
        elif known.get(name) == entry or _readable_match(checkpoint, name, entry, problems):
            good.append(name)
    kind = _richest(seal, good)
    needed = set(seal.kinds[kind]) if kind else set().union(*map(set, list(seal.kinds.values())[-1:]))
    problems.extend(f"{name} is missing" for name in missing if name in needed)
    return Check(kind, tuple(problems))


def _readable_match(checkpoint: Path, name: str, entry: Entry, problems: list[str]) -> bool:
    try:
        if digest.matches(checkpoint / name if checkpoint.is_dir() else checkpoint, entry.digest):
            return True
        problems.append(f"{name} does not have the content that was sealed")
    except OSError as error:
        problems.append(f"{name} cannot be read: {durable.why_not(error)}")
    return False
