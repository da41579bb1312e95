"""What a tree really takes: allocated blocks, a hard link once, no other mount, no link followed.

One thread reads a local tree as fast as Python allows (two thirds of `du`: the rest is making objects). Where reading
waits for the disk or the network, which shows as a thread that gives up its processor again and again, four go on.
"""

from __future__ import annotations

import heapq
import os
import resource
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

_FOLDER = 0o040000
_KIND = 0o170000
_BLOCK = 512
_THREADS = 4
_LOOK_SECONDS = 0.03
"""How long one thread reads before it is judged whether it mostly waits."""
_WAITS_A_SECOND = 300
"""Times a second that it gave up the processor by itself: 0 where all is in memory, also on a busy machine."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What was found below a path."""

    allocated_bytes: int
    """Blocks that the file system gave (st_blocks), bytes; a hard link counts once."""
    apparent_bytes: int
    """Sum of file lengths, bytes."""
    files: int
    """Files that are no folders, each hard-linked inode once."""
    newest: float
    """Latest modification time seen below the path, seconds since the epoch; 0 when empty."""
    unread: tuple[str, ...]
    """Folders and files that could not be read: the figures are a lower bound when any are here."""


@dataclass(frozen=True, slots=True, order=True)
class Item:
    """A file or folder and what it takes."""

    allocated_bytes: int
    """Blocks, bytes; a folder's with all that is below it."""
    path: str
    """Its path."""


@dataclass(frozen=True, slots=True)
class Largest:
    """The largest things below a path."""

    files: tuple[Item, ...]
    """Largest first; a hard-linked file under the name that was found first."""
    folders: tuple[Item, ...]
    """Largest first, without the path itself; one folder may hold the next."""
    usage: Usage
    """All of the tree."""


@dataclass(slots=True)
class _Tally:
    """What one thread has counted."""

    device: int
    linked: dict[tuple[int, int], object]
    """Hard-linked files that are counted already; shared by all threads."""
    top: _Top | None = None
    allocated: int = 0
    apparent: int = 0
    files: int = 0
    newest: float = 0.0
    unread: list[str] = field(default_factory=list)

    def add(self, other: _Tally) -> None:
        self.allocated += other.allocated
        self.apparent += other.apparent
        self.files += other.files
        self.newest = max(self.newest, other.newest)
        self.unread += other.unread

    def usage(self) -> Usage:
        return Usage(self.allocated, self.apparent, self.files, self.newest, tuple(self.unread))


class _Top:
    """The n largest items that were offered; holds no more than these."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._heap: list[Item] = []
        self.bar = 0
        """Bytes that an item must exceed to be among them."""

    def offer(self, size: int, path: str) -> None:
        if size <= self.bar:
            return
        if len(self._heap) < self._n:
            heapq.heappush(self._heap, Item(size, path))
        else:
            heapq.heapreplace(self._heap, Item(size, path))
        if len(self._heap) == self._n:
            self.bar = self._heap[0].allocated_bytes

    def items(self) -> tuple[Item, ...]:
        return tuple(sorted(self._heap, key=lambda item: (-item.allocated_bytes, item.path)))


def tree(path: str | os.PathLike[str], *, threads: int | None = None) -> Usage:
    """Walk a file or folder without following links and without leaving its mount.

    Args:
        path: a file or folder.
        threads: how many read; None takes one, and four once it mostly waits.
    """
    begun = _begin(path)
    if isinstance(begun, Usage):
        return begun
    tally, stack = begun
    if threads is not None and threads > 1:
        _read_together(stack, tally, threads)
        return tally.usage()
    clock, waits, judges = time.perf_counter(), _waits(), threads is None
    while stack:
        stack += _read(stack.pop(), tally)
        if judges and (passed := time.perf_counter() - clock) > _LOOK_SECONDS:
            if len(stack) > 1 and _waits() - waits > _WAITS_A_SECOND * passed:
                _read_together(stack, tally, _THREADS)
            # Judged anew from here: the end of a tree may be cold.
            clock, waits = time.perf_counter(), _waits()
    return tally.usage()


def _waits() -> int:
    """Times that this thread gave up its processor; being pushed off by others does not count."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def largest(path: str | os.PathLike[str], n: int) -> Largest:
    """The n largest files and folders below a path, without holding the tree in memory.

    Args:
        path: a file or folder.
        n: how many of each, at least 1.
    """
    files, folders = _Top(max(1, n)), _Top(max(1, n))
    begun = _begin(path, files)
    if isinstance(begun, Usage):
        own = () if begun.unread else (Item(begun.allocated_bytes, os.fspath(path)),)
        return Largest(own, (), begun)
    tally, (top,) = begun
    # Depth first, so that only the folders from the top to here are open: (path, bytes before it, what is below).
    way = [(top, 0, _read(top, tally))]
    while way:
        folder, before, below = way[-1]
        if below:
            child = below.pop()
            # A folder's own blocks were counted with its parent's entries.
            before = tally.allocated - _own_bytes(child)
            way.append((child, before, _read(child, tally)))
            continue
        way.pop()
        if way:
            folders.offer(tally.allocated - before, folder)
    return Largest(files.items(), folders.items(), tally.usage())


