"""Making a set of token blocks: all cores tokenise one batch while the one before it is packed and written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from outlast import durable
from outlast.data.text import store
from outlast.data.text.packing import Packer, Shape
from outlast.data.text.texts import Texts
from outlast.data.text.tokens import Encoder
from outlast.errors import BadInput, NoRoom
from outlast.host import explain_full, room, show_bytes

SHARD_BYTES = 64 << 20
"""Bytes of a shard, about: what a kill in the middle costs at most."""
_BATCH_CHARACTERS, _BATCH_TEXTS = 2 << 20, 1024
"""A token being made takes about 100 bytes, so a batch takes some 50 MB."""


class Maker:
    """Makes one set.

    Args:
        cache: the folder that it will stand in, for how much room there is.
        texts: the documents.
        encoder: makes tokens of them.
        shape: of the blocks.
        of: what the set is of, for the index.
    """

    def __init__(self, cache: Path, texts: Texts, encoder: Encoder, shape: Shape, of: Mapping[str, Any]) -> None:
        self.cache, self.texts, self.encoder, self.shape, self.of = cache, texts, encoder, shape, of
        self._block_bytes = shape.length * int(encoder.dtype[2:])
        self._per_part = max(1, SHARD_BYTES // self._block_bytes)

    def make(self, folder: Path, key: Callable[[], str]) -> store.Index:
        """Write all parts, from where an earlier process left off.

        Args:
            folder: ours alone.
            key: asked for when all texts have been read.

        Raises:
            NoRoom: when it will not fit, or did not; whole parts are kept, and the next call goes on after them.
            BadInput: when there is not one block.
        """
        parts, place = store.read_progress(folder, self._block_bytes)
        packer, documents = Packer(self.shape, self.encoder.dtype, place), place.document
        writing: _Part | None = None
        try:
            for batch in self._encoded(place.document, len(parts) * self._per_part):
                documents += len(batch)
                blocks = packer.add(encoding.ids for encoding in batch)
                while len(blocks):
                    writing = writing or _Part(folder, len(parts))
                    fits = self._per_part - writing.blocks
                    writing.write(blocks[:fits])
                    blocks = blocks[fits:]
                    if writing.blocks == self._per_part:
                        parts, writing = (*parts, writing.finish()), None
                        store.write_progress(folder, self.of, parts, packer.place_after(self._per_part))
            if writing is not None:
                parts, writing = (*parts, writing.finish()), None
        except OSError as error:
            if error.errno not in durable.FULL:
                raise
            hint = "free some room and call it again: what is done is kept, and it goes on there"
            raise NoRoom(explain_full(folder, error.errno, room(folder)), hint=hint) from None
        finally:
            if writing is not None:
                writing.discard()
        blocks_made = sum(part.blocks for part in parts)
        tokens = blocks_made * self.shape.inner + packer.left_over
        if not parts:
            raise BadInput(
                f"{documents} texts of {self.texts.name} are {tokens} tokens: no block of {self.shape.length}",
                hint="more text, or a smaller length",
            )
        return store.Index(
            key(), self.of, self.shape.length, self.encoder.dtype, documents, tokens, packer.left_over, parts
        )

    def _encoded(self, start: int, blocks_done: int) -> Iterator[list[Any]]:
        """Batches of encodings; the next one is being made while one is used."""
        with ThreadPoolExecutor(1, "outlast-tokenise") as pool:
            before = None
            for number, texts in enumerate(_batches(self.texts.since(start))):
                coming = pool.submit(self.encoder.encode, texts)
                if number == 0:
                    self._admit(texts, coming.result(), blocks_done)
                if before is not None:
                    yield before.result()
                before = coming
            if before is not None:
                yield before.result()

    def _admit(self, texts: list[str], encodings: list[Any], blocks_done: int) -> None:
        """Refuse what will not fit, as far as the first batch tells."""
        if self.texts.size_bytes is None:
            return
        sample = sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)
        tokens = sum(len(encoding) + 1 for encoding in encodings) * self.texts.size_bytes / max(1, sample)
        needed = int(tokens / self.shape.inner - blocks_done) * self._block_bytes
        here = room(self.cache)
        if here.lacks(needed):
            free = here.free_bytes or 0
            raise NoRoom(
                f"the tokens of {self.texts.name} take about {show_bytes(needed)} in {self.cache}, "
                f"{show_bytes(free)} are free ({here.source})",
                hint=f"cache=FOLDER on a roomier volume, or about {max(0, free) / max(1, needed):.0%} of the texts",
            )


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if characters >= _BATCH_CHARACTERS or len(batch) >= _BATCH_TEXTS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


class _Part:
    """A file of blocks in the making; it gets its name when it is whole and on disk."""

    def __init__(self, folder: Path, number: int) -> None:
        self.final = folder / f"part-{number:05d}.bin"
        self._part = folder / f".part-{number:05d}.bin.part"
        self._fd = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        self._digest = blake3()
        self.blocks = 0
        """Blocks in it so far."""

    def write(self, blocks: Any) -> None:
        """Append blocks: an array of as many rows."""
        raw = np.ascontiguousarray(blocks).view(np.uint8).data
        durable.write_all(self._fd, raw)
        self._digest.update(raw)
        self.blocks += len(blocks)

    def finish(self) -> store.Part:
        """Make it durable under its name."""
        try:
            os.fsync(self._fd)
        finally:
            self._close()
        durable.replace(self._part, self.final)
        return store.Part(self.final.name, self.blocks, str(self._digest.hexdigest()))

    def discard(self) -> None:
        """Leave nothing of it."""
        self._close()
        with suppress(OSError):
            self._part.unlink()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
