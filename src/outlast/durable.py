"""Crash-safe file work: reserve, write, rename, delete. The one module that does it; all rooms use it.

Writing: temporary name in the same folder, fsync, rename, fsync of the folder.
Deleting: rename into the trash (same file system), unlink, measure.
Each step is idempotent: starting again after a kill at any line ends in the same place.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""errno values that mean: making room cures it."""

_UNSUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV})
_OCTAL = re.compile(rb"\\([0-7]{3})")
_KEEP_SIZE = 1
_BEGIN_WRITING = 2  # SYNC_FILE_RANGE_WRITE
_libc = ctypes.CDLL(None, use_errno=True)


def allocate(fd: int, size: int, *, offset: int = 0, keep_length: bool = False) -> bool:
    """Reserve blocks for a file with fallocate(2).

    glibc's posix_fallocate writes zeros where the file system has no fallocate, so the system call is used itself.

    Args:
        fd: open for writing.
        size: bytes to reserve from the offset on.
        offset: first byte of the range.
        keep_length: leave the file's length as it is.

    Returns:
        True when the blocks are ours, False where the file system cannot reserve.

    Raises:
        OSError: ENOSPC or EDQUOT, after giving back what a failed call kept (ext4 keeps it otherwise).
    """
    if size <= 0:
        return True
    try:
        call = _libc.fallocate64
    except AttributeError:
        return False
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    length = os.fstat(fd).st_size
    while call(fd, _KEEP_SIZE if keep_length else 0, offset, size) != 0:
        number = ctypes.get_errno()
        if number == errno.EINTR:
            continue
        with suppress(OSError):
            os.ftruncate(fd, length)
        if number in _UNSUPPORTED:
            return False
        raise OSError(number, os.strerror(number))
    return True


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write every byte; a short write is continued, so that its cause comes out as OSError."""
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(fd, view) :]


def start_writeback(fd: int, offset: int, length: int) -> None:
    """Let the kernel begin to write a range to the disk, so that less is left for fsync to wait for; a hint only."""
    with suppress(AttributeError):  # Linux only
        call = _libc.sync_file_range
        call.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
        call(fd, offset, length, _BEGIN_WRITING)


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make renames and unlinks in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        # Some network and FUSE file systems refuse fsync on a folder; the rename itself has happened.
        if error.errno not in _UNSUPPORTED:
            raise
    finally:
        os.close(fd)


def sync_file(path: str | os.PathLike[str]) -> None:
    """Fsync a file by name."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace(part: Path, final: Path) -> None:
    """Rename within one file system and make it durable."""
    os.replace(part, final)
    sync_folder(final.parent)


def read_small(path: str | os.PathLike[str], most: int = 1 << 20) -> bytes:
    """A regular file's bytes; a pipe in its place is an error, not a wait for ever.

    Raises:
        OSError: when it is no regular file (EINVAL), is a link (ELOOP), or cannot be read.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
        return file.read(most)


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a small file as a whole: after a kill at any line it is the old one or the new one."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        try:
            write_all(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
        replace(part, path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


class syncing:
    """Context in which files and their folders are fsynced by a thread, while the caller reads them for their digests.

    Raises:
        OSError: at the end, what a file system reports only at fsync (network file systems, quotas).
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="outlast-fsync", daemon=True)

    def _run(self) -> None:
        try:
            for path in self._files:
                sync_file(path)
            for folder in {path.parent for path in self._files}:
                sync_folder(folder)
        except BaseException as error:
            self._error = error

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exc: object) -> None:
        self._thread.join()
        if self._error and exc[0] is None:
            raise self._error


@dataclass(frozen=True, slots=True)
class Removal:
    """What became of one deletion."""

    name: str
    """What was to go."""
    freed_bytes: int
    """Allocated bytes of it that are gone; what an open file still holds is in `held_bytes`."""
    held_bytes: int
    """Allocated bytes that could not be freed and count as used."""
    reason: str | None
    """Why something is left; None when all is gone."""


def remove_tree(path: Path) -> Removal:
    """Unlink a file or folder, go on past what cannot be unlinked, and say what is left.

    Links are unlinked, never followed; other mounts are left alone.
    """
    reasons: list[str] = []
    freed = held = 0
    try:
        info = os.lstat(path)
    except FileNotFoundError:  # another one has finished it
        return Removal(path.name, 0, 0, None)
    mounts = mounts_below(path)
    if os.fspath(path) in mounts:
        return Removal(path.name, 0, 0, f"{path} is another mount")
    # A stack, not recursion: somebody else's tree may be deeper than Python recurses.
    stack = [(os.fspath(path), info, False)]
    while stack:
        name, info, is_emptied = stack.pop()
        is_folder = stat.S_ISDIR(info.st_mode)
        size = info.st_blocks * 512
        try:
            if is_folder and not is_emptied:
                children = _children(name, mounts, reasons)
                stack += [(name, info, True), *children]
                continue
            if not is_folder and info.st_nlink > 1 and os.lstat(name).st_nlink > 1:
                size = 0  # not its last name: nothing is freed by it
            (os.rmdir if is_folder else os.unlink)(name)
            freed += size
        except OSError as error:
            reasons.append(f"{name}: {why_not(error)}")
            held += size
    return Removal(path.name, freed, held, reasons[0] if reasons else None)


