"""What is in a folder of checkpoints: list, latest valid, verify. Reads only.

Outlast's own things are in ``ROOT/.outlast``: ``stage`` (saves under way), ``trash`` (deletions under way),
``quarantine`` (what no tool may resume from), ``seals`` (of checkpoints that are one file), ``pins``, ``ballast``,
two locks, and one lock more for each training that saves here now.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from outlast import durable
from outlast.checkpoints import _alive, layouts, retention
from outlast.checkpoints import seal as seals
from outlast.errors import BadInput, NoWayBack, SealError
from outlast.host import Budget, Room, allocated_bytes, room
from outlast.journal import FOLDER

_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A sealed checkpoint as it is now. Its content has not been read; `Vault.check` does that."""

    name: str
    """Folder or file name in the vault."""
    path: Path
    """Where it is."""
    seal: seals.Seal
    """What was sealed."""
    kind: str | None
    """Richest kind of which all files are there with the right length; None when damaged."""
    bytes: int
    """What its files take now, whole blocks."""
    age: tuple[float, int]
    """Order of making: the newest training first, then the step as a number."""
    is_pinned: bool
    """True when the user pinned it."""

    @property
    def step(self) -> int:
        """Optimizer steps done at the save."""
        return self.seal.step


@dataclass(frozen=True, slots=True)
class Choice:
    """What resume takes, and what it passed over."""

    checkpoint: Checkpoint
    """The one to resume from; verified."""
    kind: str
    """What it verifies as."""
    passed_over: tuple[tuple[str, str], ...]
    """Newer ones that do not verify: name and reason."""


