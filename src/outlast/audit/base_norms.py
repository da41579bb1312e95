"""Norms of the base's matrices that an adapter touches: computed once for each model, and kept.

One matrix is in memory at a time. What was computed is kept in one small file for each model and revision, replaced as
a whole: an interrupted call keeps the layers that are done, a cut or altered file is made again. A second process
waits for the first one, and takes what it made.
"""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from outlast import durable
from outlast.audit import hub
from outlast.audit.adapter import Factors
from outlast.audit.base import Source, Weights, must_fit
from outlast.audit.largest import norms

Tell = Callable[[int, int, str], object]
"""Called with layers done, layers in all, and the layer that is next, or what is waited for."""
FORMAT = 1
_WRITE_EVERY = 2.0
"""Seconds between two writes: what a kill costs at most."""
_LIMIT = 256 << 20


@dataclass(frozen=True, slots=True)
class BaseNorm:
    """Of the base's matrix of one layer."""

    rows: int
    """As it lies; a transposed one has the same norms."""
    columns: int
    """As it lies."""
    sigma_max: float
    """Largest singular value."""
    fro_norm: float
    """Frobenius norm."""
    error: float
    """Bound of the relative error of sigma_max."""


def base_norms(
    layers: Sequence[Factors],
    base: str,
    *,
    revision: str | None = None,
    cache: str | os.PathLike[str] | None = None,
    tell: Tell | None = None,
) -> dict[str, BaseNorm | str]:
    """For each layer its matrix's norms, or why there are none.

    Args:
        layers: of the adapter.
        base: folder or hub id.
        revision: on the hub.
        cache: folder to keep norms in; None is the default one.
        tell: called before each matrix that is read.

    Raises:
        BadInput: when the base is not found, is quantised, or is another model than the adapter's.
    """
    source = hub.source_of(base, revision)
    place = Path(cache).expanduser() if cache is not None else default_cache()
    place.mkdir(parents=True, exist_ok=True)
    file = place / f"{_slug(source.name)}-{source.digest[:24]}.json"
    known: Mapping[str, BaseNorm | str] = _read(file, source)
    if any(layer.name not in known for layer in layers):
        lock = file.with_suffix(".lock")
        with durable.locked(lock, wait=False) as is_ours:
            if is_ours:
                known = _completed(layers, source, file, tell)
        if not is_ours:
            (tell or _silent)(0, len(layers), "another process computes norms of this base: waiting for it")
            with durable.locked(lock, wait=True):
                known = _completed(layers, source, file, tell)
    for layer in layers:
        norm = known.get(layer.name)
        if isinstance(norm, BaseNorm):
            must_fit(layer, (norm.rows, norm.columns), base)
    return {layer.name: known[layer.name] for layer in layers}


def default_cache() -> Path:
    """``$GRADIENCE_CACHE_DIR/base_norms`` when that is set, else a folder of Outlast's own."""
    theirs = os.environ.get("GRADIENCE_CACHE_DIR")
    if theirs:
        return Path(theirs).expanduser() / "base_norms"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "outlast" / "base_norms"


def _completed(layers: Sequence[Factors], source: Source, file: Path, tell: Tell | None) -> dict[str, BaseNorm | str]:
    """What is known and what was missing, written down as it is found. The caller holds the lock."""
    found: dict[str, BaseNorm | str] = dict(_read(file, source))
    missing = [layer for layer in layers if layer.name not in found]
    if not missing:
        return found
    here = hub.with_weights(source)
    weights = Weights(here.folder or Path())
    written = time.monotonic()
    try:
        for done, layer in enumerate(missing):
            matrix = weights.matrix(layer)
            if isinstance(matrix, str):
                found[layer.name] = matrix
                continue
            (tell or _silent)(done, len(missing), layer.name)
            rows, columns = matrix.shape
            of = norms(matrix.load())
            found[layer.name] = BaseNorm(rows, columns, of.sigma_max, of.fro_norm, of.error)
            if time.monotonic() - written > _WRITE_EVERY:
                _write(file, source, found)
                written = time.monotonic()
    finally:
        _write(file, source, found)
    (tell or _silent)(len(missing), len(missing), "")
    return found


def _silent(done: int, total: int, what: str) -> None:
    pass


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", Path(name).name or "base")[:80].lstrip(".-")


def _read(file: Path, source: Source) -> dict[str, BaseNorm]:
    """What a file holds; nothing when it is missing, cut, altered, of another model or format."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        document = json.loads(durable.read_small(file, _LIMIT))
        check = document.pop("check")
        if check == _check(document) and document["format"] == FORMAT and document["digest"] == source.digest:
            return {str(name): _norm(entry) for name, entry in document["norms"].items()}
    return {}


def _norm(entry: Mapping[str, Any]) -> BaseNorm:
    norm = BaseNorm(
        int(entry["rows"]), int(entry["columns"]), *(float(entry[k]) for k in ("sigma_max", "fro_norm", "error"))
    )
    if not all(math.isfinite(value) for value in (norm.sigma_max, norm.fro_norm)):
        raise ValueError("a norm is not finite")
    return norm


def _write(file: Path, source: Source, found: Mapping[str, BaseNorm | str]) -> None:
    document: dict[str, Any] = {
        "format": FORMAT,
        "base": source.name,
        "revision": source.revision,
        "digest": source.digest,
        "norms": {name: asdict(norm) for name, norm in sorted(found.items()) if isinstance(norm, BaseNorm)},
    }
    document["check"] = _check(document)
    durable.write_bytes(file, json.dumps(document, indent=1).encode() + b"\n")


def _check(document: Mapping[str, Any]) -> str:
    return str(blake3(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest())
