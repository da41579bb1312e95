"""Room that is really ours before the first byte, and files that are written into it.

A reservation is a handful of hidden files with blocks allocated. A writer claims one: it writes that very inode,
cuts it to its true length and renames it. So another process that fills the volume afterwards cannot hurt the save.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from io import RawIOBase
from pathlib import Path
from typing import Any

from outlast import durable
from outlast.checkpoints.digest import Follower

_BUFFER = 1 << 20
_PIECE = 8 << 20


class Reservation:
    """Preallocated files in a folder, one for each large file that is expected.

    Args:
        folder: an existing folder on the volume that the save goes to.
        sizes: predicted lengths in bytes.

    Raises:
        OSError: ENOSPC or EDQUOT when the room is not there; nothing stays reserved then.
    """

    def __init__(self, folder: Path, sizes: Sequence[int]) -> None:
        self._free: list[tuple[int, Path]] = []
        self.is_real = True
        """False where the file system cannot reserve; then only the measured free space stands behind a save."""
        try:
            for number, size in enumerate(sizes):
                path = folder / f".reserved-{number}"
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
                self._free.append((size, path))
                try:
                    self.is_real &= durable.allocate(fd, size)
                finally:
                    os.close(fd)
        except OSError:
            self.release()
            raise

    def claim(self, part: Path, size: int | None) -> None:
        """Give a reserved file the name ``part``: the smallest that holds ``size`` bytes, else the largest.

        Without any left, ``part`` is not made; the writer makes it.
        """
        fitting = [entry for entry in self._free if size is not None and entry[0] >= size]
        entry = min(fitting) if fitting else max(self._free, default=None)
        if entry and (size is None or size >= _BUFFER // 4):
            self._free.remove(entry)
            os.rename(entry[1], part)

    @property
    def unclaimed_bytes(self) -> int:
        """Bytes reserved that no writer has claimed."""
        return sum(size for size, _ in self._free)

    def release(self) -> None:
        """Give back what was not claimed."""
        for _, path in self._free:
            with suppress(OSError):
                path.unlink()
        self._free.clear()


class ReservedFile(RawIOBase):
    """A file object that writes into a claimed inode, in large pieces, and remembers the first OSError.

    torch.save turns a full disk into a RuntimeError without errno (guard.md, trap 1); ``error`` still has it.

    Args:
        part: file to write; made if it is not there.
        digests: take the digest while it is written; ``digest`` has it after `close`, or None if it could not be taken.
    """

    def __init__(self, part: Path, *, digests: bool = False) -> None:
        super().__init__()
        self.part = part
        self.error: OSError | None = None
        self._fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.digest: str | None = None
        self._follower = Follower(self._fd, digests=digests)
        self._pending = bytearray()
        self._position = 0
        self._offset = 0
        self._length = 0

    def writable(self) -> bool:
        """True: it is for writing."""
        return True

    def seekable(self) -> bool:
        """True: zip writers go back to patch a header."""
        return True

    def write(self, data: Any) -> int:
        """Write all of it; what is small is gathered first."""
        view = memoryview(data).cast("B")
        if len(self._pending) + len(view) > _BUFFER:
            self._drain()
        if len(view) >= _BUFFER:
            self._put(view)
        else:
            self._pending += view
        self._position += len(view)
        self._length = max(self._length, self._position)
        return len(view)

    def tell(self) -> int:
        """Position in bytes from the start."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position; the end is that of what was written, not of what was reserved."""
        self._drain()
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}[whence]
        self._position = self._offset = os.lseek(self._fd, base + offset, os.SEEK_SET)
        if self._position != self._length:
            self._follower.give_up()
        return self._position

    def flush(self) -> None:
        """Hand what is pending to the kernel."""
        if not self.closed:
            self._drain()

    def close(self) -> None:
        """Cut the file to its true length and close it.

        Raises:
            OSError: what the kernel reports at the last write or at close (network file systems do).
        """
        if self.closed:
            return
        try:
            self._drain()
            os.ftruncate(self._fd, self._length)
        except OSError as error:
            self._remember(error)
            raise
        finally:
            self.digest = self._follower.stop()
            super().close()
            os.close(self._fd)

    def _drain(self) -> None:
        if self._pending:
            pending, self._pending = self._pending, bytearray()
            self._put(memoryview(pending))

    def _put(self, view: memoryview) -> None:
        try:
            for start in range(0, len(view), _PIECE):
                piece = view[start : start + _PIECE]
                durable.write_all(self._fd, piece)
                self._offset += len(piece)
                self._follower.reach(self._offset)
        except OSError as error:
            self._remember(error)
            raise

    def _remember(self, error: OSError) -> None:
        if self.error is None:
            self.error = error


def is_full(error: BaseException | None) -> bool:
    """True when an exception, or what it came from, says that a volume or quota is full.

    Frameworks hide the errno: safetensors and DCP keep only the text ``(os error 28)``.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in durable.FULL:
            return True
        text = str(error)
        if any(f"os error {number}" in text for number in (errno.ENOSPC, errno.EDQUOT)):
            return True
        if "No space left on device" in text or "Disk quota exceeded" in text:
            return True
        error = error.__cause__ or error.__context__
    return False


def is_hidden_full(error: BaseException) -> bool:
    """True for torch's messages that stand for any failed write, a full disk among others (guard.md, trap 1)."""
    text = str(error)
    return isinstance(error, RuntimeError) and ("unexpected pos" in text or "iostream error" in text)
