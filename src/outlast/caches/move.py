"""Which cache moves where: what a command line means, what is never moved, and what a move will take. Reads only."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from outlast.caches.catalogue import Cache, Place, Sweep
from outlast.caches.copying import Log
from outlast.caches.trees import Tree, scan
from outlast.errors import BadInput
from outlast.host import OpenFiles, Room, is_locked, lease, leases_are_safe, room

_MARGIN_PARTS, _MARGIN_BYTES = 100, 256 * 1024


@dataclass(frozen=True, slots=True)
class Move:
    """Which cache goes where."""

    source: Path
    """Where it is: absolute, no link in the folders above it."""
    target: Path
    """Where it is to be: absolute, no link in the folders above it."""
    how: str
    """``link``: a symbolic link stays at the source; ``env``: a variable says where it is."""
    cache: Cache | None = None
    """Its row of the catalogue; None for a folder that is in no row."""

    @property
    def staging(self) -> Path:
        """Folder beside the target that holds the copy and the state."""
        return self.target.with_name(f".{self.target.name}.outlast-migrate")

    @property
    def copy(self) -> Path:
        """The copy until it is whole."""
        return self.staging / "tree"

    @property
    def log(self) -> Path:
        """What of the copy has been verified."""
        return self.staging / "verified.jsonl"

    @property
    def state(self) -> Path:
        """Which move this is, and whether deleting has begun."""
        return self.staging / "state.json"

    @property
    def backup(self) -> Path:
        """What the source is renamed to at the switch."""
        return self.source.with_name(f".{self.source.name}.outlast-moved")

    @property
    def is_switched(self) -> bool:
        """True when the source is no longer a folder of its own."""
        return is_folder(self.backup) or not is_folder(self.source)

    @property
    def export(self) -> str | None:
        """The assignment that makes the owner look at the target; None when no variable does."""
        if self.cache is None or not self.cache.variables:
            return None
        value = os.fspath(self.target)
        if self.cache.suffix and not value.endswith(self.cache.suffix):
            return None
        return f"{self.cache.variables[0]}={value.removesuffix(self.cache.suffix)}"


@dataclass(frozen=True, slots=True)
class MovePlan:
    """What a move will do; shown before it is done."""

    move: Move
    """From where to where."""
    bytes: int
    """Blocks that the source takes, and that the target will."""
    files: int
    """Files, a hard link once."""
    verified_bytes: int
    """Of these already copied and verified by a run before."""
    shared_bytes: int
    """Of files that have names outside the cache too: these are copied, but deleting them frees nothing."""
    room: Room
    """What can be written at the target."""
    is_same_volume: bool
    """True when source and target share a volume: nothing would be freed."""
    problems: tuple[str, ...]
    """Why it cannot be done now, but for want of room; empty when it can."""
    is_there: bool = False
    """True when the move was made before: nothing is to be done."""

    @property
    def need_bytes(self) -> int:
        """Room that the copy still needs, with a margin for the target's own bookkeeping."""
        left = max(0, self.bytes - self.verified_bytes)
        return left + left // _MARGIN_PARTS + _MARGIN_BYTES if left else 0

    @property
    def fits(self) -> bool | None:
        """Whether the copy fits at the target; None when that is not known."""
        return None if self.room.free_bytes is None else not self.room.lacks(self.need_bytes)


def find(name: str, target: str, how: str, places: Mapping[str, Place]) -> Move:
    """The move that the words of a command line mean.

    Args:
        name: id of a cache, or a path.
        target: where it is to be.
        how: ``link`` or ``env``.
        places: where each cache is.

    Raises:
        BadInput: when a word means nothing.
    """
    place = places.get(name)
    if place is None and "/" not in name and not os.path.lexists(name):
        raise BadInput(f"{name!r} is neither the id of a cache nor a folder", hint=f"one of: {', '.join(places)}")
    source = _resolved(place.path if place else _typed(name))
    if place is None:
        place = next((p for p in places.values() if _resolved(p.path) == source), None)
    move = Move(source, _resolved(_typed(target)), how, place.cache if place else None)
    if how == "env" and move.export is None:
        hint = "use a symbolic link, which is the default"
        if move.cache and move.cache.suffix:
            hint = f"end the target with {move.cache.suffix}, or {hint}"
        raise BadInput(f"no variable makes a tool look for {source} in {move.target}", hint=hint)
    return move


def _typed(text: str) -> Path:
    try:
        path = Path(text).expanduser()
        os.lstat(path)
    except FileNotFoundError:
        return path
    except (OSError, RuntimeError) as error:
        raise BadInput(f"{text} is no folder: {error}", hint="name a folder by its path") from None
    return path


def is_folder(path: Path) -> bool:
    """True for a folder that is no link to one."""
    return os.path.isdir(path) and not path.is_symlink()


def _resolved(path: Path) -> Path:
    """Absolute, with the links of the folders above it resolved: a link at the path itself is what we ask about."""
    absolute = Path(os.path.normpath(Path.cwd() / path))
    return Path(os.path.realpath(absolute.parent)) / absolute.name if absolute.name else absolute