class Shelf:
    """A folder of checkpoints, as it is.

    Args:
        root: the folder; need not exist.
        budgets: declared limits; None takes those of the environment.
        is_protected: reason why a checkpoint must not be dropped, by name; for what a framework will load later.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        budgets: Sequence[Budget] | None = None,
        is_protected: Callable[[str], str | None] = lambda name: None,
    ) -> None:
        self.root = Path(root).absolute()
        self.own = own_folder(self.root)
        self.budgets = budgets
        self.is_protected = is_protected
        self._checked: dict[Path, tuple[tuple[int, ...], seals.Entry]] = {}
        self._seals: dict[Path, tuple[tuple[int, ...], seals.Seal]] = {}

    def checkpoints(self) -> list[Checkpoint]:
        """Sealed checkpoints, oldest first: by training, then by step as a number."""
        found = [checkpoint for name in self._sealed_names() if (checkpoint := self.open(name))]
        newest: dict[str, float] = {}
        for checkpoint in found:
            lineage = checkpoint.seal.lineage
            newest[lineage] = max(newest.get(lineage, 0.0), checkpoint.seal.created)
        aged = [replace(c, age=(newest[c.seal.lineage], c.step)) for c in found]
        return sorted(aged, key=lambda checkpoint: (checkpoint.age, checkpoint.name))

    def _sealed_names(self) -> Iterator[str]:
        with suppress(FileNotFoundError, NotADirectoryError):
            for entry in os.scandir(self.root):
                is_folder = not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
                if is_folder and os.path.lexists(f"{entry.path}/{seals.NAME}"):
                    yield entry.name
        with suppress(FileNotFoundError):
            for entry in os.scandir(self.own / "seals"):
                name = entry.name.removesuffix(".json")
                if not name.startswith(".") and name != entry.name and os.path.lexists(self.root / name):
                    yield name

    def open(self, name: str) -> Checkpoint | None:
        """A sealed checkpoint by name; None when there is none. Its age is then that of its own seal."""
        path = self.root / name
        try:
            seal = self._read(path)
        except (SealError, OSError):
            return None
        kind = seals.kind_by_presence(path, seal)
        return Checkpoint(
            name,
            path,
            seal,
            kind,
            _blocks(seal, seal.kinds[kind]) if kind else allocated_bytes(path),
            (seal.created, seal.step),
            (self.own / "pins" / name).exists(),
        )

    def _read(self, path: Path) -> seals.Seal:
        stamp = stamp_of(seals.path_of(path))
        known = self._seals.get(path)
        if known is None or known[0] != stamp:
            known = self._seals[path] = (stamp, seals.read(path))
        return known[1]

    def get(self, name: str) -> Checkpoint:
        """One sealed checkpoint by name; its age is then that of its own seal.

        Raises:
            BadInput: when there is none of that name.
        """
        if Path(name).name == name and (checkpoint := self.open(name)):
            return checkpoint
        raise BadInput(f"no sealed checkpoint {name!r} in {self.root}", hint="outlast checkpoints list")

    def check(self, checkpoint: Checkpoint) -> seals.Check:
        """Read a checkpoint's files and compare them with its seal; what has not changed since is not read again."""
        known = {}
        stamps = {}
        for name in checkpoint.seal.files:
            path = checkpoint.path / name if checkpoint.path.is_dir() else checkpoint.path
            with suppress(OSError):
                stamps[name] = (path, stamp_of(path))
                stamp, entry = self._checked.get(path, ((), None))
                if entry and stamp == stamps[name][1]:
                    known[name] = entry
        result = seals.check(checkpoint.path, checkpoint.seal, known)
        if result.is_whole and result.kind:
            for name in checkpoint.seal.kinds[result.kind]:
                if name in stamps:
                    self._checked[stamps[name][0]] = (stamps[name][1], checkpoint.seal.files[name])
        return result

    def choose(self, *, keep_exact: bool = False) -> Choice | None:
        """The checkpoint to resume from: the newest that verifies; None when there is nothing sealed.

        A light one counts as newer than an older full one unless ``keep_exact``; bare weights come last of all.

        Raises:
            NoWayBack: when there are sealed checkpoints and not one of them verifies, not even in part.
        """
        found = self.checkpoints()
        passed: list[tuple[str, str]] = []
        in_part: list[tuple[Checkpoint, str]] = []
        whole: list[tuple[Checkpoint, str]] = []
        for checkpoint in reversed(found):
            result = self.check(checkpoint)
            if result.is_whole and result.kind:
                whole.append((checkpoint, result.kind))
                if result.kind == "full" or (result.kind != "weights" and not keep_exact):
                    break
            else:
                passed.append((checkpoint.name, "; ".join(result.problems) or "nothing in it is whole"))
                if result.kind:
                    in_part.append((checkpoint, result.kind))
        for checkpoint, kind in sorted(whole, key=lambda pair: _rank(pair[1], keep_exact)) + in_part:
            return Choice(checkpoint, kind, tuple(passed))
        if found:
            raise NoWayBack(
                f"none of {len(found)} sealed checkpoints in {self.root} verifies: "
                + "; ".join(f"{name}: {reason}" for name, reason in passed[:3]),
                hint="start afresh in another folder, or put a good copy back; nothing here was deleted",
            )
        return None

    def room(self) -> Room:
        """What can be written in the vault."""
        return room(self.root, self.budgets)

    def verdicts(
        self, keep: retention.Keep, *, keep_exact: bool = False, anothers: bool = False
    ) -> Sequence[retention.Verdict]:
        """What retention says of each whole checkpoint.

        Args:
            keep: the rules.
            keep_exact: the newest full one stays in any case.
            anothers: also judge those that another process is saving here now, which are its own to judge.
        """
        whole = [checkpoint for checkpoint in self.checkpoints() if checkpoint.kind]
        if not anothers:
            alive = self.alive_elsewhere(checkpoint.seal.lineage for checkpoint in whole)
            whole = [checkpoint for checkpoint in whole if checkpoint.seal.lineage not in alive]
        exact = next((c.name for c in reversed(whole) if c.kind == "full"), None) if keep_exact else None
        return retention.decide([self._candidate(c, is_way_back=c.name == exact) for c in whole], keep)

    def alive_elsewhere(self, lineages: Iterable[str]) -> set[str]:
        """Those of the trainings that another process is saving here now."""
        return {lineage for lineage in set(lineages) if _alive.is_alive(self.own, lineage)}

    def _candidate(self, checkpoint: Checkpoint, *, is_way_back: bool) -> retention.Candidate:
        protected = self.is_protected(checkpoint.name)
        holds = (["pinned"] if checkpoint.is_pinned else []) + ([protected] if protected else [])
        holds += ["the exact way back"] if is_way_back else []
        return retention.Candidate(
            checkpoint.name, checkpoint.step, checkpoint.age, checkpoint.seal.metrics, tuple(holds)
        )

    def unsealed(self) -> dict[str, layouts.Findings]:
        """What a tool would take for a checkpoint and that has no readable seal, with what is in it."""
        with suppress(OSError), os.scandir(self.root) as entries:
            names = [entry.name for entry in entries if is_offered(entry)]
            sealed = {checkpoint.name for checkpoint in self.checkpoints()}
            return {name: layouts.inspect(self.root / name) for name in sorted(set(names) - sealed)}
        return {}

    def seal_for(
        self,
        path: Path,
        step: int,
        layout: str,
        without: Mapping[str, Sequence[str]],
        *,
        known: Mapping[str, seals.Entry] | None = None,
        **more: Any,
    ) -> seals.Seal:
        """A seal over what is in a folder now; the files are fsynced while they are read.

        Args:
            path: the checkpoint.
            step: optimizer steps done.
            layout: who laid it out.
            without: for each kind, the files that it does *not* need.
            known: entries already measured.
            more: further fields of `seal.Seal`.
        """
        present = list(seals.files_in(path).values())
        with durable.syncing(present):
            files = seals.measure(path, known)
        kinds = {kind: tuple(n for n in files if n not in absent) for kind, absent in without.items()}
        created = more.pop("created", None) or max([os.stat(file).st_mtime for file in present], default=time.time())
        return seals.Seal(step, layout, files, kinds, created=created, **more)

    def is_unchanged(self, checkpoint: Checkpoint) -> bool:
        """True when exactly the sealed files are there, as this process last wrote or read them."""
        present = seals.files_in(checkpoint.path)
        return set(present) == set(checkpoint.seal.files) and all(
            self._checked.get(path, ((), None)) == (stamp_of(path), checkpoint.seal.files[name])
            for name, path in present.items()
        )

    def remember(self, checkpoint: Path, seal: seals.Seal) -> None:
        """Note that this process has just written these files, so that they need not be read to be trusted."""
        for name, entry in seal.files.items():
            path = checkpoint / name if checkpoint.is_dir() else checkpoint
            self._checked[path] = (stamp_of(path), entry)