def _children(folder: str, mounts: frozenset[str], reasons: list[str]) -> list[tuple[str, os.stat_result, bool]]:
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.path in mounts:
                reasons.append(f"{entry.path} is another mount")
            else:
                found.append((entry.path, entry.stat(follow_symlinks=False), False))
    return found


def mount_points(table: str = "/proc/self/mountinfo") -> frozenset[str]:
    """Where something is mounted now; empty where the kernel does not say.

    Args:
        table: the kernel's list (proc_pid_mountinfo(5)).
    """
    try:
        fields = [line.split(b" ")[4] for line in Path(table).read_bytes().split(b"\n") if line.count(b" ") > 5]
    except OSError:
        return frozenset()
    return frozenset(os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match[1], 8)]), field)) for field in fields)


def mounts_below(path: str | os.PathLike[str], points: Iterable[str] | None = None) -> frozenset[str]:
    """Mount points at or below a path, written as that path begins.

    The device number does not tell a bind mount from its surroundings, and containers are made of bind mounts.

    Args:
        path: a folder; what stands in its own place counts too.
        points: what `mount_points` gave; None asks it now.
    """
    given = os.fspath(path)
    real = f"{os.path.realpath(Path(given).parent)}/{Path(given).name}".replace("//", "/")
    points = mount_points() if points is None else points
    return frozenset(given + point[len(real) :] for point in points if point == real or point.startswith(real + "/"))


def why_not(error: OSError) -> str:
    """A reason for people from an OSError: the kernel's words and what usually stands behind them."""
    causes = {
        errno.EPERM: "immutable (chattr +i) or another owner",
        errno.EACCES: "another owner or a read-only folder",
        errno.EROFS: "read-only file system",
        errno.EBUSY: "in use or a mount point",
        errno.ENOTEMPTY: "something inside it could not be removed",
    }
    words = os.strerror(error.errno) if error.errno else str(error)
    cause = causes.get(error.errno or 0)
    return f"{words} ({cause})" if cause else words


def into_trash(path: Path, trash: Path) -> Path:
    """Rename a file or folder into the trash, under a name that is free there.

    Raises:
        OSError: when it cannot be renamed (immutable, another owner's folder, read-only).
    """
    # A name may have 255 bytes, and this one gets longer.
    kept = os.fsdecode(os.fsencode(path.name)[:200])
    target = trash / f"{kept}.{secrets.token_hex(4)}"
    os.rename(path, target)
    sync_folder(path.parent)
    return target


def copy_small(source: Path, target: Path) -> None:
    """Copy one regular file durably."""
    part = target.with_name(f".{target.name}.part")
    shutil.copyfile(source, part, follow_symlinks=False)
    sync_file(part)
    replace(part, target)


@contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold an advisory lock (flock) on a file; the kernel gives it back when the holder dies.

    Args:
        path: lock file, made if missing.
        wait: block until it is ours.

    Yields:
        True when the lock is held, False when it was not to be had without waiting.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            held = True
        except BlockingIOError:
            held = False
        except OSError as error:
            # No locks on this file system: one writer is assumed, as everywhere else there.
            if error.errno not in {errno.ENOLCK, *_UNSUPPORTED}:
                raise
            held = True
        yield held
    finally:
        # A child forked meanwhile shares the lock; closing our end alone would leave it held for the child's life.
        with suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_UN)
        os.close(fd)


class Ballast:
    """A reserved file that is cut when a volume is full, so that the journal and one small save still fit.

    Args:
        path: the file; its folder must exist before the volume is full.
    """

    _SLICE = 64 * 1024
    _LEAST, _MOST, _PART = 256 * 1024, 16 << 20, 50

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def size_bytes(self) -> int:
        """Bytes that it holds now."""
        try:
            return os.lstat(self.path).st_size
        except OSError:
            return 0

    def fill(self, size: int) -> bool:
        """Make it ``size`` bytes again if the room is there; True when it is that large."""
        if self.size_bytes >= size:
            return True
        try:
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError:
            return False
        try:
            return allocate(fd, size)
        except OSError:
            return False
        finally:
            os.close(fd)

    def keep(self, free: int | None, total: int | None) -> bool:
        """Make it whole again where it takes no more than a quarter of what is free: a 50th of the volume.

        Args:
            free: bytes that can be written there; None when unknown.
            total: bytes of the volume; None when unknown.

        Returns:
            True when it is whole.
        """
        size = self.wanted_bytes(total)
        return (free is None or free >= 4 * size) and self.fill(size)

    @classmethod
    def wanted_bytes(cls, total: int | None) -> int:
        """What it holds when whole, on a volume of so many bytes; None when that is unknown."""
        return max(cls._LEAST, min(cls._MOST, (total or 0) // cls._PART))

    def cut(self) -> bool:
        """Give back one slice; False when there is none left."""
        size = self.size_bytes
        if size == 0:
            return False
        return self._shrink(max(0, size - self._SLICE))

    def release(self) -> int:
        """Give all of it back; returns the bytes that it held."""
        size = self.size_bytes
        self._shrink(0)
        return size - self.size_bytes

    def _shrink(self, size: int) -> bool:
        try:
            fd = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            os.ftruncate(fd, size)
            return True
        except OSError:
            return False
        finally:
            os.close(fd)
