"""Checkpoints that lie in a folder already: how large one is, and which are there. Reads names and sizes only."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from outlast.budget.course import Lying
from outlast.budget.sizes import SaveBytes, measured
from outlast.checkpoints import SEAL, Checkpoint, Vault, codec, is_candidate
from outlast.journal import Journal

_MOMENTS = re.compile(r"optimizer.*|.*-optimizer\.pt")
_WEIGHTS = re.compile(r".*\.safetensors|pytorch_model.*|model.*\.bin|.*\.ckpt|.*\.distcp")
_STEP = re.compile(r"(\d+)(?!.*\d)")
_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Found:
    """What lies in a folder of checkpoints."""

    size: SaveBytes | None
    """What one takes, from the newest whole one; None when there is none to judge by."""
    lying: tuple[Lying, ...]
    """All of them, oldest first."""
    seconds_per_step: float | None = None
    """From when the last two of one training were sealed; None when there are no two."""
    paced_by: str = ""
    """Which two."""


def look(root: Path) -> Found:
    """What lies in a folder: sealed checkpoints, and folders that a framework left.

    Args:
        root: the folder; need not exist.
    """
    vault = Vault(root, journal=Journal(root), budgets=())
    sealed = {c.name: c for c in vault.checkpoints() if c.kind}
    lying, size = [], None
    for name in _in_order(root, sealed):
        files = _files(root / name)
        kind = sealed[name].kind if name in sealed else "full" if _has_moments(files) else "weights"
        light = _light(sealed[name].seal.kinds.get("light"), files) if name in sealed and kind != "light" else None
        lying.append(Lying(name, _step(name), sum(files.values()), kind or "full", light))
        if kind == "full" and _sum(files, _WEIGHTS):
            size = _size(files, name)
    return Found(size, tuple(lying), *_pace(list(sealed.values())))


def _pace(sealed: Sequence[Checkpoint]) -> tuple[float | None, str]:
    """Seconds of a step, saving included, between the newest two checkpoints of one training."""
    if len(sealed) < 2 or sealed[-1].seal.lineage != sealed[-2].seal.lineage or not sealed[-1].seal.lineage:
        return None, ""
    before, last = sealed[-2:]
    steps, seconds = last.step - before.step, last.seal.created - before.seal.created
    if steps <= 0 or seconds <= 0:
        return None, ""
    return seconds / steps, f"measured between {before.name} and {last.name}"


def _in_order(root: Path, sealed: Mapping[str, object]) -> list[str]:
    try:
        there = [entry.name for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        there = []
    names = {name for name in there if is_candidate(name)} | set(sealed)
    return sorted(names, key=lambda name: (_step(name), name))


def _step(name: str) -> int:
    match = _STEP.search(name)
    return int(match[1]) if match else 0


def _files(checkpoint: Path) -> dict[str, int]:
    """Allocated bytes of each file, by its path in the checkpoint."""
    if not checkpoint.is_dir():
        return {checkpoint.name: _blocks(checkpoint)}
    found = {}
    for folder, _, names in os.walk(checkpoint):
        for name in names:
            path = Path(folder) / name
            found[path.relative_to(checkpoint).as_posix()] = _blocks(path)
    return found


def _blocks(path: Path) -> int:
    try:
        return -(-os.lstat(path).st_size // _BLOCK) * _BLOCK
    except OSError:
        return 0


def _has_moments(files: Mapping[str, int]) -> bool:
    return bool(_sum(files, _MOMENTS)) or any(name.endswith((".ckpt", ".distcp")) for name in files)


def _sum(files: Mapping[str, int], pattern: re.Pattern[str]) -> int:
    return sum(size for name, size in files.items() if name not in _OURS and pattern.fullmatch(name.split("/")[-1]))


_OURS = (SEAL, codec.SIDECAR)


def _light(names: Sequence[str] | None, files: Mapping[str, int]) -> int | None:
    return sum(files.get(name, 0) for name in names) + _BLOCK if names else None


def _size(files: Mapping[str, int], name: str) -> SaveBytes:
    moments, weights = _sum(files, _MOMENTS), _sum(files, _WEIGHTS)
    ours = sum(files.get(one, 0) for one in _OURS)
    small = sum(files.values()) - moments - weights - ours
    size = measured(weights, moments, max(0, small), name)
    return size if not ours else SaveBytes(weights, moments, max(0, small), ours, size.source)
