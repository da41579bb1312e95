"""Token blocks: texts tokenised on all cores, packed, and kept as memory-mapped shards. Needs torch and tokenizers."""

from __future__ import annotations

import json
import os
import secrets
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from blake3 import blake3
from torch.utils.data import Dataset

from outlast import durable
from outlast.data.epochs.order import Order
from outlast.data.text import store
from outlast.data.text.making import Maker
from outlast.data.text.packing import Shape
from outlast.data.text.texts import StreamTexts, texts_of
from outlast.data.text.tokens import Encoder
from outlast.errors import BadInput

if TYPE_CHECKING:
    from outlast.data.epochs.loader import Loader

_FORMAT = 1
"""Of the bytes: another way to pack, another number, and so another key."""
_ORDER_GROUP = 4096
_TRIES, _BREATH = 50, 0.02


def blocks(
    rows: Any,
    tokenizer: Any,
    *,
    length: int,
    cache: str | os.PathLike[str],
    column: str = "text",
    bos: str | int | None = None,
    eos: str | int | None = None,
    wrap: bool = True,
    name: str = "texts",
) -> Blocks:
    """Blocks of tokens, from the cache when everything that goes in is as it was, else made now.

    Documents are tokenised without special tokens and put one after the other, EOS after each; blocks are cut from
    that, with BOS and EOS around each when wrapped. What is too short for a block at the end is dropped. Killed in the
    middle, the next call goes on at the last whole shard.

    Args:
        rows: `Rows` (taken in the files' order), or texts. Of an iterator, which can be gone through once, the digest
            is known at its end only, so it is tokenised each time.
        tokenizer: a `tokenizers.Tokenizer`, Transformers' fast one, a ``tokenizer.json``, a folder with one, a Hub id.
        length: tokens of a block, BOS and EOS counted.
        cache: folder for the shards; an older set of the same source, column, length and wrap is removed from it
            when a new one is whole and nobody reads the old one.
        column: of rows, which one is the text.
        bos: token or number; None takes what the tokenizer says.
        eos: token or number; None likewise.
        wrap: BOS and EOS around each block.
        name: of texts, what they are: sets of other names are not removed.

    Raises:
        BadInput: for a tokenizer, column or length that cannot be, and when the texts make no block.
        NoRoom: when the shards will not fit, before the first is written wherever that can be told.
    """
    if length < (3 if wrap else 1):
        raise BadInput(f"length is {length}", hint="at least 3 with wrap, which puts BOS and EOS around; else 1")
    texts, encoder = texts_of(rows, column, name), Encoder(tokenizer, bos, eos, wrap=wrap)
    shape = Shape(length, encoder.bos, encoder.eos, wrap)
    of = {"source": texts.name, "column": column, "length": length, "wrap": wrap}
    folder = Path(cache).expanduser().absolute()
    maker = Maker(folder, texts, encoder, shape, of)

    def key_of(identity: str) -> str:
        return _key(identity, column, encoder, shape)

    if isinstance(texts, StreamTexts):
        return _from_stream(folder, maker, lambda: key_of(texts.seen()))
    key = key_of(texts.identity() or "")
    final = store.folder_of(folder, key)
    held = store.hold(final)
    if held is not None:
        return Blocks(final, _held=held)
    with store.making(folder, key[:32]) as place:
        index = store.read_index(final)
        if index is None:
            index = maker.make(place, lambda: key)
            store.commit(folder, place, index)
        else:
            durable.remove_tree(place)  # another process made it while we waited for our turn
    return _opened(folder, index)


def _from_stream(cache: Path, maker: Maker, key: Callable[[], str]) -> Blocks:
    with store.making(cache, store.STREAM + secrets.token_hex(8)) as place:
        try:
            index = maker.make(place, key)
            if store.read_index(store.folder_of(cache, index.key)) is None:
                store.commit(cache, place, index)
        finally:
            durable.remove_tree(place)  # there is no going on with an iterator
    return _opened(cache, index)