def allocated_bytes(path: str | os.PathLike[str]) -> int:
    """Blocks that a file or folder takes, bytes; 0 when it does not exist."""
    return tree(Path(path)).allocated_bytes


def _begin(path: str | os.PathLike[str], top: _Top | None = None) -> Usage | tuple[_Tally, list[str]]:
    """A tally and the first folder to read; the answer itself where there is none."""
    name = os.fspath(path)
    try:
        stat = os.lstat(name)
    except OSError:
        return Usage(0, 0, 0, 0.0, (name,))
    allocated = stat.st_blocks * _BLOCK
    if (stat.st_mode & _KIND) != _FOLDER:
        return Usage(allocated, stat.st_size, 1, stat.st_mtime, ())
    return _Tally(stat.st_dev, {}, top, allocated, newest=stat.st_mtime), [name]


def _own_bytes(folder: str) -> int:
    try:
        return os.lstat(folder).st_blocks * _BLOCK
    except OSError:
        return 0


def _read(folder: str, tally: _Tally) -> list[str]:
    """Count what is directly in a folder; returns the folders in it. All that is slow is here."""
    try:
        # By descriptor: the kernel looks up one name for each file, not a path; and a link is not followed.
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        tally.unread.append(folder)
        return []
    allocated = apparent = files = 0
    newest, device, linked, top = tally.newest, tally.device, tally.linked, tally.top
    prefix = folder if folder.endswith("/") else folder + "/"
    folders: list[str] = []
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                try:
                    stat = entry.stat(follow_symlinks=False)
                except OSError:
                    tally.unread.append(prefix + entry.name)
                    continue
                if stat.st_dev != device:
                    continue
                if (stat.st_mode & _KIND) == _FOLDER:
                    folders.append(prefix + entry.name)
                else:
                    if stat.st_nlink > 1:
                        # setdefault is one step for all threads: two of them do not both count a file.
                        mark = object()
                        if linked.setdefault((device, stat.st_ino), mark) is not mark:
                            continue
                    files += 1
                    apparent += stat.st_size
                    if top is not None and stat.st_blocks * _BLOCK > top.bar:
                        top.offer(stat.st_blocks * _BLOCK, prefix + entry.name)
                allocated += stat.st_blocks
                if stat.st_mtime > newest:
                    newest = stat.st_mtime
    except OSError:
        tally.unread.append(folder)
    finally:
        os.close(fd)
    tally.allocated += allocated * _BLOCK
    tally.apparent += apparent
    tally.files += files
    tally.newest = newest
    return folders


def _read_together(stack: list[str], tally: _Tally, threads: int) -> None:
    """Empty the stack with several threads; each counts for itself, the sums are added at the end."""
    turn = threading.Condition()
    busy = 0
    died: list[BaseException] = []

    def work(own: _Tally, read: Callable[[str, _Tally], list[str]] = _read) -> None:
        nonlocal busy
        folders: list[str] = []
        try:
            while True:
                with turn:
                    while not stack and busy and not died:
                        turn.wait()
                    if died or not stack:
                        return
                    folder = stack.pop()
                    busy += 1
                folders = read(folder, own)
                with turn:
                    busy -= 1
                    stack.extend(folders)
                    turn.notify_all()
        except BaseException as error:
            with turn:
                died.append(error)
                turn.notify_all()

    tallies = [_Tally(tally.device, tally.linked) for _ in range(threads)]
    workers = [
        threading.Thread(target=work, args=(own,), name=f"outlast-usage-{number}", daemon=True)
        for number, own in enumerate(tallies)
    ]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    except BaseException as error:  # an interrupt: the threads end with their folder
        with turn:
            died.append(error)
            turn.notify_all()
        raise
    if died:
        raise died[0]
    for own in tallies:
        tally.add(own)
