"""Copying a tree so that a kill loses no work and nothing counts as copied before it was read back from the disk.

The copy keeps hard links, holes, modes, owners and times. What has been verified is in a log beside the copy, a line a
file; a second run hashes only what is not in it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from outlast import durable
from outlast.caches.trees import Entry, Tree, entry_of, moved_link, same_time, scan
from outlast.errors import OutlastError

_CHUNK = 4 << 20
_ZEROS = bytes(_CHUNK)
_BATCH_FILES, _BATCH_BYTES = 128, 256 << 20


class Log:
    """What has been verified, on disk: a JSON line a file. A torn last line is read past."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stamps: dict[str, str] = {}
        with suppress(OSError):
            for line in path.read_bytes().split(b"\n"):
                with suppress(ValueError, KeyError, TypeError):
                    record = json.loads(line)
                    self.stamps[record["path"]] = record["stamp"]

    def add(self, digests: Mapping[str, tuple[str, str]]) -> None:
        """Write down verified files durably: path to stamp and digest."""
        if not digests:
            return
        # A torn line before it must not swallow the first new one.
        lines = [b""] + [
            json.dumps({"path": path, "stamp": stamp, "digest": digest}).encode()
            for path, (stamp, digest) in digests.items()
        ]
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            durable.write_all(fd, b"\n".join(lines) + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)
        self.stamps.update({path: stamp for path, (stamp, _) in digests.items()})


