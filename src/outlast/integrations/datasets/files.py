"""The files that a split is read from, as one source of `outlast.data`; and the name of a subset's folder. Pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

KINDS = frozenset({"parquet", "json", "csv", "text", "arrow"})
"""Builders of `datasets` whose files `outlast.data` reads."""
_FORM = 1
_PATTERN = re.compile(r"[*?\[\]{}]")


@dataclass(frozen=True, slots=True)
class Files:
    """What one split of a data set is read from, in order."""

    paths: tuple[str, ...]
    """Addresses: ``hf://datasets/org/name@commit/train-0.parquet``, or absolute paths."""
    versions: tuple[str, ...] = ()
    """What changes when a local file does; empty where the address holds a commit."""


def source(paths: Sequence[str]) -> str | None:
    """One address or pattern for these files; None when there is no such.

    The pattern may match more than these files: compare what is read with `agrees`.
    """
    if not paths or any(_PATTERN.search(path) for path in paths):
        return None
    if len(paths) == 1:
        return paths[0]
    folders = {path.rpartition("/")[0] for path in paths}
    if len(folders) > 1:
        return None
    names = [path.rpartition("/")[2] for path in paths]
    start = _common(names)
    end = _common([name[len(start) :][::-1] for name in names])[::-1]
    return f"{folders.pop()}/{start}*{end}"


def agrees(paths: Sequence[str], read: Sequence[str]) -> bool:
    """Whether a subset's source read these files and no others, in this order.

    Args:
        paths: the files of the split.
        read: names below some folder of what was read; the first rows may be in the first few files.
    """
    return len(read) <= len(paths) and all(
        path.endswith(f"/{name}") or path == name for path, name in zip(paths, read, strict=False)
    )


def folder_name(split: str, rows: int, files: Files, kind: str) -> str:
    """A name that stands for exactly this content: another commit, file or number of rows has another name."""
    content = json.dumps([_FORM, kind, split, rows, files.paths, files.versions]).encode()
    return f"{split}-{rows}-{hashlib.sha256(content).hexdigest()[:16]}"


def plain(name: str) -> str:
    """A data set's name as that of one folder, as `datasets` writes it."""
    return re.sub(r"[^\w.-]+", "___", name.removeprefix("hf://datasets/").strip("/")).strip(".") or "local"


def _common(words: Sequence[str]) -> str:
    first, last = min(words), max(words)
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[:length]
