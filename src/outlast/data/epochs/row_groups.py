"""Parquet files as one list of row groups: found, checked, memory-mapped, decoded one at a time. Needs pyarrow."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outlast.checkpoints import say
from outlast.data.formats import training_files
from outlast.data.manifest import NAME as MANIFEST
from outlast.data.stage import OWN
from outlast.errors import BadInput

_SUFFIX = ".parquet"
_OPEN_FILES = 32
_MAPPED_BYTES = 128 << 20
"""Decoded bytes after which the files are mapped anew, so that what was read of them does not count as ours for ever.

The kernel takes a mapping's pages back when it needs them, but until then they are in a process's RSS.
"""


@dataclass(frozen=True, slots=True)
class Shard:
    """One Parquet file, as its footer says."""

    path: Path
    """Where it is."""
    rows: tuple[int, ...]
    """Rows of each row group."""
    group_bytes: tuple[int, ...]
    """Bytes of each row group before compression, all columns."""
    file_bytes: int
    """Bytes of the file."""
    column_bytes: tuple[tuple[str, int], ...]
    """Bytes before compression of each column, all row groups."""
    schema: Any
    """pyarrow's schema of it."""


def find(path: str | os.PathLike[str], split: str) -> tuple[Path, ...]:
    """The Parquet files of a split, in the order of their names.

    Args:
        path: a subset folder (files under ``split/``), a folder of Parquet files, or one file.
        split: ``train``, ``validation`` ...; a folder without such a folder, and a file, are ``train`` as a whole.

    Raises:
        BadInput: when there is none.
    """
    place = Path(path).expanduser()
    if not os.path.exists(place):
        raise BadInput(f"there is nothing at {place}", hint="outlast data fetch SOURCE -o FOLDER makes a subset")
    if os.path.isfile(place):
        return _only_train((place,), place, split)
    below = _parquet_in(place / split) if _is_plain_name(split) else ()
    told = listed(place)
    if below and told:
        # What a fetch has put there since, and not said yet, is not the set's; what it said must be there.
        below = tuple(place / name for name in told if name.startswith(f"{split}/"))
        _all_there(below)
        _is_one_set(place, below, [told[str(file.relative_to(place))][0] for file in below])
    if below:
        return below
    here = _parquet_in(place)
    if here:
        return _training(_only_train(here, place, split), place)
    there = [entry.name for entry in sorted(place.iterdir()) if entry.is_dir() and _parquet_in(entry)]
    if there:
        raise BadInput(f"{place} has no split {split!r}; it has: {', '.join(there)}", hint=f"split={there[0]!r}")
    hint = "a fetch that did not end has none yet: start it again; or give the folder in which the .parquet files are"
    raise BadInput(f"there is no Parquet file in {place}", hint=hint)


def listed(folder: Path) -> dict[str, tuple[int, str]]:
    """Bytes and BLAKE3 of each shard by its path below a subset's folder; empty where there is no manifest.

    Raises:
        BadInput: when there is one and it cannot be read.
    """
    try:
        shards = json.loads((folder / MANIFEST).read_bytes())["shards"]
        return {str(one["path"]): (int(one["size_bytes"]), str(one["blake3"])) for one in shards}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{folder / MANIFEST} cannot be read: {error!r}", hint="fetch the subset again, or open one split's folder"
        ) from None


def _all_there(files: Sequence[Path]) -> None:
    gone = [file for file in files if not os.path.isfile(file)]
    if gone:
        raise BadInput(
            f"{gone[0]} is in the manifest and not in the folder",
            hint="fetch again: what is there stays",
        )


def _is_one_set(place: Path, files: Sequence[Path], sizes: Sequence[int]) -> None:
    """A fetch that is killed as it puts its shards in place leaves parts of two sets, under names that both have."""
    if os.path.isfile(place / OWN / "next" / MANIFEST):
        raise BadInput(
            f"{place} is between two sets: a fetch was cut short in its last step",
            hint="the same outlast data fetch again finishes it",
        )
    other = [file for file, size in zip(files, sizes, strict=True) if file.stat().st_size != size]
    if other:
        raise BadInput(f"{other[0]} is not the one of the manifest", hint="fetch again: it is made anew")


def _only_train(found: tuple[Path, ...], place: Path, split: str) -> tuple[Path, ...]:
    if split != "train":
        raise BadInput(f"{place} has no split {split!r}: all of it is 'train'", hint="fetch it with --split 90/10")
    return found


def _training(found: tuple[Path, ...], place: Path) -> tuple[Path, ...]:
    """Where names tell training files from held-out ones, as in a clone from the hub, the training files; said."""
    training = set(training_files([file.name for file in found]))
    kept = tuple(file for file in found if file.name in training)
    if len(kept) < len(found):
        say(
            f"of the {len(found)} Parquet files in {place}, the {len(kept)} of the train split are read",
            "open(FILE) reads one of the others",
        )
    return kept


def _is_plain_name(split: str) -> bool:
    return split not in {"", ".", ".."} and "/" not in split


def _parquet_in(folder: Path) -> tuple[Path, ...]:
    if not os.path.isdir(folder):
        return ()
    return tuple(
        sorted(entry for entry in folder.iterdir() if entry.suffix == _SUFFIX and not entry.name.startswith("."))
    )


