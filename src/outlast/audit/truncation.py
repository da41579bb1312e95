"""The best adapter of a smaller rank: of each layer's update the leading singular vectors, in balanced factors.

By Eckart and Young (1936) no update of rank k is nearer to a layer's in Frobenius (or spectral) norm. The scale of
each layer stays, so that the smaller adapter stands in for the larger. The folder appears as a whole, or not at all.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from outlast import durable
from outlast.audit.adapter import Adapter, Factors, as_saved, read
from outlast.audit.places import CONFIG, WEIGHTS
from outlast.audit.report import audit, chosen
from outlast.audit.spectra import core, lost, of_values
from outlast.audit.stored import FLOATS, Stored, narrow, widen
from outlast.audit.suggest import Pattern, pattern_of
from outlast.checkpoints import Reservation, ReservedFile
from outlast.checkpoints.tensors import Plain, write
from outlast.errors import BadInput, NoRoom
from outlast.host import explain_full, room

_HEADER_BYTES = 400
"""Of a tensor in the file's header, at most: names are about 100."""
PER_LAYER = "per-layer"


@dataclass(frozen=True, slots=True)
class Cut:
    """What became of one layer."""

    name: str
    """In the base model."""
    r: int
    """Rank before."""
    rank: int
    """Rank now."""
    error: float | None
    """||dW - dW'||_F / ||dW||_F by the singular values that were left out; None for an update of zero."""
    stored_error: float | None
    """The same, measured on the factors as they were stored: rounding comes in."""


@dataclass(frozen=True, slots=True)
class Truncation:
    """A smaller adapter."""

    folder: str
    """Where it is."""
    cuts: tuple[Cut, ...]
    """By layer."""
    pattern: Pattern
    """Its ranks and alphas."""
    bytes_before: int
    """Of the adapter's tensors."""
    bytes_after: int
    """Of the smaller one's."""
    notes: tuple[str, ...]
    """What the user should know."""


def truncate(path: str | Path, rank: int | str, out: str | Path, *, adapter: str | None = None) -> Truncation:
    """Write the best adapter of a smaller rank as PEFT would save it.

    Args:
        path: what `audit_lora_peft_dir` takes.
        rank: for all layers, at most; ``per-layer``, ``uniform-median`` or ``uniform-p90``: as the audit suggests.
        out: a folder that is not there yet, or empty.
        adapter: which one, where there are several.

    Raises:
        BadInput: when there is no such adapter or rank, a part of it cannot be truncated, or ``out`` is taken.
    """
    target = Path(out)
    if os.path.lexists(target) and (not target.is_dir() or any(target.iterdir())):
        raise BadInput(
            f"{target} is there already", hint="-o with a folder that is not there yet: nothing is overwritten"
        )
    found = as_saved(read(Path(path), adapter))
    settings = found.settings
    if settings is None:
        raise BadInput(
            f"{found.place.folder} has no {CONFIG}: a smaller one cannot be written",
            hint=f"put the {CONFIG} that PEFT wrote beside it",
        )
    if found.skipped:
        raise BadInput(f"not all of it can be truncated: {found.skipped[0]}", hint="outlast audit shows what is read")
    ranks = _ranks(found, rank)
    layers = [_truncated(one, ranks[one.name]) for one in found.factors]
    pattern = pattern_of(found.factors, ranks, is_rslora=settings.is_rslora)
    tensors = {name: _plain(tensor) for name, tensor in found.rest.items()}
    for one, (_, b, a) in zip(found.factors, layers, strict=True):
        kind, part = ("lora_embedding_", "") if one.is_embedding else ("lora_", ".weight")
        tensors[f"{one.key}.{kind}A{part}"] = _entry(a, one.a, (ranks[one.name], *one.a.shape[1:]))
        tensors[f"{one.key}.{kind}B{part}"] = _entry(b, one.b, (one.b.shape[0], ranks[one.name], *one.b.shape[2:]))
    document = {**settings.document, **config_of(pattern)}
    _write(target, tensors, document)
    notes = ("DoRA: its magnitudes are kept as they are",) if settings.is_dora else ()
    after = sum(len(data) for _, _, data in tensors.values())
    return Truncation(str(target), tuple(cut for cut, _, _ in layers), pattern, found.bytes, after, notes)