def _rank(kind: str, keep_exact: bool) -> int:
    if kind == "weights":
        return 2
    return int(keep_exact and kind != "full")


def own_folder(root: Path) -> Path:
    """Where Outlast keeps its own things for a folder of checkpoints: in it, or where `set_beside` made a place."""
    beside = _beside(root)
    return beside if beside.is_dir() else root / FOLDER


def set_beside(root: Path) -> None:
    """Keep Outlast's own things out of a folder of checkpoints, where its framework takes every name for one.

    Done before the first save there; without effect where the folder is another mount than the one above it.
    """
    root.mkdir(parents=True, exist_ok=True)
    if not (root / FOLDER).is_dir() and os.stat(root).st_dev == os.stat(root.parent).st_dev:
        _beside(root).mkdir(parents=True, exist_ok=True)


def _beside(root: Path) -> Path:
    return root.parent / FOLDER / "beside" / root.name


def is_offered(entry: os.DirEntry[str]) -> bool:
    """True when a tool would take this entry of a folder for a checkpoint."""
    if layouts.is_file_candidate(entry.name):
        return entry.is_file(follow_symlinks=False)
    return layouts.is_candidate(entry.name) and entry.is_dir(follow_symlinks=False)


def stamp_of(path: Path) -> tuple[int, ...]:
    """What changes when a file does: device, inode, length, times of content and of the inode."""
    info = os.lstat(path)
    return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


def _blocks(seal: seals.Seal, names: Sequence[str]) -> int:
    return sum(-(-seal.files[name].bytes // _BLOCK) * _BLOCK for name in names) + _BLOCK
