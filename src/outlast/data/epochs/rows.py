"""Rows of Parquet files for training: map-style, in the file's order or in an epoch's. Needs torch and pyarrow."""

from __future__ import annotations

import hashlib
import os
import sys
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.utils.data import Dataset, get_worker_info

from outlast.data.epochs import row_groups
from outlast.data.epochs.epoch import SharedEpoch
from outlast.data.epochs.order import Order, Walk, width_for
from outlast.errors import BadInput
from outlast.host import parse_bytes

if TYPE_CHECKING:
    from outlast.data.epochs.loader import Loader
    from outlast.data.epochs.stream import Stream

WINDOW_BYTES = 128 << 20
"""Decoded bytes that a reader mixes at a time, by default; each worker of a loader is a reader."""
_LOOK_AFTER = 64
"""Row groups decoded before it is judged whether the rows come in an order that suits them."""


def open(
    path: str | os.PathLike[str],
    split: str = "train",
    *,
    columns: Sequence[str] | None = None,
    shuffle: bool = False,
    seed: int = 0,
    window: int | str = WINDOW_BYTES,
) -> Rows:
    """Rows of a subset, for training; nothing is decoded yet.

    Args:
        path: a subset folder, any folder of Parquet files, or one file.
        split: which folder of it; a folder without splits is all ``train``.
        columns: what to read; None reads all.
        shuffle: in another order each epoch (docs/data.md says which).
        seed: of the order.
        window: how much a reader may hold decoded, and so mix: bytes, or ``256MB``.

    Raises:
        BadInput: when there is nothing to read there, or a file or a column is not what it should be.
    """
    files = tuple(row_groups.footer(file) for file in row_groups.find(path, split))
    names = row_groups.check(files, columns)
    limit = window if isinstance(window, int) else parse_bytes(window)
    if limit < 1:
        raise BadInput(f"window is {window!r}", hint="bytes from 1 up, or a text such as 256MB")
    groups = tuple(rows for shard in files for rows in shard.rows)
    width = width_for(sum(size for shard in files for size in shard.group_bytes), len(groups), limit)
    return Rows(files, names, Order(groups, shuffle, seed, 0, width))


class Rows(Dataset[dict[str, Any]]):  # type: ignore[misc]
    """Rows as dicts, by their place in an epoch: a map-style torch data set.

    Made by `outlast.data.open`. Pickles small: handles and decoded rows stay behind.

    Args:
        files: the shards, in order.
        columns: what a row has.
        order: of the epoch that it shows.
    """

    def __init__(self, files: Sequence[row_groups.Shard], columns: Sequence[str], order: Order) -> None:
        self.files, self.columns, self.order = tuple(files), tuple(columns), order
        self._starts = [0, *accumulate(order.groups)]
        self._groups = row_groups.Groups(self.files, self.columns, order.width + 2)
        self._walk, self._epoch = Walk(order), SharedEpoch(order.epoch)
        self._read, self._has_told, self._has_warned = 0, False, False

    def __getstate__(self) -> dict[str, Any]:
        return {"files": self.files, "columns": self.columns, "order": self.order, "epoch": self._epoch}

    def __setstate__(self, state: dict[str, Any]) -> None:
        epoch = state.pop("epoch")
        self.__init__(**state)  # type: ignore[misc]
        self._epoch = epoch

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, place: int) -> dict[str, Any]:
        at = place + len(self) if place < 0 else place
        if not 0 <= at < len(self):
            raise IndexError(f"row {place} of {len(self)}")
        return self.__getitems__([at])[0]

    def __getitems__(self, places: Sequence[int]) -> list[dict[str, Any]]:
        """Rows at some places of the epoch: what a DataLoader asks for, a batch at once."""
        if not self.order.shuffled:
            return self.take(places)
        if not self._has_warned and any(later < earlier for earlier, later in pairwise(places)):
            self._warn()
        self._follow()
        between = self._walk.between
        return self.take([int(between(place, place + 1)[0]) for place in places])

    def take(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Rows by their number in the files, whatever the epoch's order."""
        starts, columns, groups = self._starts, self.columns, self._groups
        found = []
        for number in numbers:
            group = bisect_right(starts, number) - 1
            within = int(number - starts[group])
            arrays = groups.get(group)
            found.append({name: array[within].as_py() for name, array in zip(columns, arrays, strict=True)})
        self._read += len(found)
        if not self._has_told and groups.decoded >= _LOOK_AFTER and self._read < self._least() * groups.decoded:
            self._tell()
        return found

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self._follow()
        for batch in self._walk.batches(64, 0, len(self)):
            yield from self.take(batch.tolist())

    def epoch(self, number: int) -> Rows:
        """The same rows in the order of an epoch; without ``shuffle`` that is the file's."""
        order = self.order
        return Rows(self.files, self.columns, Order(order.groups, order.shuffled, order.seed, number, order.width))

    def set_epoch(self, number: int) -> None:
        """Show the order of another epoch, in all workers too: `outlast.Run`, Trainer and Accelerate call it."""
        self._epoch.set(number)
        self._follow()

    def _follow(self) -> None:
        if self._epoch.number != self.order.epoch:
            self.order = replace(self.order, epoch=self._epoch.number)
            self._walk = Walk(self.order)

    def loader(self, batch_size: int, **options: Any) -> Loader:
        """Batches with an exact position; see `outlast.data.Loader` for the options."""
        from outlast.data.epochs.loader import Loader

        return Loader(self, batch_size, **options)

    def stream(self, batch_size: int, **options: Any) -> Stream:
        """The iterable form, for loaders that want one; see `outlast.data.Stream`."""
        from outlast.data.epochs.stream import Stream

        return Stream(self, batch_size, **options)

    @property
    def content(self) -> str:
        """What tells these files from others with as many rows: their sizes."""
        sizes = [(file.file_bytes, file.column_bytes) for file in self.files]
        return hashlib.blake2b(repr(sizes).encode(), digest_size=8).hexdigest()

    @property
    def path(self) -> Path:
        """Folder of the first file."""
        return self.files[0].path.parent

    def _least(self) -> float:
        """Rows for each decoded group below which the order does not suit: N workers in step take an N-th each."""
        worker = get_worker_info()
        mean = len(self) / max(1, len(self.order.groups))
        return min(4.0, mean / 2 / (worker.num_workers if worker else 1))

    def _tell(self) -> None:
        self._has_told = True
        mean = self._read / max(1, self._groups.decoded)
        sys.stderr.write(
            f"outlast: {self.path} is read in a random order that decodes a row group for each {mean:.1f} rows\n"
            "  hint: open(..., shuffle=True) with a sequential sampler, or its .loader(), mix as well and decode each "
            "group once; or open(..., window='1GB') to hold more of it\n"
        )

    def _warn(self) -> None:
        self._has_warned = True
        sys.stderr.write(
            f"outlast: {self.path} is shuffled here and by another's sampler; a resume puts back one order of the two\n"
            "  hint: open it without shuffle, or let the sampler be sequential (Trainer: train_sampling_strategy)\n"
        )
