"""A folder of sealed checkpoints that is changed: pin, prune, delete, make light, commit, put in order at a start.

With `recovery`, the only module that renames or unlinks under a run's folder. Nothing is deleted before another
checkpoint was read and found whole, nor while a process has it open; what could not be deleted is said once and counts
as used.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from outlast import durable
from outlast.checkpoints import layouts, recovery, retention
from outlast.checkpoints import seal as seals
from outlast.checkpoints.shelf import Choice, Shelf
from outlast.errors import SealError
from outlast.host import Budget, allocated_bytes, users_of
from outlast.journal import FOLDER, Journal, from_environment

_NOT_OURS = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


class Vault(Shelf):
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
        super().__init__(root, budgets=budgets, is_protected=is_protected)
        self.journal = journal or from_environment(self.root if self.own.parent == self.root else self.root.parent)
        self.ballast = durable.Ballast(self.own / "ballast")
        self.look = look
        self._stuck: dict[str, str] = {}
        self._told: dict[str, str] = {}

    def prepare(self) -> None:
        """Make Outlast's own folders and the ballast, while there is room for them (mkdir fails on a full ext4)."""
        for name in ("stage", "trash", "quarantine", "seals", "pins"):
            (self.own / name).mkdir(parents=True, exist_ok=True)
        for name in ("lock", "save.lock"):
            (self.own / name).touch()
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

    def prune(self, keep: retention.Keep, *, keep_exact: bool = False, anothers: bool = False) -> list[durable.Removal]:
        """Delete what retention does not want (see `verdicts`), oldest first; call it after a seal, never before."""
        verdicts = self.verdicts(keep, keep_exact=keep_exact, anothers=anothers)
        doomed = {verdict.name: verdict for verdict in verdicts if not verdict.keep}
        return [
            self.drop(checkpoint.name, "; ".join(doomed[checkpoint.name].reasons))
            for checkpoint in self.checkpoints()
            if checkpoint.name in doomed and checkpoint.name not in self._stuck
        ]

    def drop(self, name: str, why: str) -> durable.Removal:
        """Delete a checkpoint: into the trash, unlink, measure. Refused where no other one would verify."""
        path = self.root / name
        with self.changing():
            # In the lock: of two processes that each take the other's victim for the way back, one is refused.
            if not self._another_verifies(name):
                return self._left(path, "no other checkpoint verifies")
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
        with self.changing():
            if not self.check(checkpoint).is_whole and not self._another_verifies(name):
                return self._left(checkpoint.path, "it does not verify and no other one does")
            removals = [
                self._delete(checkpoint.path / file, why, f"{name}/{file}")
                for file in checkpoint.seal.files
                if file not in light and seals.is_there(checkpoint.path, file)
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
        users = self.look(path)
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
        self._set_aside_unverified(choice)
        if wanted and wanted != taken.name:
            self.journal.write(
                "passed_over", name=wanted, reason="asked for, but it does not verify", root=str(self.root)
            )
        self.journal.write("resumed", name=taken.name, step=taken.step, kind=choice.kind, root=str(self.root))
        return choice

    def _set_aside_unverified(self, choice: Choice) -> None:
        """Of a checkpoint that is whole only as a poorer kind, the other files must not be loaded by anyone."""
        taken = choice.checkpoint
        if any(name == taken.name for name, _ in choice.passed_over) and taken.path.is_dir():
            for file in set(taken.seal.files) - set(taken.seal.kinds[choice.kind]):
                if os.path.lexists(taken.path / file):
                    self.quarantine(taken.path / file, f"{taken.name} is resumed as {choice.kind}, without it")

    def _wanted(self, name: str | None) -> Choice | None:
        checkpoint = self.open(name) if name else None
        if checkpoint is None:
            return None
        result = self.check(checkpoint)
        return Choice(checkpoint, result.kind, ()) if result.is_whole and result.kind else None

    def trash_bytes(self) -> int:
        """Allocated bytes of deletions that did not finish and may still succeed."""
        return sum(
            allocated_bytes(path) for path in self.children("trash") if not self.is_stuck(_own_name("trash", path))
        )

    def empty_trash(self) -> list[durable.Removal]:
        """Try again what could not be deleted before."""
        removals = []
        for path in self.children("trash"):
            removal = durable.remove_tree(path)
            removals.append(removal)
            if removal.reason:
                self._left(path, removal.reason)
            else:
                self.journal.write("trash_emptied", path=str(path), freed_bytes=removal.freed_bytes)
        return removals

    def superseded(self) -> dict[str, int]:
        """Quarantined remains that a sealed checkpoint of the same or a later step has made worthless, and bytes.

        Only what is known for a checkpoint counts: sealed by Outlast, or partly written by a
        framework. Never a pinned one.
        """
        remains = [path for path in self.children("quarantine") if self._is_known_remains(path)]
        whole = [c for c in reversed(self.checkpoints()) if c.kind] if remains else []
        newest = next((c.step for c in whole if self.check(c).is_whole), -1)
        return {path.name: allocated_bytes(path) for path in remains if 0 <= _step_in(path.name) <= newest}

    def _is_known_remains(self, path: Path) -> bool:
        name = path.name.rpartition(".")[0]
        if self.is_stuck(_own_name("quarantine", path)) or (self.own / "pins" / name).exists():
            return False
        try:
            seals.read(path)
            return True
        except (SealError, OSError):
            return layouts.is_partial(path, name)

    def drop_quarantined(self, name: str, why: str) -> durable.Removal:
        """Delete quarantined remains."""
        return self._delete(self.own / "quarantine" / name, why, f"{FOLDER}/quarantine/{name}")

    def children(self, folder: str) -> list[Path]:
        """What is in one of Outlast's own folders here, sorted; nothing where a link leads out of it."""
        if self.own.is_symlink() or (self.own / folder).is_symlink():
            return []
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
                self._make_way(final)
            durable.replace(staged, final)
            return
        if os.path.lexists(staged):
            durable.replace(staged, final)
        durable.replace(seals.path_of(staged), seals.path_of(final))

    def _make_way(self, final: Path) -> None:
        """Clear a name for a new checkpoint: what is pinned, in use or another's there is kept under another name."""
        pin = self.own / "pins" / final.name
        users, why = self.look(final), "a new checkpoint has its name"
        held = self.open(final.name)
        if pin.exists() or users or (held and self.alive_elsewhere([held.seal.lineage])):
            kept = final.with_name(f"{final.name}.old-{time.time_ns()}")
            os.rename(final, kept)
            if pin.exists():
                os.rename(pin, pin.with_name(kept.name))
            self.journal.write("renamed", path=str(final), to=str(kept), why=why, users=users)
            return
        self.journal.write("replaced", path=str(final), bytes=allocated_bytes(final), why=why)
        durable.into_trash(final, self.own / "trash")

    def recover(self, *, settles: bool = True) -> None:
        """Put the folder in order at a start; see `recovery`.

        Args:
            settles: False leaves what has no seal alone, where its name does not tell who wrote it.
        """
        if not self.root.is_dir():
            return
        try:
            self.prepare()
            recovery.recover(self, settles=settles)
        except OSError as error:
            # A read-only folder, or a volume without room for a folder: what is there can still be resumed from.
            if error.errno not in durable.FULL | _NOT_OURS:
                raise
            self.journal.write("not_recovered", root=str(self.root), reason=durable.why_not(error))


def _own_name(folder: str, path: Path) -> str:
    return f"{FOLDER}/{folder}/{path.name}"


def _step_in(name: str) -> int:
    digits = name.partition(".")[0].replace("_", "-").rpartition("-")[2]
    return int(digits) if digits.isdigit() else -1
