"""A tree as it is on disk, and what a copy of it still lacks. `scan` reads; the rest is pure."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from outlast import durable


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a tree."""

    path: str
    """Relative to the tree; empty for the tree itself."""
    kind: str
    """``file``, ``folder`` or ``link``."""
    mode: int
    """Permission bits."""
    owner: tuple[int, int]
    """User and group id."""
    bytes: int
    """Length of a file; 0 otherwise."""
    allocated_bytes: int
    """Blocks that it takes."""
    inode: int
    """Equal for the hard links of one file."""
    links: int
    """Names that the file has, in the tree and out of it."""
    modified_ns: int
    """Modification time, nanoseconds since the epoch."""
    changed_ns: int
    """Change time of the inode, nanoseconds since the epoch; nobody can set it."""
    text: str = ""
    """Where a link points."""

    @property
    def stamp(self) -> str:
        """What changes when anybody writes to the file or replaces it."""
        return f"{self.inode}:{self.bytes}:{self.modified_ns}:{self.changed_ns}"


@dataclass(frozen=True, slots=True)
class Tree:
    """What `scan` found."""

    entries: Mapping[str, Entry]
    """By path; a folder comes before what is in it."""
    odd: tuple[str, ...]
    """What cannot be copied, and why."""

    def leaders(self) -> dict[int, str]:
        """For each file's inode the name that is copied; its other names become hard links of that one."""
        found: dict[int, str] = {}
        for entry in self.entries.values():
            if entry.kind == "file":
                found.setdefault(entry.inode, entry.path)
        return found

    def allocated_bytes(self) -> int:
        """Blocks of all of it, each file once."""
        files = {entry.inode: entry.allocated_bytes for entry in self.entries.values()}
        return sum(files.values())


def scan(root: Path) -> Tree:
    """Everything below a folder, in a fixed order, without following a link or leaving its mount."""
    entries: dict[str, Entry] = {}
    odd: list[str] = []
    stack = [""]
    mounts = durable.mounts_below(root)
    while stack:
        path = stack.pop()
        name = os.path.join(root, path) if path else os.fspath(root)
        try:
            info = os.lstat(name)
            kind = _kind(info.st_mode)
            if path and name in mounts:
                odd.append(f"{name} is another mount")
            elif kind is None:
                odd.append(f"{name} is a socket, a pipe or a device")
            else:
                entries[path] = entry_of(path, kind, info, os.readlink(name) if kind == "link" else "")  # noqa: PTH115
                children = os.listdir(name) if kind == "folder" else []
                stack += [os.path.join(path, child) for child in sorted(children, reverse=True)]
        except OSError as error:
            odd.append(f"{name}: {durable.why_not(error)}")
    return Tree(entries, tuple(odd))


def _kind(mode: int) -> str | None:
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}
    return kinds.get(stat.S_IFMT(mode))


def entry_of(path: str, kind: str, info: os.stat_result, text: str = "") -> Entry:
    """An entry from what the kernel says of it."""
    return Entry(
        path, kind, stat.S_IMODE(info.st_mode), (info.st_uid, info.st_gid), info.st_size if kind == "file" else 0,
        info.st_blocks * 512, info.st_ino, info.st_nlink, info.st_mtime_ns, info.st_ctime_ns, text,
    )  # fmt: skip


def moved_link(text: str, path: str, source: str) -> str:
    """Where a link has to point once its tree is elsewhere.

    Args:
        text: where it points.
        path: the link's own path, relative to the tree.
        source: absolute path of the tree that it was in.

    Returns:
        The same text for a relative link that stays in the tree and an absolute one that leads out of it; a relative
        text for an absolute link into the tree; an absolute one for a relative link that leads out.
    """
    folder = os.path.dirname(os.path.join(source, path))
    # Not normpath of the text alone: a link may name a folder above itself and come back in.
    goal = os.path.normpath(os.path.join(folder, text))
    is_inside = goal == source or goal.startswith(source.rstrip("/") + "/")
    if text.startswith("/"):
        return os.path.relpath(goal, folder) if is_inside else text
    return text if is_inside and not _goes_out(text, path) else os.path.relpath(goal, folder) if is_inside else goal


def same_time(modified_ns: int, entry: Entry) -> bool:
    """Some network file systems keep whole or even seconds only."""
    return abs(modified_ns - entry.modified_ns) <= 2 * 10**9


def _goes_out(text: str, path: str) -> bool:
    """True when a relative link climbs above the tree on its way."""
    depth = path.count("/")
    for part in text.split("/"):
        depth += -1 if part == ".." else 0 if part in ("", ".") else 1
        if depth < 0:
            return True
    return False


def differences(source: Tree, copy: Tree, home: str, verified: Mapping[str, str]) -> dict[str, str]:
    """What is not yet, or no longer, the same in a copy.

    Args:
        source: the tree.
        copy: its copy.
        home: absolute path of the source, from which its links are to be understood.
        verified: for each leader the stamp of the source that was verified.

    Returns:
        For each path in either what is wrong with it; empty when the copy is whole.
    """
    wrong = dict.fromkeys(copy.entries.keys() - source.entries.keys(), "is not in the source")
    leaders, copied = source.leaders(), copy.leaders()
    for path, entry in source.entries.items():
        other = copy.entries.get(path)
        if other is None or other.kind != entry.kind:
            wrong[path] = "is missing"
        elif entry.kind == "link":
            if other.text != moved_link(entry.text, path, home):
                wrong[path] = "points elsewhere"
        elif (other.mode, other.bytes) != (entry.mode, entry.bytes) or not same_time(other.modified_ns, entry):
            wrong[path] = "has another length, mode or time"
        elif entry.kind == "file":
            leader = leaders[entry.inode]
            if copied[other.inode] != leader:
                wrong[path] = "is another hard link"
            elif verified.get(leader) != source.entries[leader].stamp:
                wrong[path] = "is not verified"
    return wrong
