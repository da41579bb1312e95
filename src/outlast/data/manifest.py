"""What a subset's folder holds, where it is from, and how to make it again: ``manifest.json``, written last."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from outlast import durable
from outlast.data.request import PARTS
from outlast.errors import BadInput

NAME = "manifest.json"
_FORMAT, _VERSION = "outlast-data", 1
_LARGEST = 1 << 30


@dataclass(frozen=True, slots=True)
class ShardFile:
    """One shard."""

    path: str
    """Below the folder, as ``train/part-00000.parquet``."""
    rows: int
    """Rows in it."""
    size_bytes: int
    """Its size."""
    blake3: str
    """Digest of its bytes, hexadecimal."""


@dataclass(frozen=True, slots=True)
class UsedFile:
    """One file of the source that rows came from."""

    path: str
    """Its name below the source."""
    size_bytes: int | None
    """Its size; None where the server did not say."""
    version: str | None
    """ETag, blob, or size and time of change."""
    rows: int
    """Rows that were taken from it."""
    row_groups: tuple[tuple[int, int], ...] | None
    """Row groups that they came from, as first and one past the last; None where the format has none."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A whole subset."""

    source: str
    """Where it is from."""
    revision: str | None
    """Commit of the source."""
    request: dict[str, Any]
    """Rows, columns, sample, seed, split, max_bytes as they were asked for."""
    rows: dict[str, int]
    """Rows of each part."""
    total_rows: int | None
    """Rows of the whole source; None where that was not needed."""
    columns: dict[str, str]
    """Columns and their types."""
    files: tuple[UsedFile, ...]
    """Files of the source that it holds rows of."""
    shards: tuple[ShardFile, ...]
    """Its own files."""
    key: str
    """Digest of all that decides its bytes."""
    written_by: dict[str, str]
    """Packages and their versions."""

    def to_bytes(self) -> bytes:
        """The file's content; the same subset gives the same bytes."""
        return (json.dumps({"format": _FORMAT, "version": _VERSION, **asdict(self)}, indent=1) + "\n").encode()

    @classmethod
    def load(cls, folder: str | Path) -> Manifest:
        """The manifest of a subset's folder.

        Raises:
            BadInput: there is none, or it is not one that this version reads.
        """
        path = Path(folder) / NAME
        try:
            document = json.loads(durable.read_small(path, _LARGEST))
        except FileNotFoundError:
            raise BadInput(f"{folder} holds no whole subset: no {NAME}", hint="outlast data fetch makes one") from None
        except (OSError, ValueError) as error:
            raise BadInput(
                f"{path} cannot be read: {error}", hint="fetch the subset anew into another folder"
            ) from None
        return cls._from(document, path)

    @classmethod
    def _from(cls, document: Any, path: Path) -> Manifest:
        try:
            if document.pop("format") != _FORMAT or document.pop("version") != _VERSION:
                raise ValueError("another format or version")
            document["files"] = tuple(
                UsedFile(**{**file, "row_groups": file["row_groups"] and tuple(map(tuple, file["row_groups"]))})
                for file in document["files"]
            )
            document["shards"] = tuple(ShardFile(**shard) for shard in document["shards"])
            made = cls(**document)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise BadInput(
                f"{path} is no manifest that this version reads: {error}", hint="a newer Outlast, or fetch it anew"
            ) from None
        for shard in made.shards:
            part, _, name = shard.path.partition("/")
            if part not in PARTS or not name.startswith("part-") or "/" in name or "\0" in name:
                raise BadInput(f"{path} names {shard.path!r}, which no subset holds", hint="fetch it anew")
        return made


def digest(path: Path) -> str:
    """BLAKE3 of a file, hexadecimal."""
    hasher = blake3()
    hasher.update_mmap(path)
    return hasher.hexdigest()