class Copier:
    """Makes a copy of a tree, or goes on with one.

    Args:
        source: the tree.
        copy: where the copy is; made if missing.
        log: what has been verified of it.
        tell: called with the bytes of each file that was copied and verified.
    """

    def __init__(self, source: Path, copy: Path, log: Log, tell: Callable[[int], None] = lambda size: None) -> None:
        self.source, self.copy, self.log, self.tell = source, copy, log, tell

    def run(self, tree: Tree) -> None:
        """Bring the copy to what the scan of the source says; what changes meanwhile is left for another round.

        Raises:
            OSError: what the volume says; full, for one.
            OutlastError: when what is read back is not what was written.
        """
        self._clear(tree)
        self._folders(tree)
        leaders = tree.leaders()
        waiting = (tree.entries[path] for path in leaders.values() if not self._is_done(tree.entries[path]))
        while batch := list(_batch(waiting)):
            self._verified_copies(batch)
        for path, entry in tree.entries.items():
            if entry.kind == "file" and (leader := leaders[entry.inode]) != path:
                self._hard_link(leader, path)
            elif entry.kind == "link":
                self._link(entry)
        self._finish(tree)

    def _at(self, path: str) -> str:
        return os.path.join(self.copy, path) if path else os.fspath(self.copy)

    def _clear(self, tree: Tree) -> None:
        """Remove what the source no longer has."""
        if not self.copy.is_dir():
            return
        for path, entry in reversed(list(scan(self.copy).entries.items())):
            wanted = tree.entries.get(path)
            if wanted is None or wanted.kind != entry.kind:
                if entry.kind == "folder":
                    Path(self._at(path)).chmod(0o700)
                    durable.remove_tree(Path(self._at(path)))
                else:
                    with suppress(FileNotFoundError):
                        os.unlink(self._at(path))

    def _folders(self, tree: Tree) -> None:
        for path, entry in tree.entries.items():
            if entry.kind == "folder":
                os.makedirs(self._at(path), 0o700, exist_ok=True)
                Path(self._at(path)).chmod(0o700)  # a read-only one could not be filled

    def _is_done(self, entry: Entry) -> bool:
        if self.log.stamps.get(entry.path) != entry.stamp:
            return False
        with suppress(OSError):
            info = os.lstat(self._at(entry.path))
            return (
                stat.S_ISREG(info.st_mode)
                and info.st_size == entry.bytes
                and same_time(info.st_mtime_ns, entry)
            )  # fmt: skip
        return False

    def _verified_copies(self, batch: Sequence[Entry]) -> None:
        digests = {entry.path: self._copied(entry) for entry in batch}
        paths = [Path(self._at(entry.path)) for entry in batch]
        with durable.syncing(paths):
            pass
        good: dict[str, tuple[str, str]] = {}
        for entry, path in zip(batch, paths, strict=True):
            digest = digests[entry.path]
            if digest is None:
                continue
            if _read_back(path) != digest:
                raise OutlastError(
                    f"{path} does not read back as it was written",
                    hint="the disk or the memory of this machine is bad; nothing was switched or deleted",
                )
            good[entry.path] = (entry.stamp, digest)
        self.log.add(good)
        self.tell(sum(entry.bytes for entry in batch if entry.path in good))

    def _copied(self, entry: Entry) -> str | None:
        """Copy one file; its digest as read from the source, or None when it changed meanwhile."""
        target = self._at(entry.path)
        with suppress(FileNotFoundError):
            os.unlink(target)  # it may be read-only, or a hard link of another by now
        try:
            source = os.open(self.source / entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        try:
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                digest = _pour(source, fd)
                _set_owner(fd, entry)
                os.fchmod(fd, entry.mode)
                os.utime(fd, ns=(entry.modified_ns, entry.modified_ns))
            finally:
                os.close(fd)
            after = os.fstat(source)
            return digest if entry_of(entry.path, "file", after).stamp == entry.stamp else None
        finally:
            os.close(source)

    def _hard_link(self, leader: str, path: str) -> None:
        with suppress(OSError):
            if os.path.samestat(os.lstat(self._at(leader)), os.lstat(self._at(path))):
                return
        with suppress(FileNotFoundError):
            os.unlink(self._at(path))
        with suppress(FileNotFoundError):  # the leader went meanwhile: another round
            os.link(self._at(leader), self._at(path), follow_symlinks=False)

    def _link(self, entry: Entry) -> None:
        target, text = self._at(entry.path), moved_link(entry.text, entry.path, os.fspath(self.source))
        with suppress(OSError):
            if os.readlink(target) == text:  # noqa: PTH115
                return
        with suppress(FileNotFoundError):
            os.unlink(target)
        Path(target).symlink_to(text)
        _set_owner(target, entry)
        os.utime(target, ns=(entry.modified_ns, entry.modified_ns), follow_symlinks=False)

    def _finish(self, tree: Tree) -> None:
        """Folders get their times and modes last, the deepest first, and become durable."""
        for path, entry in reversed(list(tree.entries.items())):
            if entry.kind == "folder":
                target = self._at(path)
                durable.sync_folder(target)
                _set_owner(target, entry)
                Path(target).chmod(entry.mode)
                os.utime(target, ns=(entry.modified_ns, entry.modified_ns))


def _batch(waiting: Iterator[Entry]) -> Iterator[Entry]:
    size = 0
    for entry in islice(waiting, _BATCH_FILES):
        yield entry
        size += entry.bytes
        if size >= _BATCH_BYTES:
            return


def _set_owner(target: int | str, entry: Entry) -> None:
    # A network volume often has one owner for all, and no other user's file can be made without root.
    with suppress(PermissionError):
        if os.geteuid() == 0:
            os.chown(target, *entry.owner, follow_symlinks=isinstance(target, int))


def _pour(source: int, target: int) -> str:
    """Copy what a file holds, leaving its holes; the digest of all its bytes."""
    hasher = hashlib.blake2b(digest_size=32)
    size = os.fstat(source).st_size
    at = 0
    for start, end in _extents(source, size):
        _add_zeros(hasher, start - at)
        for offset in range(start, end, _CHUNK):
            data = os.pread(source, min(_CHUNK, end - offset), offset)
            hasher.update(data)
            os.lseek(target, offset, os.SEEK_SET)
            durable.write_all(target, data)
        at = end
    _add_zeros(hasher, size - at)
    os.ftruncate(target, size)
    return hasher.hexdigest()


def _add_zeros(hasher: hashlib.blake2b, count: int) -> None:
    while count > 0:
        hasher.update(memoryview(_ZEROS)[: min(count, _CHUNK)])
        count -= _CHUNK


def _extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Parts of a file that hold data; all of it where the file system knows no holes."""
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # that one says: nothing but a hole is left
                yield at, size
            return
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end
        at = end


def _read_back(path: Path) -> str:
    """The digest of what the disk holds: the page cache is dropped first, where the kernel does so."""
    hasher = hashlib.blake2b(digest_size=32)
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        while data := os.read(fd, _CHUNK):
            hasher.update(data)
    finally:
        os.close(fd)
    return hasher.hexdigest()