def footer(path: Path) -> Shard:
    """What a file's footer says.

    Raises:
        BadInput: when it is cut short, or no Parquet file at all.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path, memory_map=True) as file:
            meta, schema = file.metadata, file.schema_arrow
            groups = [meta.row_group(number) for number in range(meta.num_row_groups)]
    except (pa.ArrowException, OSError) as error:
        raise BadInput(
            f"{path} is no whole Parquet file ({path.stat().st_size} bytes): {error}",
            hint="it was cut short on its way: delete it and fetch it again",
        ) from None
    sizes: dict[str, int] = {}
    for group in groups:
        for number in range(group.num_columns):
            column = group.column(number)
            name = column.path_in_schema.split(".")[0]
            sizes[name] = sizes.get(name, 0) + column.total_uncompressed_size
    return Shard(
        path,
        tuple(group.num_rows for group in groups),
        tuple(group.total_byte_size for group in groups),
        path.stat().st_size,
        tuple(sizes.items()),
        schema,
    )


def check(shards: Sequence[Shard], columns: Sequence[str] | None) -> tuple[str, ...]:
    """The columns to read, after a look whether all files have them.

    Raises:
        BadInput: when the files differ, when one of the columns is not there, or when there is no row.
    """
    first = shards[0]
    for shard in shards[1:]:
        if not shard.schema.equals(first.schema):
            raise BadInput(
                f"{shard.path} has other columns than {first.path.name}: "
                f"{_words(shard.schema)} instead of {_words(first.schema)}",
                hint="files of one data set have the same columns and types; open them apart",
            )
    names = tuple(first.schema.names)
    missing = [name for name in columns or () if name not in names]
    if missing:
        raise BadInput(f"there is no column {missing[0]!r} in {first.path}", hint=f"there are: {', '.join(names)}")
    if not any(sum(shard.rows) for shard in shards):
        raise BadInput(f"{first.path.parent} holds no row", hint="fetch it again, with --rows of at least 1")
    return tuple(columns) if columns else names


def _words(schema: Any) -> str:
    return ", ".join(f"{field.name}: {field.type}" for field in schema)


class Groups:
    """Row groups of memory-mapped files, decoded; the last few that were used are kept.

    Args:
        shards: the files.
        columns: what to decode.
        kept: how many decoded row groups to keep.
    """

    def __init__(self, shards: Sequence[Shard], columns: Sequence[str], kept: int) -> None:
        self.columns = tuple(columns)
        self._places = [(shard.path, group, size) for shard in shards for group, size in enumerate(shard.group_bytes)]
        self._sizes = {shard.path: (shard.file_bytes, len(shard.rows)) for shard in shards}
        self._kept = kept
        self._forget()

    def _forget(self) -> None:
        self.decoded = 0
        """Row groups decoded so far."""
        self._mapped = 0
        self._groups: OrderedDict[int, tuple[Any, ...]] = OrderedDict()
        self._files: OrderedDict[Path, Any] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"columns": self.columns, "_places": self._places, "_sizes": self._sizes, "_kept": self._kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def get(self, number: int) -> tuple[Any, ...]:
        """The columns of a row group, each an array.

        Raises:
            BadInput: when it cannot be decoded.
        """
        found = self._groups.get(number)
        if found is not None:
            self._groups.move_to_end(number)
            return found
        while len(self._groups) >= self._kept:
            self._groups.popitem(last=False)
        found = self._groups[number] = self._decode(number)
        return found

    def _decode(self, number: int) -> tuple[Any, ...]:
        import pyarrow as pa

        path, group, size = self._places[number]
        self._mapped += size
        if self._mapped > _MAPPED_BYTES:
            while self._files:
                self._files.popitem()[1].close()
            self._mapped = size
        try:
            file = self._file(path)
            # A subset that was fetched anew meanwhile has other rows under the same names.
            if file.metadata.row_group(group).total_byte_size != size:
                raise _changed(path)
            # Not pyarrow's threads: in a forked worker there are none, and workers take all cores anyway.
            table = file.read_row_group(group, columns=list(self.columns), use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise BadInput(
                f"row group {group} of {path} cannot be read: {error}",
                hint="the file was damaged or changed: delete it and fetch it again",
            ) from None
        self.decoded += 1
        return tuple(_one(table.column(name)) for name in self.columns)

    def _file(self, path: Path) -> Any:
        import pyarrow.parquet as parquet

        if path in self._files:
            self._files.move_to_end(path)
            return self._files[path]
        while len(self._files) >= _OPEN_FILES:
            self._files.popitem(last=False)[1].close()
        file = parquet.ParquetFile(path, memory_map=True)
        if (os.stat(path).st_size, file.metadata.num_row_groups) != self._sizes[path]:
            file.close()
            raise _changed(path)
        self._files[path] = file
        return file


def _changed(path: Path) -> BadInput:
    return BadInput(
        f"{path} is another file than when it was opened",
        hint="fetch a larger or newer subset into a folder of its own while one is being read; then open it again",
    )


def _one(column: Any) -> Any:
    """One array where it can be: a chunk is found faster in it."""
    return column.chunk(0) if column.num_chunks == 1 else column