def refusal(move: Move, *, home: Path, is_mount: Callable[[Path], bool] = os.path.ismount) -> str | None:
    """Why a folder is never moved, or not to there; None when it may be.

    Args:
        move: from where to where.
        home: the user's home folder.
        is_mount: whether a path is the root of a mount.
    """
    source, target = move.source, move.target
    if move.cache and move.cache.sweep is Sweep.NEVER and move.cache.role == "none":
        return f"{move.cache.id} is no cache: {move.cache.holds}"
    if source == Path("/") or source.parent == Path("/"):
        return f"{source} is a folder of the system"
    if home == source or source in home.parents:
        return f"{source} holds your home folder"
    if is_mount(source):
        return f"{source} is a volume of its own"
    if (source / ".git").exists() or ".git" in source.parts:
        return f"{source} is a git work tree"
    if target == source:
        return "source and target are the same folder"
    if source in target.parents:
        return f"the target {target} lies in what is to be moved"
    if target in source.parents:
        return f"the source lies in the target {target}"
    if is_mount(target) or target == Path("/"):
        return f"{target} is a volume; name a folder below it, such as {target / source.name}"
    return None


Look = Callable[[Path, Cache | None], tuple[str, ...]]
"""Finds who uses a tree; reasons for people."""


def users(path: Path, cache: Cache | None = None) -> tuple[str, ...]:
    """Why a tree counts as in use: open files, held locks, and files of which the kernel does not say."""
    if owner := OpenFiles.now().user_of(path):
        return (f"{owner} has something in {path} open",)
    for lock in (found for pattern in (cache.locks if cache else ()) for found in path.glob(pattern)):
        if is_locked(lock):
            return (f"the lock {lock} is held",)
    with leases_are_safe():
        for entry in scan(path).entries.values():
            if entry.kind == "file" and (answer := lease(path / entry.path)) is not True:
                what = "is open or mapped" if answer is False else "may be in use: the kernel does not say"
                return (f"{path / entry.path} {what}",)
    return ()


def plan(move: Move, *, look: Look = users) -> MovePlan:
    """Look at source and target. Changes nothing.

    Args:
        move: from where to where.
        look: finds who uses the source.

    Raises:
        BadInput: when this is never moved, or not to there.
    """
    if reason := refusal(move, home=Path(os.environ.get("HOME") or "/").resolve()):
        raise BadInput(reason, hint="name one cache, and a new folder on another volume for it")
    state = state_of(move)
    here = room(move.target)
    if _is_there(move, state):
        return MovePlan(move, 0, 0, 0, 0, here, False, (), is_there=True)
    _refuse(move, state)
    if state and move.is_switched:
        rest = scan(move.backup) if is_folder(move.backup) else Tree({}, ())
        size = rest.allocated_bytes()
        return MovePlan(move, size, len(rest.leaders()), size, 0, here, False, ())
    tree = scan(move.source)
    files = [tree.entries[path] for path in tree.leaders().values()]
    stamps = Log(move.log).stamps if state else {}
    names = Counter(entry.inode for entry in tree.entries.values() if entry.kind == "file")
    return MovePlan(
        move,
        tree.allocated_bytes(),
        len(files),
        sum(file.allocated_bytes for file in files if stamps.get(file.path) == file.stamp),
        sum(file.allocated_bytes for file in files if file.links > names[file.inode]),
        here,
        here.device == os.lstat(move.source).st_dev,
        tree.odd[:3] + look(move.source, move.cache),
    )


def state_of(move: Move) -> dict[str, str] | None:
    """What the state file says; None when no move to there has begun."""
    with suppress(OSError, ValueError):
        found = json.loads(move.state.read_bytes())
        return found if isinstance(found, dict) else None
    return None


def _is_there(move: Move, state: Mapping[str, str] | None) -> bool:
    if state or not os.path.isdir(move.target) or is_folder(move.backup):
        return False
    if move.how == "env":
        return not os.path.lexists(move.source)
    return move.source.is_symlink() and os.path.realpath(move.source) == os.path.realpath(move.target)


def _refuse(move: Move, state: Mapping[str, str] | None) -> None:
    source, target = os.fspath(move.source), move.target
    if state:
        if (state.get("source"), state.get("how")) != (source, move.how):
            raise BadInput(
                f"a move of {state.get('source')} by {state.get('how')} to {target} has begun",
                hint=f"finish that one first, or, if you do not want it, delete {move.staging}",
            )
        return
    if move.source.is_symlink():
        raise BadInput(
            f"{source} is a link already: it is at {os.path.realpath(source)}",
            hint=f"to move it on: outlast migrate {os.path.realpath(source)} {target}",
        )
    if not os.path.isdir(move.source):
        raise BadInput(f"there is no folder {source}", hint="nothing to move; set the variable, and it is made there")
    if os.path.lexists(target) and not (is_folder(target) and not os.listdir(target)):
        raise BadInput(f"{target} is there already", hint=f"name a new folder, such as {target / move.source.name}")
    if is_folder(move.backup):
        raise BadInput(
            f"{move.backup} is left from another move of {source}", hint="finish that one with the target that it had"
        )
