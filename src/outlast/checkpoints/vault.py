"""A folder of sealed checkpoints: list, latest valid, verify, pin, delete, make light, put in order at a start.

The only module that renames or unlinks under a run's folder. Outlast's own things are in ``ROOT/.outlast``:
``stage`` (saves under way), ``trash`` (deletions under way), ``quarantine`` (what no tool may resume from), ``seals``
(of checkpoints that are one file), ``pins``, ``ballast`` and two locks.

What a kill can leave, and what the next start makes of it: a staged save with a seal that verifies is committed, one
without is removed; what is in the trash is removed; a folder without a seal is adopted or set aside.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from outlast import durable
from outlast.checkpoints import layouts, retention
from outlast.checkpoints import seal as seals
from outlast.checkpoints._in_use import users_of
from outlast.errors import BadInput, NoWayBack, SealError
from outlast.host import Budget, Room, allocated_bytes, room
from outlast.journal import FOLDER, Journal, from_environment

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


class Vault:
    """A folder of checkpoints.

    Args:
        root: the folder; made when the first thing is written.
        journal: where everything is written down; None takes the guarded run's, else one under ``root``.
        budgets: declared limits; None takes those of the environment.
        is_protected: reason why a checkpoint must not be dropped, by name; for what a framework will load later.
        look: how users of a path are found; for tests.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        journal: Journal | None = None,
        budgets: Sequence[Budget] | None = None,
        is_protected: Callable[[str], str | None] = lambda name: None,
        look: Callable[[Path], tuple[str, ...]] = users_of,
    ) -> None:
        self.root = Path(root).absolute()
        self.own = own_folder(self.root)
        self.journal = journal or from_environment(self.root if self.own.parent == self.root else self.root.parent)
        self.budgets = budgets
        self.is_protected = is_protected
        self.ballast = durable.Ballast(self.own / "ballast")
        self._look = look
        self._checked: dict[Path, tuple[tuple[int, ...], seals.Entry]] = {}
        self._seals: dict[Path, tuple[tuple[int, ...], seals.Seal]] = {}
        self._stuck: dict[str, str] = {}
        self._told: dict[str, str] = {}

    # Reading

    def checkpoints(self) -> list[Checkpoint]:
        """Sealed checkpoints, oldest first: by training, then by step as a number."""
        found = [checkpoint for name in self._sealed_names() if (checkpoint := self._open(name))]
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

    def _open(self, name: str) -> Checkpoint | None:
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
        if Path(name).name == name and (checkpoint := self._open(name)):
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

    def take(self, *, keep_exact: bool = False, wanted: str | None = None) -> Choice | None:
        """Choose a checkpoint to resume from, set aside newer ones that do not verify, and write it all down.

        Args:
            keep_exact: a full one before a newer light one.
            wanted: name that the user asked for; taken if it verifies, else the newest that does.

        Raises:
            NoWayBack: when nothing here verifies.
        """
        choice = self._wanted(wanted) or self.choose(keep_exact=keep_exact)
        if choice is None:
            return None
        for name, reason in choice.passed_over:
            self.journal.write("passed_over", name=name, reason=reason, root=str(self.root))
            if name != choice.checkpoint.name:
                self.quarantine(self.root / name, reason)
        taken = choice.checkpoint
        if wanted and wanted != taken.name:
            self.journal.write(
                "passed_over", name=wanted, reason="asked for, but it does not verify", root=str(self.root)
            )
        self.journal.write("resumed", name=taken.name, step=taken.step, kind=choice.kind, root=str(self.root))
        return choice

    def _wanted(self, name: str | None) -> Choice | None:
        checkpoint = self._open(name) if name else None
        if checkpoint is None:
            return None
        result = self.check(checkpoint)
        return Choice(checkpoint, result.kind, ()) if result.is_whole and result.kind else None

    def room(self) -> Room:
        """What can be written in the vault."""
        return room(self.root, self.budgets)

    def verdicts(self, keep: retention.Keep, *, keep_exact: bool = False) -> Sequence[retention.Verdict]:
        """What retention says of each whole checkpoint; with ``keep_exact`` the newest full one stays in any case."""
        whole = [checkpoint for checkpoint in self.checkpoints() if checkpoint.kind]
        exact = next((c.name for c in reversed(whole) if c.kind == "full"), None) if keep_exact else None
        return retention.decide([self._candidate(c, is_way_back=c.name == exact) for c in whole], keep)

    def _candidate(self, checkpoint: Checkpoint, *, is_way_back: bool) -> retention.Candidate:
        protected = self.is_protected(checkpoint.name)
        holds = (["pinned"] if checkpoint.is_pinned else []) + ([protected] if protected else [])
        holds += ["the exact way back"] if is_way_back else []
        return retention.Candidate(
            checkpoint.name, checkpoint.step, checkpoint.age, checkpoint.seal.metrics, tuple(holds)
        )

    # Changing

    def prepare(self) -> None:
        """Make Outlast's own folders and the ballast, while there is room for them (mkdir fails on a full ext4)."""
        for name in ("stage", "trash", "quarantine", "seals", "pins"):
            (self.own / name).mkdir(parents=True, exist_ok=True)
        self.refill_ballast()

    def refill_ballast(self) -> None:
        """Make the ballast whole again where there is room for it."""
        here = self.room()
        self.ballast.keep(here.free_bytes, here.total_bytes)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the vault's lock while names in it change; not to be nested."""
        self.own.mkdir(parents=True, exist_ok=True)
        with durable.locked(self.own / "lock", wait=True):
            yield

    def pin(self, name: str) -> None:
        """Keep a checkpoint whatever retention says; it is not made light either."""
        self.get(name)
        (self.own / "pins").mkdir(parents=True, exist_ok=True)
        (self.own / "pins" / name).touch()
        self.journal.write("pinned", path=str(self.root / name))

    def unpin(self, name: str) -> None:
        """Let retention decide again."""
        self.get(name)
        (self.own / "pins" / name).unlink(missing_ok=True)
        self.journal.write("unpinned", path=str(self.root / name))

    def prune(self, keep: retention.Keep, *, keep_exact: bool = False) -> list[durable.Removal]:
        """Delete what retention does not want, oldest first; call it after a seal, never before."""
        doomed = {verdict.name: verdict for verdict in self.verdicts(keep, keep_exact=keep_exact) if not verdict.keep}
        return [
            self.drop(checkpoint.name, "; ".join(doomed[checkpoint.name].reasons))
            for checkpoint in self.checkpoints()
            if checkpoint.name in doomed and checkpoint.name not in self._stuck
        ]

    def drop(self, name: str, why: str) -> durable.Removal:
        """Delete a checkpoint: into the trash, unlink, measure. Refused where no other one would verify."""
        path = self.root / name
        if not self._another_verifies(name):
            return self._left(path, "no other checkpoint verifies")
        with self.changing():
            removal = self._delete(path, why, f"{name}")
            if not os.path.lexists(path) and not path.is_dir():
                with suppress(OSError):
                    (self.own / "seals" / f"{name}.json").unlink(missing_ok=True)
        return removal

    def lighten(self, name: str, why: str) -> durable.Removal:
        """Unlink what a light checkpoint does not need, after its light part has been read and found whole."""
        checkpoint = self.get(name)
        light = checkpoint.seal.kinds.get("light")
        if light is None or checkpoint.is_pinned:
            return self._left(checkpoint.path, "it is pinned" if checkpoint.is_pinned else "it has no light form")
        if not self.check(checkpoint).is_whole and not self._another_verifies(name):
            return self._left(checkpoint.path, "it does not verify and no other one does")
        with self.changing():
            removals = [
                self._delete(checkpoint.path / file, why, f"{name}/{file}")
                for file in checkpoint.seal.files
                if file not in light and (checkpoint.path / file).exists()
            ]
        reasons = [removal.reason for removal in removals if removal.reason]
        return durable.Removal(
            name,
            sum(removal.freed_bytes for removal in removals),
            sum(removal.held_bytes for removal in removals),
            reasons[0] if reasons else None,
        )

    def _another_verifies(self, name: str) -> bool:
        others = [c for c in reversed(self.checkpoints()) if c.name != name and c.kind]
        return any(self.check(checkpoint).is_whole for checkpoint in others)

    def _delete(self, path: Path, why: str, label: str) -> durable.Removal:
        users = self._look(path)
        if users:
            return self._left(path, f"in use by {', '.join(users)}")
        before = self.room().free_bytes
        try:
            # Not there where checkpoints were copied to, without what Outlast keeps beside them.
            (self.own / "trash").mkdir(parents=True, exist_ok=True)
            trashed = durable.into_trash(path, self.own / "trash")
        except OSError as error:
            return self._left(path, durable.why_not(error))
        removal = durable.remove_tree(trashed)
        after = self.room().free_bytes
        measured = None if before is None or after is None else after - before
        self._stuck.pop(label, None)
        self.journal.write(
            "deleted" if removal.reason is None else "not_deleted",
            path=str(path),
            why=why,
            freed_bytes=removal.freed_bytes,
            measured_bytes=measured,
            held_bytes=removal.held_bytes,
            reason=removal.reason,
        )
        return replace(removal, name=label)

    def _left(self, path: Path, reason: str) -> durable.Removal:
        """A deletion that did not happen is not silent: journaled once for each reason."""
        held = allocated_bytes(path)
        is_own = self.own in path.parents
        name = f"{FOLDER}/{path.relative_to(self.own)}" if is_own else path.relative_to(self.root).as_posix()
        if self._told.get(name) != reason:
            self.journal.write("not_deleted", path=str(path), held_bytes=held, reason=reason)
        self._told[name] = self._stuck[name] = reason
        return durable.Removal(name, 0, held, reason)

    def is_stuck(self, name: str) -> bool:
        """True when deleting it was tried in vain by this process."""
        return any(stuck == name or stuck.startswith(f"{name}/") for stuck in self._stuck)

    def retry_stuck(self) -> None:
        """Let what could not be deleted before be tried again: its user may be gone."""
        self._stuck.clear()

    # Trash, quarantine and the start

    def trash_bytes(self) -> int:
        """Allocated bytes of deletions that did not finish and may still succeed."""
        return sum(
            allocated_bytes(path) for path in self._children("trash") if not self.is_stuck(_own_name("trash", path))
        )

    def empty_trash(self) -> list[durable.Removal]:
        """Try again what could not be deleted before."""
        removals = []
        for path in self._children("trash"):
            removal = durable.remove_tree(path)
            removals.append(removal)
            if removal.reason:
                self._left(path, removal.reason)
            else:
                self.journal.write("trash_emptied", path=str(path), freed_bytes=removal.freed_bytes)
        return removals

    def superseded(self) -> dict[str, int]:
        """Quarantined remains that a sealed checkpoint of the same or a later step has made worthless, and bytes."""
        newest = max((checkpoint.step for checkpoint in self.checkpoints() if checkpoint.kind), default=-1)
        return {
            path.name: allocated_bytes(path)
            for path in self._children("quarantine")
            if _step_in(path.name) <= newest and not self.is_stuck(_own_name("quarantine", path))
        }

    def drop_quarantined(self, name: str, why: str) -> durable.Removal:
        """Delete quarantined remains."""
        return self._delete(self.own / "quarantine" / name, why, f"{FOLDER}/quarantine/{name}")

    def _children(self, folder: str) -> list[Path]:
        with suppress(OSError):
            return sorted(Path(entry.path) for entry in os.scandir(self.own / folder))
        return []

    def quarantine(self, path: Path, reason: str) -> None:
        """Give a checkpoint that is not whole a name that no tool resumes from."""
        target = self.own / "quarantine" / f"{path.name}.{time.time_ns()}"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(path, target)
            durable.sync_folder(path.parent)
        except OSError as error:
            self.journal.write("not_quarantined", path=str(path), reason=f"{reason}; {durable.why_not(error)}")
            return
        self.journal.write("quarantined", path=str(path), to=str(target), reason=reason)

    def unsealed(self) -> dict[str, layouts.Findings]:
        """What a tool would take for a checkpoint and that has no readable seal, with what is in it."""
        with suppress(OSError), os.scandir(self.root) as entries:
            names = [entry.name for entry in entries if _is_offered(entry)]
            sealed = {checkpoint.name for checkpoint in self.checkpoints()}
            return {name: layouts.inspect(self.root / name) for name in sorted(set(names) - sealed)}
        return {}

    def commit(self, staged: Path) -> None:
        """Give a sealed stage its final name, in place of what has it now; the caller holds the vault's lock.

        A kill between two of its steps is finished by `recover`, which calls this again: the sealed stage is the proof.
        A folder brings its seal along. One file has its seal elsewhere, so two renames are needed. The data goes first:
        then its name never stands for nothing, a reader without Outlast finds the old file or the new one, whole; what
        is between is a file whose seal is still in the stage. (The seal first would vouch for the old file's bytes.)
        """
        final = self.root / staged.name
        if staged.is_dir():
            if os.path.lexists(final):
                durable.into_trash(final, self.own / "trash")
            durable.replace(staged, final)
            return
        if os.path.lexists(staged):
            durable.replace(staged, final)
        durable.replace(seals.path_of(staged), seals.path_of(final))

    def recover(self, *, settles: bool = True) -> None:
        """Put the vault in order at a start: finish what a kill interrupted, adopt or set aside what has no seal.

        Args:
            settles: False leaves what has no seal alone, where its name does not tell who wrote it.
        """
        if not self.root.is_dir():
            return
        self.prepare()
        with durable.locked(self.own / "save.lock", wait=False) as idle:
            if not idle:
                return  # another process is saving here; its stage is alive
            with self.changing():
                self._finish_staged()
                self.empty_trash()
                self._sweep_parts()
                if settles:
                    self._settle_unsealed()

    def _finish_staged(self) -> None:
        for token in self._children("stage"):
            for path in self._staged_in(token):
                if self._is_finished(path):
                    self.commit(path)
                    self.journal.write("committed_late", path=str(self.root / path.name))
            durable.remove_tree(token)

    def _staged_in(self, token: Path) -> list[Path]:
        if not token.is_dir():
            return []
        folders = [path for path in token.iterdir() if path.is_dir() and path.name != FOLDER]
        seals_of_files = (token / FOLDER / "seals").glob("[!.]*.json")
        return sorted(folders) + sorted(token / path.name.removesuffix(".json") for path in seals_of_files)

    def _is_finished(self, staged: Path) -> bool:
        """True when a stage is sealed and whole, and not older than what has its name.

        Of one file the data may have its final name already: then the stage holds the seal alone.
        """
        final = self.root / staged.name
        try:
            seal = seals.read(staged)
            where = staged if os.path.lexists(staged) else final
            if not seals.check(where, seal).is_whole:
                return False
        except (SealError, OSError):
            return False
        held = self._open(staged.name)
        return held is None or held.kind is None or held.seal.created <= seal.created

    def _sweep_parts(self) -> None:
        for path in (self.own / "seals").glob("[!.]*.json"):
            file = self.root / path.name.removesuffix(".json")
            if file.is_symlink() or not os.path.lexists(file):
                # Its file was deleted, or a framework put a link in its place: it vouches for nothing.
                with suppress(OSError):
                    path.unlink()
        parts = [*self.root.glob(f"*/.{seals.NAME}.*.part"), *(self.own / "seals").glob(".*.part")]
        for path in parts:
            if path.is_file() and not path.is_symlink() and not self._look(path):
                with suppress(OSError):
                    path.unlink()

    def _settle_unsealed(self) -> None:
        with os.scandir(self.root) as entries:
            names = [entry.name for entry in entries if _is_offered(entry)]
        for name in names:
            path = self.root / name
            try:
                seals.read(path)
                if self._open_kind(name) is None:
                    self.quarantine(path, "files that its seal lists are missing or cut")
            except SealError as error:
                if not self._look(path):
                    self._settle(path, None if "no seal" in error.message else error.message)

    def _open_kind(self, name: str) -> str | None:
        checkpoint = self._open(name)
        return checkpoint.kind if checkpoint else None

    def _settle(self, path: Path, fault: str | None) -> None:
        """Adopt a checkpoint that nobody sealed, or set it aside."""
        findings = layouts.inspect(path)
        if fault or findings.kind is None:
            self.quarantine(path, fault or "; ".join(findings.problems))
            return
        try:
            seal = self.seal_for(path, findings.step, findings.layout, {findings.kind: ()}, made="adopted")
            seals.write(path, seal)
        except (OSError, SealError) as error:
            self.journal.write("not_adopted", path=str(path), reason=str(error))
            return
        self.journal.write("adopted", path=str(path), step=findings.step, kind=findings.kind, layout=findings.layout)

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


def _is_offered(entry: os.DirEntry[str]) -> bool:
    if layouts.is_file_candidate(entry.name):
        return entry.is_file(follow_symlinks=False)
    return layouts.is_candidate(entry.name) and entry.is_dir(follow_symlinks=False)


def _own_name(folder: str, path: Path) -> str:
    return f"{FOLDER}/{folder}/{path.name}"


def stamp_of(path: Path) -> tuple[int, ...]:
    """What changes when a file does: device, inode, length, times of content and of the inode."""
    info = os.lstat(path)
    return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


def _blocks(seal: seals.Seal, names: Sequence[str]) -> int:
    return sum(-(-seal.files[name].bytes // _BLOCK) * _BLOCK for name in names) + _BLOCK


def _step_in(name: str) -> int:
    digits = name.partition(".")[0].replace("_", "-").rpartition("-")[2]
    return int(digits) if digits.isdigit() else -1
