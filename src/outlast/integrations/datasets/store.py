"""The subsets of one data set on this machine: fetched once, found again, also where the hub cannot be reached."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outlast import durable
from outlast.errors import BadInput
from outlast.integrations.datasets import files
from outlast.integrations.datasets.found import Found, LeftAlone

FOLDER = "outlast-subsets"
"""Below the cache of `datasets`."""
_ASKED = ("path", "name", "data_dir", "data_files", "revision", "config_kwargs")


@dataclass(frozen=True, slots=True)
class Part:
    """The first rows of one split."""

    folder: Path
    """A subset folder of `outlast.data`."""
    rows: int
    """Rows that it holds."""
    is_whole: bool
    """True when the split has no more."""
    revision: str | None = None
    """Commit that it is of; None for files of this machine."""
    traveled_bytes: int = 0
    """What came over the network for it just now."""

    @property
    def shards(self) -> list[str]:
        """Its Parquet files, in order."""
        return sorted(map(str, (self.folder / "train").glob("*.parquet")))


@dataclass(frozen=True, slots=True)
class Before:
    """What calls like this one got."""

    splits: list[str]
    """All splits that there are."""
    parts: Mapping[str, Part]
    """Those that are on this machine."""
    features: Any
    """``datasets.Features``; None where they are in the shards."""


class Store:
    """Subsets of the data set that a call names.

    Args:
        cache: the cache folder of `datasets`.
        arguments: of the call, by name.
        rows: first rows of each split, at most.
    """

    def __init__(self, cache: Path, arguments: Mapping[str, Any], rows: int) -> None:
        self.home = cache / FOLDER / files.plain(str(arguments["path"]))
        self.token = arguments.get("token")
        self.rows = rows
        asked = json.dumps([str(arguments.get(name)) for name in _ASKED])
        self._record = self.home / f"request-{rows}-{hashlib.sha256(asked.encode()).hexdigest()[:16]}.json"

    def part(self, split: str, found: Found) -> Part:
        """One split's subset; fetched where it is not here yet.

        Raises:
            LeftAlone: when its files cannot be named as one source.
            OutlastError: as `outlast.data.fetch` does: no room, a source that does not answer.
        """
        there = found.splits[split]
        source = files.source(there.paths)
        if source is None:
            raise LeftAlone("its files lie in several folders")
        folder = self.home / files.folder_name(split, self.rows, there, found.kind)
        self.home.mkdir(parents=True, exist_ok=True)
        # Every process of a distributed run comes here: one fetches, the others find it done.
        with durable.locked(self.home / f"{folder.name}.lock", wait=True), _token(self.token):
            # The folder's name holds the commit: what is whole there is what would be fetched again.
            made, traveled = _whole(folder), 0
            if made is None:
                from outlast.data import fetch_telling

                fetched = fetch_telling(source, folder, lambda progress: None, rows=self.rows)
                made, traveled = fetched.manifest, fetched.wire_bytes
        if not files.agrees(there.paths, [file.path for file in made.files]):
            durable.remove_tree(folder)
            raise LeftAlone("the files that its first rows are in cannot be named by a pattern")
        rows = sum(made.rows.values())
        return Part(folder, rows, rows < self.rows or rows == made.total_rows, made.revision, traveled)

    def remember(self, parts: Mapping[str, Part], found: Found) -> Before:
        """Write down what this call got, for the next time that it is made; with what others like it got before."""
        known, commits = self.remembered(), {part.revision for part in parts.values()}
        both = {name: part for name, part in (known.parts if known else {}).items() if {part.revision} == commits}
        both |= parts
        features = found.features.to_dict() if found.features is not None else None
        record = {
            "splits": list(found.splits),
            "parts": {name: [part.folder.name, part.rows, part.is_whole, part.revision] for name, part in both.items()},
            "features": features,
        }
        durable.write_bytes(self._record, json.dumps(record).encode())
        return Before(list(found.splits), both, found.features)

    def remembered(self) -> Before | None:
        """What the same call got before; None when nothing of it is here."""
        try:
            record = json.loads(durable.read_small(self._record))
            parts = {name: Part(self.home / told[0], *told[1:]) for name, told in record["parts"].items()}
            splits, features = list(record["splits"]), record["features"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if features is not None:
            features = sys.modules["datasets.features"].Features.from_dict(features)
        there = {name: part for name, part in parts.items() if _whole(part.folder) is not None}
        return Before(splits, there, features)


def _whole(folder: Path) -> Any:
    """The manifest of a subset that lies here with all its shards; None when something is missing."""
    try:
        from outlast.data import Manifest
    except ModuleNotFoundError as error:
        # The script's interpreter need not be Outlast's own, and has what datasets brought.
        raise LeftAlone(f"{sys.executable} has no {error.name}: pip install '.[data]' with it, in Outlast") from None
    try:
        made = Manifest.load(folder)
        sizes = [(folder / shard.path).stat().st_size for shard in made.shards]
    except (BadInput, OSError):
        return None
    return made if sizes == [shard.size_bytes for shard in made.shards] else None


@contextmanager
def _token(token: Any) -> Iterator[None]:
    """What the script gave as its token, where huggingface_hub looks for it."""
    if not isinstance(token, str):
        yield
        return
    before = os.environ.get("HF_TOKEN")
    os.environ["HF_TOKEN"] = token
    try:
        yield
    finally:
        del os.environ["HF_TOKEN"]
        if before is not None:
            os.environ["HF_TOKEN"] = before
