"""A folder of token blocks that were made once: found by its key, finished after a kill, never torn, swept when old.

    CACHE/blocks-KEY/            index.json and part-00000.bin ...: the blocks, little-endian, one after the other
    CACHE/.outlast/blocks/NAME/  what is being made; a part that stands here under its name is whole
    CACHE/.outlast/trash/        what is being deleted

Whoever makes a set holds a lock on a file in its folder, whoever reads one holds a shared lock on its index. The kernel
gives both back when a process dies.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from outlast import durable
from outlast.checkpoints import say
from outlast.data.text.packing import Place
from outlast.errors import BadInput
from outlast.host import show_bytes
from outlast.journal import FOLDER, from_environment

PREFIX, INDEX, STREAM = "blocks-", "index.json", "stream-"
_PROGRESS, _LOCK = "progress.json", "lock"
_FORMAT, _VERSION = "outlast-blocks", 1
_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})
_LARGEST = 64 << 20


@dataclass(frozen=True, slots=True)
class Part:
    """One file of blocks."""

    name: str
    """Its name in the folder."""
    blocks: int
    """Blocks in it."""
    blake3: str
    """Digest of its bytes."""


@dataclass(frozen=True, slots=True)
class Index:
    """What a folder of blocks holds."""

    key: str
    """Digest of everything that went in, 64 hex digits."""
    of: Mapping[str, Any]
    """Source, column, length and wrap: a set of the same that has another key is an old one."""
    length: int
    """Tokens of a block."""
    dtype: str
    """``<u2`` or ``<u4``."""
    documents: int
    """Documents that went in."""
    tokens: int
    """Their tokens, an EOS for each counted."""
    left_over: int
    """Tokens at the end that were too few for a block."""
    parts: tuple[Part, ...]
    """The files, in order."""

    @property
    def blocks(self) -> int:
        """Blocks in all."""
        return sum(part.blocks for part in self.parts)

    def to_bytes(self) -> bytes:
        """The file's content."""
        return (json.dumps({"format": _FORMAT, "version": _VERSION, **asdict(self)}, indent=1) + "\n").encode()


def folder_of(cache: Path, key: str) -> Path:
    """Where a set of a key stands when it is whole."""
    return cache / f"{PREFIX}{key[:32]}"


def read_index(folder: Path) -> Index | None:
    """The index of a whole set; None when there is none, or it is not one of ours."""
    said = _read(folder / INDEX)
    if said is None or said.pop("format", None) != _FORMAT or said.pop("version", None) != _VERSION:
        return None
    try:
        parts = tuple(Part(**part) for part in said.pop("parts"))
        index = Index(parts=parts, **said)
        width = index.length * int(index.dtype[2:])
        whole = all(_size(folder / part.name) == part.blocks * width for part in parts)
    except (OSError, KeyError, TypeError, ValueError, AttributeError):
        return None
    return index if whole and all("/" not in part.name for part in parts) else None


def _read(path: Path) -> dict[str, Any] | None:
    try:
        said = json.loads(durable.read_small(path, _LARGEST))
    except (OSError, ValueError):
        return None
    return said if isinstance(said, dict) else None


def hold(folder: Path) -> tuple[Index, int] | None:
    """Open a set for reading, so that nobody sweeps it: its index, and what to close at the end; None if it is gone."""
    path = folder / INDEX
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    index = None
    # A sweeper takes the lock first and renames then: who has it and still sees the same file is in time.
    if _locked(fd, fcntl.LOCK_SH) and _is_still(path, fd):
        index = read_index(folder)
    if index is None:
        os.close(fd)
        return None
    return index, fd


@contextmanager
def making(cache: Path, name: str) -> Iterator[Path]:
    """The folder in which a set is made, ours alone; waits for another process that is making it.

    Raises:
        BadInput: when nothing can be written there.
    """
    folder = cache / FOLDER / "blocks" / name
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            fd = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except FileNotFoundError:
            continue  # its maker has finished it between our two lines
        except OSError as error:
            raise BadInput(
                f"nothing can be written in {cache}: {durable.why_not(error)}", hint="cache=FOLDER says where"
            ) from None
        try:
            _locked(fd, fcntl.LOCK_EX, wait=True)
            if _is_still(folder / _LOCK, fd):
                yield folder
                return
        finally:
            os.close(fd)


