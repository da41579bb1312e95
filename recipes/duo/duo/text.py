"""From a data set to blocks of tokens: a subset on disk, its tokenizer, packed blocks; through `outlast.data`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from duo import corpus, network, tokens
from duo.settings import Data
from outlast import data as outlast_data

OFFLINE = "this Python's own library"
SPLITS = ("train", "validation")


@dataclass(frozen=True, slots=True)
class Text:
    """The text of a run, ready."""

    source: str
    """Where it came from; the run remembers it."""
    tokenizer: Any
    blocks: dict[str, Any]
    """Data sets of blocks by split."""


def prepare(data: Data, length: int, saved_tokenizer: Path, source: str | None, say: Callable[[str], None]) -> Text:
    """Fetch, tokenise and pack; what is there already is used.

    Args:
        data: which text.
        length: tokens of a block.
        saved_tokenizer: where the run keeps its tokenizer.
        source: what the run was started on; None at its first start.
        say: tells the user.
    """
    folder, source = subset(data, source, say)
    tokenizer = tokenizer_for(data, saved_tokenizer, folder, source, say)
    return Text(source, tokenizer, {split: packed(folder, split, data, tokenizer, length) for split in SPLITS})


def tokenizer_for(data: Data, saved: Path, folder: Path, source: str, say: Callable[[str], None]) -> Any:
    """The run's tokenizer; the hub is not asked where the text could not be had from the network either."""
    fell_back = data.source is not None and source == OFFLINE
    return tokens.for_run(
        data.tokenizer, saved, lambda: documents(folder, data.column), data.vocab_size, say, is_online=not fell_back
    )


def packed(folder: Path, split: str, data: Data, tokenizer: Any, length: int) -> Any:
    """The blocks of a split: documents with an end between them, cut, with an end around each block."""
    end = tokens.end_of_text(tokenizer)
    return outlast_data.blocks(
        outlast_data.open(folder, split, columns=[data.column]),
        tokenizer,
        length=length,
        cache=Path(data.cache_dir) / "blocks" / split,
        column=data.column,
        bos=end,
        eos=end,
        wrap=data.wrap,
    )


def subset(data: Data, source: str | None, say: Callable[[str], None]) -> tuple[Path, str]:
    """The folder of the subset, and what it was taken from.

    Where there is no way to the source, the offline text takes its place, and that is said; a source that can be
    reached and fails is an error.
    """
    source = source or data.source or OFFLINE
    folder = _folder(data, source)
    if (folder / "manifest.json").exists():
        return folder, source
    if source != OFFLINE and (reason := network.unreachable(source)):
        say(f"no network ({reason}): this trains on {OFFLINE} instead of {source}")
        source, folder = OFFLINE, _folder(data, OFFLINE)
    if not (folder / "manifest.json").exists():
        is_offline = source == OFFLINE
        place = str(corpus.write(Path(data.cache_dir) / "offline", data.column)) if is_offline else source
        outlast_data.fetch(place, folder, rows=data.rows, columns=[data.column], split=data.split, sample="head")
    return folder, source


def documents(folder: Path, column: str, split: str = "train") -> Iterator[str]:
    """The documents of a subset, in order."""
    rows = outlast_data.open(folder, split, columns=[column])
    for start in range(0, len(rows), 256):
        for row in rows.__getitems__(list(range(start, min(start + 256, len(rows))))):
            yield row[column]


def _folder(data: Data, source: str) -> Path:
    asked = json.dumps([source, data.column, data.rows, data.split])
    name = "python-library" if source == OFFLINE else data.name
    return Path(data.cache_dir) / "subsets" / f"{name}-{hashlib.sha256(asked.encode()).hexdigest()[:10]}"