def _opened(cache: Path, index: store.Index) -> Blocks:
    opened = Blocks(store.folder_of(cache, index.key))
    store.sweep(cache, index)
    return opened


def _key(identity: str, column: str, encoder: Encoder, shape: Shape) -> str:
    import tokenizers

    parts = {
        "format": _FORMAT,
        "texts": identity,
        "column": column,
        "tokenizer": encoder.digest,
        "tokenizers": tokenizers.__version__,
        "length": shape.length,
        "bos": shape.bos if shape.wrap else None,
        "eos": shape.eos,
        "wrap": shape.wrap,
        "dtype": encoder.dtype,
    }
    return str(blake3(json.dumps(parts, sort_keys=True).encode()).hexdigest())


class Blocks(Dataset[torch.Tensor]):  # type: ignore[misc]
    """Blocks of tokens as int64 tensors of one length: a map-style torch data set over memory-mapped files.

    While one is open, its folder is not swept, by whichever process.

    Args:
        folder: where `blocks` made them.

    Raises:
        BadInput: when there is no whole set.
    """

    def __init__(self, folder: Path, _held: tuple[store.Index, int] | None = None) -> None:
        held = _held or _hold_soon(folder)
        if held is None:
            raise BadInput(f"there are no whole blocks in {folder}", hint="outlast.data.blocks(...) makes them again")
        self.folder = folder
        self.index, fd = held
        weakref.finalize(self, os.close, fd)
        self.key = self.index.key
        per_group = [_ORDER_GROUP] * (self.index.blocks // _ORDER_GROUP)
        rest = self.index.blocks % _ORDER_GROUP
        self.order = Order((*per_group, *([rest] if rest else [])), False, 0, 0, 256)
        self._starts = np.cumsum([0, *(part.blocks for part in self.index.parts)])
        self._maps: dict[int, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "order": self.order}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])  # type: ignore[misc]
        self.order = state["order"]

    def __len__(self) -> int:
        return self.index.blocks

    @property
    def content(self) -> str:
        """What tells these blocks from others: the digests of their files."""
        return str(blake3("".join(part.blake3 for part in self.index.parts).encode()).hexdigest()[:16])

    def __getitem__(self, number: int) -> torch.Tensor:
        at = number + len(self) if number < 0 else number
        if not 0 <= at < len(self):
            raise IndexError(f"block {number} of {len(self)}")
        return self.take([at])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[torch.Tensor]:
        """Blocks by number: what a DataLoader asks for, a batch at once."""
        return self.take(numbers)

    def __iter__(self) -> Iterator[torch.Tensor]:
        for number in range(len(self)):
            yield self.take([number])[0]

    def take(self, numbers: Sequence[int]) -> list[torch.Tensor]:
        """Blocks by number."""
        found = []
        for number in numbers:
            part = int(np.searchsorted(self._starts, number, side="right")) - 1
            block = self._mapped(part)[number - self._starts[part]]
            found.append(torch.from_numpy(block.astype(np.int64)))
        return found

    def loader(self, batch_size: int, *, shuffle: bool = False, seed: int = 0, **options: Any) -> Loader:
        """Batches with an exact position; see `outlast.data.Loader` for the options.

        Args:
            batch_size: of one rank.
            shuffle: in another order each epoch.
            seed: of the order.
            options: of the loader.
        """
        from outlast.data.epochs.loader import Loader

        ordered = Blocks(self.folder)
        ordered.order = Order(self.order.groups, shuffle, seed, 0, self.order.width)
        return Loader(ordered, batch_size, **options)

    def _mapped(self, part: int) -> Any:
        if part not in self._maps:
            path = self.folder / self.index.parts[part].name
            self._maps[part] = np.memmap(path, dtype=self.index.dtype, mode="r").reshape(-1, self.index.length)
        return self._maps[part]


def _hold_soon(folder: Path) -> tuple[store.Index, int] | None:
    """A sweeper that looks at it holds the lock for a moment."""
    for _ in range(_TRIES):
        held = store.hold(folder)
        if held is not None or not folder.is_dir():
            return held
        time.sleep(_BREATH)
    return None
