"""What to free, in which order, and how much that really frees. Pure: sees no disk.

Things are given up in the order of what it costs to make them again, and of equals the one that was used longest ago.
A hard-linked file frees its blocks only when its last name goes, so bytes are counted over the whole plan.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from outlast.caches.catalogue import Cost

KINDS = ("debris", "partial", "orphan", "shared", "map", "entry", "revision", "broken", "repo", "build", "named")
"""Kinds of things, in the order in which they go at the same cost."""
_WHOLES = frozenset({"repo", "broken", "build", "named"})
"""Kinds that others can be a part of."""


@dataclass(frozen=True, slots=True)
class Linked:
    """A file with more than one name."""

    inode: tuple[int, int]
    """Device and number."""
    links: int
    """Names that it has in all."""
    here: int
    """Names that are in this thing."""
    bytes: int
    """Blocks that it takes, bytes."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A payload of Hugging Face's shared store that things refer to."""

    path: Path
    """Where it is."""
    bytes: int
    """Blocks that it takes, bytes."""
    references: frozenset[Path]
    """All links that refer to it; it may go with the last of them."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that can be freed as a whole."""

    cache: str
    """Id of its row in the catalogue."""
    kind: str
    """One of `KINDS`."""
    name: str
    """For people."""
    root: Path
    """The cache's folder, real path: everything in ``paths`` lies below it."""
    paths: tuple[Path, ...]
    """What is removed, in this order."""
    cost: Cost
    """What it costs to make again."""
    single_bytes: int
    """Blocks of folders and of files with one name, bytes."""
    linked: tuple[Linked, ...] = ()
    """Files with several names."""
    stored: tuple[Stored, ...] = ()
    """Payloads of the shared store that its links refer to."""
    files: int = 0
    """Files in it."""
    newest: float = 0.0
    """Latest change in it, of what is said of its files too, seconds since the epoch."""
    written: float = 0.0
    """Latest write in it, seconds since the epoch."""
    in_use: str | None = None
    """Why it must stay now; what cannot be known counts as in use."""
    note: str = ""
    """What one should know before it goes."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user wants freed."""

    free_bytes: int | None = None
    """So much, bytes; None takes all that is allowed."""
    dearest: Cost = Cost.MINUTES
    """The most that a thing may cost to make again."""
    only: frozenset[str] = frozenset()
    """Ids of caches, or kinds; empty for all."""
    keep: tuple[str, ...] = ()
    """Patterns of names and paths that stay."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What goes and what stays."""

    items: tuple[Item, ...]
    """In the order in which they go."""
    left: tuple[tuple[Item, str], ...]
    """What stays, and why."""
    frees_bytes: int
    """What the plan frees, bytes."""
    short_bytes: int = 0
    """What is missing to what was wished, bytes."""


@dataclass(slots=True)
class _Count:
    """Bytes that a growing set of things frees."""

    single: int = 0
    inodes: dict[tuple[int, int], list[int]] = field(default_factory=dict)
    stored: dict[Path, Stored] = field(default_factory=dict)
    paths: set[Path] = field(default_factory=set)

    def add(self, item: Item) -> None:
        self.single += item.single_bytes
        self.paths.update(item.paths)
        for linked in item.linked:
            seen = self.inodes.setdefault(linked.inode, [0, linked.links, linked.bytes])
            seen[0] += linked.here
        self.stored.update({stored.path: stored for stored in item.stored})

    @property
    def bytes(self) -> int:
        linked = sum(size for here, links, size in self.inodes.values() if here >= links)
        return self.single + linked + sum(s.bytes for s in self.stored.values() if self._is_unreferenced(s))

    def _is_unreferenced(self, stored: Stored) -> bool:
        return all(self.paths.intersection((reference, *reference.parents)) for reference in stored.references)


def frees_bytes(items: Iterable[Item]) -> int:
    """What removing all of these together frees, bytes."""
    return _counted(list(items)).bytes


def _counted(items: Sequence[Item]) -> _Count:
    """The bytes of some things; what is a part of another of them is not counted twice."""
    paths = {path for item in items for path in item.paths}
    count = _Count()
    for item in items:
        if not _is_part(item, paths):
            count.add(item)
    return count


def _is_part(item: Item, paths: set[Path]) -> bool:
    """True when all of it lies below one of the paths."""
    return bool(item.paths) and all(paths.intersection(path.parents) for path in item.paths)


def decide(items: Sequence[Item], wish: Wish) -> Plan:
    """The least that fulfils a wish, the cheapest to make again first.

    Args:
        items: all that was found.
        wish: how much, and what is allowed.
    """
    items = list({item.paths: item for item in sorted(items, key=_order, reverse=True)}.values())
    kept = {path for item in items if _is_kept(item, wish) for path in item.paths}
    around_kept = {parent for path in kept for parent in path.parents}
    taken: list[Item] = []
    left: list[tuple[Item, str]] = []
    count = _Count()
    for item in sorted(items, key=_order):
        if reason := _stays(item, wish):
            left.append((item, reason))
        elif kept.intersection(item.paths) or _is_part(item, kept) or around_kept.intersection(item.paths):
            left.append((item, "you keep it"))
        elif wish.free_bytes is not None and count.bytes >= wish.free_bytes:
            left.append((item, "not needed"))
        elif item.kind in _WHOLES and (parts := [one for one in taken if _is_part(one, set(item.paths))]):
            # A repository after one of its revisions: the whole stands for the part.
            taken = [one for one in taken if one not in parts] + [item]
            count = _counted(taken)
        else:
            taken.append(item)
            count.add(item)
    short = max(0, (wish.free_bytes or 0) - count.bytes)
    return Plan(tuple(taken), tuple(left), count.bytes, short)


def _order(item: Item) -> tuple[int, int, float, str]:
    return item.cost.value, KINDS.index(item.kind), item.newest, item.name


def _stays(item: Item, wish: Wish) -> str | None:
    if item.cost is Cost.NEVER and item.kind != "named":
        return "it cannot be made again"
    if item.in_use:
        return item.in_use
    if item.kind == "named":
        return None
    if wish.only and not wish.only & {item.cache, item.kind}:
        return "not asked for"
    if item.cost.value > wish.dearest.value:
        return f"to make it again costs a {item.cost.name.lower()}" if item.cost is Cost.DOWNLOAD else "costs too much"
    return None


def _is_kept(item: Item, wish: Wish) -> bool:
    return any(keeps(pattern, item) for pattern in wish.keep)


def keeps(pattern: str, item: Item) -> bool:
    """True when a pattern is a thing's name or path, or names something in it."""
    pattern = pattern.rstrip("/") or "/"
    if any(fnmatch.fnmatchcase(text, pattern) for text in (item.name, *map(str, item.paths))):
        return True
    # What comes before the first wildcard may lie in the thing: better to keep too much.
    fixed = Path(re.split(r"[*?\[]", pattern)[0])
    return fixed.is_absolute() and any(path in (fixed, *fixed.parents) for path in item.paths)
