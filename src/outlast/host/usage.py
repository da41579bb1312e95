"""What a tree really takes: allocated blocks, a hard link once, no other mount."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Usage:
    """What was found below a path."""

    allocated_bytes: int
    """Blocks that the file system gave (st_blocks), bytes; a hard link counts once."""
    apparent_bytes: int
    """Sum of file lengths, bytes."""
    files: int
    """Regular files, each hard-linked inode once."""
    newest: float
    """Latest modification time seen below the path, seconds since the epoch; 0 when empty."""
    unread: tuple[str, ...]
    """Folders and files that could not be read: the figures are a lower bound when any are here."""


def tree(path: str | os.PathLike[str]) -> Usage:
    """Walk a file or folder without following links and without leaving its mount."""
    allocated = apparent = files = 0
    newest = 0.0
    unread: list[str] = []
    seen: set[tuple[int, int]] = set()
    try:
        top = os.lstat(path)
    except OSError:
        return Usage(0, 0, 0, 0.0, (os.fspath(path),))
    stack = [(os.fspath(path), top)]
    while stack:
        name, stat = stack.pop()
        if stat.st_dev != top.st_dev:
            continue
        newest = max(newest, stat.st_mtime)
        is_folder = (stat.st_mode & 0o170000) == 0o040000
        if not is_folder:
            if stat.st_nlink > 1 and (stat.st_dev, stat.st_ino) in seen:
                continue
            seen.add((stat.st_dev, stat.st_ino))
            files += 1
            apparent += stat.st_size
        allocated += stat.st_blocks * 512
        if is_folder:
            stack.extend(_children(name, unread))
    return Usage(allocated, apparent, files, newest, tuple(unread))


def _children(folder: str, unread: list[str]) -> list[tuple[str, os.stat_result]]:
    found: list[tuple[str, os.stat_result]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    found.append((entry.path, entry.stat(follow_symlinks=False)))
                except OSError:
                    unread.append(entry.path)
    except OSError:
        unread.append(folder)
    return found


def allocated_bytes(path: str | os.PathLike[str]) -> int:
    """Blocks that a file or folder takes, bytes; 0 when it does not exist."""
    return tree(Path(path)).allocated_bytes
