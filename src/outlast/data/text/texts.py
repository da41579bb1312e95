"""The texts that blocks are made of, and what tells one collection of them from another. Needs pyarrow for rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from blake3 import blake3

from outlast.data.epochs.row_groups import Groups, Shard, listed
from outlast.errors import BadInput

_CHUNK_ROWS = 256


class Texts(Protocol):
    """Documents, in an order that is always the same."""

    name: str
    """What they are from."""
    size_bytes: int | None
    """Bytes of all in UTF-8, about; None when not known before."""

    def identity(self) -> str | None:
        """Digest of the texts; None when that is only known when all have been read."""

    def since(self, document: int) -> Iterator[str]:
        """The documents from this one on."""


class RowTexts:
    """One column of Parquet files, in the files' order.

    Args:
        files: the shards.
        column: a column of strings.

    Raises:
        BadInput: when there is no such column, or it holds no text.
    """

    def __init__(self, files: Sequence[Shard], column: str) -> None:
        import pyarrow.types as types

        schema = files[0].schema
        if column not in schema.names:
            raise BadInput(f"there is no column {column!r}", hint=f"column=... is one of: {', '.join(schema.names)}")
        kind = schema.field(column).type
        if not (types.is_string(kind) or types.is_large_string(kind)):
            raise BadInput(f"the column {column!r} is {kind}; expected text", hint="column=... says which to tokenise")
        self.files, self.column = files, column
        # One file of several is a source of its own: train.parquet is no older form of test.parquet beside it.
        folder, one = files[0].path.parent.resolve(), files[0].path.name
        is_one_of_several = len(files) == 1 and any(file.name != one for file in folder.glob("*.parquet"))
        self.name = str(folder / one if is_one_of_several else folder)
        self.size_bytes: int | None = sum(dict(file.column_bytes).get(column, 0) for file in files)

    def identity(self) -> str:
        """Digest of the files' digests: the manifest's where it speaks of files of this size, else taken now."""
        known = listed(self.files[0].path.parent.parent)
        found = blake3()
        for file in self.files:
            size, digest = known.get(f"{file.path.parent.name}/{file.path.name}", (None, ""))
            found.update((digest if size == file.file_bytes else _digest(file.path)).encode())
        return str(found.hexdigest())

    def since(self, document: int) -> Iterator[str]:
        """The documents from this one on; only row groups that hold them are decoded."""
        groups, first = Groups(self.files, [self.column], 1), 0
        sizes = [rows for file in self.files for rows in file.rows]
        for number, rows in enumerate(sizes):
            if first + rows > document:
                array = groups.get(number)[0]
                for start in range(max(0, document - first), rows, _CHUNK_ROWS):
                    yield from self._texts(array.slice(start, _CHUNK_ROWS).to_pylist(), first + start)
            first += rows

    def _texts(self, found: list[str | None], start: int) -> Iterator[str]:
        for number, text in enumerate(found, start):
            if text is None:
                raise BadInput(
                    f"row {number} of {self.name} has no text in {self.column!r}",
                    hint="leave such rows out when the data set is made, or write an empty text",
                )
            yield text


class ListTexts:
    """Texts that can be gone through again: a list, a tuple, anything that gives a new iterator each time.

    Args:
        texts: the documents.
        name: what they are from.
    """

    def __init__(self, texts: Iterable[str], name: str) -> None:
        self.texts, self.name = texts, name
        self.size_bytes: int | None = None

    def identity(self) -> str | None:
        """Digest of all texts, for which they are gone through once; far faster than to tokenise them."""
        found, size = blake3(), 0
        for text in _checked(self.texts):
            raw = framed(text)
            found.update(raw)
            size += len(raw) - 8
        self.size_bytes = size
        return str(found.hexdigest())

    def since(self, document: int) -> Iterator[str]:
        """The documents from this one on."""
        return islice(_checked(self.texts), document, None)


class StreamTexts:
    """Texts that can be gone through once, so that their digest is known at their end only.

    Args:
        texts: an iterator.
        name: what they are from.
    """

    def __init__(self, texts: Iterator[str], name: str) -> None:
        self.texts, self.name = texts, name
        self.size_bytes: int | None = None
        self._digest = blake3()

    def identity(self) -> None:
        """Not known before the end."""

    def since(self, document: int) -> Iterator[str]:
        """All of them; there is no going back, so it is always the first."""
        for text in islice(_checked(self.texts), document, None):
            self._digest.update(framed(text))
            yield text

    def seen(self) -> str:
        """Digest of the texts so far: that of `ListTexts` for the same texts."""
        return str(self._digest.hexdigest())


def texts_of(source: Any, column: str, name: str) -> RowTexts | ListTexts | StreamTexts:
    """Texts from rows, or from any iterable of them.

    Raises:
        BadInput: when it is neither.
    """
    files = getattr(source, "files", None)
    if files is not None:
        return RowTexts(files, column)
    if isinstance(source, str | bytes) or not isinstance(source, Iterable):
        raise BadInput(
            f"expected rows or texts, got {type(source).__name__}", hint="outlast.data.open(FOLDER), or a list of texts"
        )
    is_once = iter(source) is source
    return StreamTexts(iter(source), name) if is_once else ListTexts(source, name)


def framed(text: str) -> bytes:
    """A text's bytes with their number before them, so that two texts are not one."""
    raw = text.encode("utf-8", "surrogatepass")
    return len(raw).to_bytes(8, "little") + raw


def _checked(texts: Iterable[Any]) -> Iterator[str]:
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise BadInput(f"text {number} is a {type(text).__name__}", hint="give texts, or rows and column=...")
        yield text


def _digest(path: Path) -> str:
    return str(blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest())
