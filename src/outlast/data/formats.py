"""Which file is read how: a table by the end of its name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from outlast.errors import BadInput


@dataclass(frozen=True, slots=True)
class Format:
    """One way to read a file."""

    kind: str
    """``parquet``, ``arrow``, ``jsonl``, ``csv`` or ``text``."""
    packing: str | None
    """``gz`` or ``zst`` around it; None when it lies bare."""


_ENDS = {"parquet": "parquet", "pq": "parquet", "arrow": "arrow", "jsonl": "jsonl", "ndjson": "jsonl", "json": "jsonl",
         "csv": "csv", "tsv": "csv", "txt": "text", "text": "text"}  # fmt: skip
_PACKINGS = {"gz": "gz", "zst": "zst", "zstd": "zst"}
_LINES = ("jsonl", "csv", "text")
_ORDER = ("parquet", "arrow", *_LINES)
"""Where a folder holds several, the first of these that is there is the data set."""
# Written by `datasets` beside the data; not data.
_BESIDE = frozenset({"dataset_info.json", "state.json", "dataset_dict.json", "manifest.json", "dataset_infos.json"})
_TRAIN = frozenset({"train", "training"})
_HELD_OUT = frozenset({"validation", "valid", "val", "dev", "test", "testing", "eval"})

FORMATS: dict[str, Format] = {
    end + (f".{packing}" if packing else ""): Format(kind, packing and _PACKINGS[packing])
    for end, kind in _ENDS.items()
    for packing in (None, *(_PACKINGS if kind in _LINES else ()))
}
"""End of a name, without its first dot: how such a file is read."""


def form_of(path: str) -> str | None:
    """The key of `FORMATS` for a file's name; None when it is no data."""
    name = path.rsplit("/", 1)[-1].lower()
    if name in _BESIDE:
        return None
    ends = (".".join(name.split(".")[-n:]) for n in (2, 1))
    return next((end for end in ends if end in FORMATS and name != end), None)


@dataclass(frozen=True, slots=True)
class Chosen:
    """Files of a listing that are the data set."""

    paths: tuple[str, ...]
    """In source order."""
    notes: tuple[str, ...]
    """What was left aside, and how to get it."""


def choose_files(paths: Sequence[str], where: str) -> Chosen:
    """The data files of a listing, in order: numbers in names count as numbers.

    One format is taken, the first of Parquet, Arrow, JSON lines, CSV, text that is there. Where names tell training
    files from held-out ones, the training files are taken.

    Raises:
        BadInput: when none of them is data.
    """
    by_kind: dict[str, list[str]] = {}
    for path in paths:
        if form := form_of(path):
            by_kind.setdefault(FORMATS[form].kind, []).append(path)
    if not by_kind:
        raise BadInput(
            f"{where} holds no data that is known: {len(paths)} other files",
            hint=f"files that end in one of: {', '.join(sorted(_ENDS))}, the last ones also with .gz or .zst",
        )
    kind = next(kind for kind in _ORDER if kind in by_kind)
    notes = [f"{len(there)} {other} files beside are left aside" for other, there in by_kind.items() if other != kind]
    found = sorted(by_kind[kind], key=_natural)
    training = training_files(found)
    if len(training) < len(found):
        notes.append(f"of {len(found)} files the {len(training)} of its train split; name others with a pattern")
    return Chosen(tuple(training), tuple(notes))


def training_files(paths: Sequence[str]) -> list[str]:
    """The training files where names tell them from held-out ones; else all."""
    training = [path for path in paths if _words(path) & _TRAIN]
    return training if training and any(_words(path) & _HELD_OUT for path in paths) else list(paths)


def _words(path: str) -> set[str]:
    return set(re.split(r"[^a-z]+", path.lower()))


def _natural(path: str) -> list[tuple[int, int, str]]:
    """Sort key in which part-10 comes behind part-9."""
    parts = re.split(r"(\d+)", path)
    return [(1, int(part), part) if part.isdecimal() else (0, 0, part) for part in parts]
