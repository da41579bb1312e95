"""Digests of files: BLAKE3 where it is installed, BLAKE2b from the standard library where it is not.

A guarded script may run in an interpreter that has none of Outlast's dependencies; a digest names its algorithm, so
both kinds of seal can be told apart and checked. `Follower` takes one while the file is still being written.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from pathlib import Path
from typing import Any

from outlast import durable
from outlast.errors import SealError

try:
    import blake3 as _blake3
except ImportError:  # another interpreter than Outlast's own
    _blake3 = None  # type: ignore[assignment]

_CHUNK = 4 << 20
_THREADS_FROM = 32 << 20
_FOLLOW_FROM = 8 << 20


def of_file(path: str | os.PathLike[str], algorithm: str | None = None) -> str:
    """The digest of a file, as ``algorithm:hex``.

    Args:
        path: a regular file.
        algorithm: ``blake3`` or ``blake2b``; None takes the best one here.

    Raises:
        SealError: when the algorithm is not to be had in this interpreter.
        OSError: when the file cannot be read.
    """
    name = algorithm or ("blake3" if _blake3 else "blake2b")
    hasher: Any
    with Path(path).open("rb", buffering=0) as file:
        if name == "blake3" and _blake3:
            # Reading costs nothing next to a lost file; mmap would turn an I/O error into SIGBUS.
            large = os.fstat(file.fileno()).st_size >= _THREADS_FROM
            hasher = _blake3.blake3(max_threads=_blake3.blake3.AUTO if large else 1)
        elif name == "blake2b":
            hasher = hashlib.blake2b(digest_size=32)
        else:
            raise SealError(
                f"this seal uses {name}, which this interpreter does not have",
                hint="pip install blake3 in the environment that trains, or check with Outlast's own command",
            )
        buffer = bytearray(_CHUNK)
        view = memoryview(buffer)
        while count := file.readinto(buffer):
            hasher.update(view[:count])
    return f"{name}:{hasher.hexdigest()}"


class Follower:
    """A thread behind a writer: what the kernel has been given goes on to the disk at once, and into the digest.

    It reads the file, still in the page cache, and not the writer's memory: the digest is of what is stored.

    Args:
        fd: open for reading and writing; written from its start, in order.
        digests: False only starts the writing to disk.
    """

    def __init__(self, fd: int, *, digests: bool = True) -> None:
        self._fd = fd
        self._digests = digests
        self._ends: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_off = False
        self._result: str | None = None

    def reach(self, end: int) -> None:
        """The writer is done with all bytes before ``end``. Small files are not worth the thread."""
        if self._thread is None and end >= _FOLLOW_FROM and not self._is_off:
            self._thread = threading.Thread(target=self._run, name="outlast-digest", daemon=True)
            try:
                self._thread.start()
            except RuntimeError:  # no thread to be had: the file is read when it is sealed
                self._thread, self._is_off = None, True
        if self._thread:
            self._ends.put(end)

    def give_up(self) -> None:
        """The writer goes back in the file: what was read of it may not stay as it is."""
        self._is_off = True

    def stop(self) -> str | None:
        """Wait for the thread; the digest of all that was written, or None when the file must be read for it."""
        if self._thread:
            self._ends.put(None)
            self._thread.join()
            self._thread = None
        return None if self._is_off else self._result

    def _run(self) -> None:
        hasher: Any = _blake3.blake3() if _blake3 else hashlib.blake2b(digest_size=32)
        view = memoryview(bytearray(_CHUNK))
        done = 0
        try:
            while (end := self._ends.get()) is not None:
                durable.start_writeback(self._fd, done, end - done)
                while self._digests and done < end:
                    count = os.preadv(self._fd, [view[: end - done]], done)
                    if not count:
                        return
                    hasher.update(view[:count])
                    done += count
                done = end
        except OSError:
            return  # whoever seals the file reads it again, and meets the error
        if self._digests:
            self._result = f"{'blake3' if _blake3 else 'blake2b'}:{hasher.hexdigest()}"


def of_bytes(data: bytes, algorithm: str | None = None) -> str:
    """The digest of a few bytes, as ``algorithm:hex``; ``blake2b`` is one that every interpreter can check."""
    if _blake3 and algorithm != "blake2b":
        return f"blake3:{_blake3.blake3(data).hexdigest()}"
    return f"blake2b:{hashlib.blake2b(data, digest_size=32).hexdigest()}"


def matches(path: str | os.PathLike[str], expected: str) -> bool:
    """True when the file's digest is the expected one, computed with the expected one's algorithm."""
    return of_file(path, expected.partition(":")[0]) == expected