def config_of(pattern: Pattern) -> dict[str, Any]:
    """The entries of a LoraConfig that a suggestion decides."""
    alpha = {} if pattern.lora_alpha is None else {"lora_alpha": pattern.lora_alpha}
    return {
        "r": pattern.r,
        **alpha,
        "rank_pattern": dict(pattern.rank_pattern),
        "alpha_pattern": dict(pattern.alpha_pattern),
    }


def _ranks(found: Adapter, rank: int | str) -> dict[str, int]:
    if isinstance(rank, int) and not isinstance(rank, bool):
        if rank < 1:
            raise BadInput(f"the rank is {rank}", hint="expected a whole number of at least 1")
        return {one.name: min(rank, one.r) for one in found.factors}
    return dict(chosen(audit(found), str(rank)).ranks)


def _truncated(one: Factors, rank: int) -> tuple[Cut, Any, Any]:
    """What is lost, and the smaller B and A."""
    b, a = one.load()
    if rank == one.r:
        return Cut(one.name, one.r, rank, 0.0, 0.0), b, a
    q_b, r_b = np.linalg.qr(b)
    q_a, r_a = np.linalg.qr(a.T)
    left, sigmas, right = np.linalg.svd(r_b @ r_a.T, full_matrices=False)
    # Factors may have fewer rows than their rank: what is beyond is zero.
    kept = min(rank, len(sigmas))
    root = np.sqrt(sigmas[:kept])
    small_b, small_a = np.zeros((len(b), rank)), np.zeros((rank, a.shape[1]))
    small_b[:, :kept] = q_b @ (left[:, :kept] * root)
    small_a[:kept] = (root[:, None] * right[:kept]) @ q_a.T
    stored = (_rounded(small_b, one.b), _rounded(small_a, one.a))
    return Cut(one.name, one.r, rank, lost(sigmas, rank), _distance(b, a, *stored)), small_b, small_a


def _rounded(array: Any, like: Stored) -> Any:
    flat = np.frombuffer(narrow(array, like.dtype), FLOATS[like.dtype])
    return widen(flat, like.dtype).astype(np.float64).reshape(array.shape)


def _distance(b: Any, a: Any, small_b: Any, small_a: Any) -> float | None:
    """||B A - B' A'||_F / ||B A||_F; the difference is one product of the factors side by side."""
    whole = of_values(np.linalg.svd(core(b, a)[0], compute_uv=False)).fro_norm * 2.0 ** core(b, a)[1]
    if not whole:
        return None
    square, exponent = core(np.hstack([b, -small_b]), np.vstack([a, small_a]))
    return float(np.linalg.norm(square)) * 2.0**exponent / whole


def _plain(tensor: Stored) -> Plain:
    return tensor.dtype, list(tensor.shape), memoryview(tensor.raw())


def _entry(array: Any, like: Stored, shape: tuple[int, ...]) -> Plain:
    return like.dtype, list(shape), memoryview(narrow(array, like.dtype))


def _write(target: Path, tensors: Mapping[str, Plain], document: Mapping[str, Any]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    stage = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.part")
    stage.mkdir()
    try:
        _write_weights(stage / f"{WEIGHTS}.safetensors", tensors)
        durable.write_bytes(stage / CONFIG, json.dumps(document, indent=2, sort_keys=True).encode() + b"\n")
        durable.replace(stage, target)
    except OSError as error:
        durable.remove_tree(stage)
        if error.errno not in durable.FULL:
            raise
        place = target.parent
        raise NoRoom(explain_full(place, error.errno, room(place)), hint="-o on a volume with more room") from None
    except BaseException:
        durable.remove_tree(stage)
        raise


def _write_weights(file: Path, tensors: Mapping[str, Plain]) -> None:
    """Into room that is ours before the first byte."""
    size = sum(len(data) for _, _, data in tensors.values()) + _HEADER_BYTES * (len(tensors) + 1)
    reservation = Reservation(file.parent, [size])
    reservation.claim(file, None)
    with ReservedFile(file) as opened:
        write(opened, tensors, {"format": "pt"})
    durable.sync_file(file)