def _locked(fd: int, kind: int, *, wait: bool = False) -> bool:
    try:
        fcntl.flock(fd, kind | (0 if wait else fcntl.LOCK_NB))
        return True
    except OSError as error:
        return error.errno in _NO_LOCKS


def _is_still(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(fd))
    except OSError:
        return False


# Going on


def read_progress(folder: Path, block_bytes: int) -> tuple[tuple[Part, ...], Place]:
    """The parts that are whole, and where the next one begins; what else is there is removed."""
    said = _read(folder / _PROGRESS) or {}
    parts: tuple[Part, ...] = ()
    place = Place()
    with suppress(OSError, KeyError, TypeError, ValueError):
        found = tuple(Part(**part) for part in said["parts"])
        if all("/" not in part.name and _size(folder / part.name) == part.blocks * block_bytes for part in found):
            place, parts = Place(**said["place"]), found
    known = {part.name for part in parts} | {_LOCK} | ({_PROGRESS} if parts else set())
    for entry in folder.iterdir():
        if entry.name not in known:
            durable.remove_tree(entry)
    return parts, place


def _size(path: Path) -> int:
    return os.lstat(path).st_size


def write_progress(folder: Path, of: Mapping[str, Any], parts: tuple[Part, ...], place: Place) -> None:
    """Say durably how far it is; after the part that it speaks of."""
    said = {"of": dict(of), "parts": [asdict(part) for part in parts], "place": asdict(place)}
    durable.write_bytes(folder / _PROGRESS, json.dumps(said).encode())


def commit(cache: Path, folder: Path, index: Index) -> Path:
    """Make a set that is whole readable under its key."""
    final = folder_of(cache, index.key)
    durable.write_bytes(folder / INDEX, index.to_bytes())
    for name in (_PROGRESS, _LOCK):
        (folder / name).unlink(missing_ok=True)
    if os.path.lexists(final):
        # Torn by other hands, or its files would have been taken.
        _remove(cache, final)
    durable.sync_folder(folder)
    durable.replace(folder, final)
    return final


# Sweeping


def sweep(cache: Path, index: Index) -> None:
    """Remove the sets that this one takes the place of: ours by their index, of the same source, not in use.

    What was being made of the same, and is not any more, goes too. Journaled under the cache, and said.
    """
    for folder in sorted(cache.glob(f"{PREFIX}*")):
        old = read_index(folder)
        if old is not None and old.key != index.key and old.of == dict(index.of):
            _sweep_one(cache, folder, folder / INDEX)
    for folder in sorted((cache / FOLDER / "blocks").glob("*")):
        said = _read(folder / _PROGRESS)
        if folder.name.startswith(STREAM) or (said is not None and said.get("of") == dict(index.of)):
            _sweep_one(cache, folder, folder / _LOCK)


def _sweep_one(cache: Path, folder: Path, lock: Path) -> None:
    try:
        fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return
    journal = from_environment(cache)
    try:
        if not _locked(fd, fcntl.LOCK_EX):
            journal.write("old_blocks_kept", folder=str(folder), why="in use by a process")
            return
        removal = _remove(cache, folder)
        journal.write("old_blocks_removed", folder=str(folder), **asdict(removal))
        left = f"; {show_bytes(removal.held_bytes)} are left: {removal.reason}" if removal.reason else ""
        say(
            f"removed {show_bytes(removal.freed_bytes)} of old token blocks, which newer ones replace: {folder}{left}",
            "cache=ANOTHER FOLDER keeps both",
        )
    finally:
        os.close(fd)
        journal.close()


def _remove(cache: Path, folder: Path) -> durable.Removal:
    trash = cache / FOLDER / "trash"
    trash.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):
        for entry in trash.iterdir():
            durable.remove_tree(entry)
    try:
        return durable.remove_tree(durable.into_trash(folder, trash))
    except OSError as error:
        return durable.Removal(folder.name, 0, 0, durable.why_not(error))
