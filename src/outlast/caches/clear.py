"""Carry a plan out: rename into the trash on the same volume, look once more, unlink, measure. Journaled, every path.

It can be cut short anywhere and run again: what is in the trash is found and finished, and what a half-removed revision
leaves is an orphan that the next plan has.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from outlast import durable
from outlast.caches.catalogue import Sweep, by_id
from outlast.caches.find import TRASH
from outlast.caches.hub import objection, references_of
from outlast.caches.plan import Item, Plan
from outlast.caches.survey import Survey
from outlast.journal import Journal

_REFERRED = "others refer to it"
_FRESH_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one thing."""

    item: Item
    """What was to go."""
    freed_bytes: int
    """Blocks that are free now, bytes."""
    held_bytes: int
    """Blocks that could not be freed and count as used, bytes."""
    reason: str | None
    """Why something of it is left; None when all is gone."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a plan has done."""

    outcomes: tuple[Outcome, ...]
    """One for each thing, in order."""
    predicted_bytes: int
    """What the plan said."""
    measured_bytes: int | None
    """By how much the free space of the volumes grew meanwhile, others' writes included; None when unknown."""

    @property
    def freed_bytes(self) -> int:
        """What was really freed."""
        return sum(outcome.freed_bytes for outcome in self.outcomes)


def execute(plan: Plan, journal: Journal, *, look: Callable[[], Survey] = Survey) -> Result:
    """Remove what a plan holds, one thing after the other; what is in use by now stays.

    Args:
        plan: what to remove.
        journal: where every path is written down.
        look: who uses what at the moment.
    """
    before = _free([item.root for item in plan.items])
    outcomes = []
    survey, looked = look(), time.monotonic()
    for item in plan.items:
        # A look at all processes takes milliseconds, and there may be thousands of things.
        if time.monotonic() - looked > _FRESH_SECONDS:
            survey, looked = look(), time.monotonic()
        outcomes.append(_remove(item, journal, survey))
    for root in dict.fromkeys(item.root for item in plan.items):
        for folder in (root / TRASH, (root / TRASH).parent):
            with suppress(OSError):
                folder.rmdir()
    after = _free([item.root for item in plan.items])
    measured = sum(after.values()) - sum(before.values()) if before and before.keys() == after.keys() else None
    journal.write(
        "cleaned", predicted_bytes=plan.frees_bytes, freed_bytes=sum(o.freed_bytes for o in outcomes),
        measured_bytes=measured,
    )  # fmt: skip
    return Result(tuple(outcomes), plan.frees_bytes, measured)


def _free(roots: Iterable[Path]) -> dict[int, int]:
    """Free bytes of each device."""
    found = {}
    for root in roots:
        with suppress(OSError):
            figures = os.statvfs(root)
            found[os.stat(root).st_dev] = figures.f_bavail * figures.f_frsize
    return found


def _remove(item: Item, journal: Journal, survey: Survey) -> Outcome:
    freed = held = 0
    reasons: list[str] = []
    if reason := _changed(item, survey):
        journal.write("not_deleted", path=str(item.paths[0]), why=_why(item), reason=reason)
        return Outcome(item, 0, item.single_bytes, reason)
    for path in item.paths if item.kind != "shared" else ():
        if not os.path.lexists(path):
            continue
        removal = _one(path, item, survey)
        freed, held = freed + removal.freed_bytes, held + removal.held_bytes
        journal.write(
            "deleted" if removal.reason is None else "not_deleted", path=str(path), why=_why(item),
            freed_bytes=removal.freed_bytes, held_bytes=removal.held_bytes, reason=removal.reason,
        )  # fmt: skip
        if removal.reason:
            reasons.append(removal.reason)
            break  # refs, snapshots, blobs: what comes later is needed by what is still there
    payloads = item.paths if item.kind == "shared" else [stored.path for stored in item.stored]
    for payload in payloads if not reasons else ():
        size, reason = _collect(payload, item.root, survey)
        freed += size
        journal.write("deleted" if size else "not_deleted", path=str(payload), why="shared blob", reason=reason)
        if reason and (item.kind == "shared" or reason != _REFERRED):
            reasons.append(f"its shared blob {payload.name[:12]}: {reason}" if item.kind != "shared" else reason)
    return Outcome(item, freed, held, reasons[0] if reasons else None)


def _why(item: Item) -> str:
    return f"{item.kind} of {item.cache}; to make it again costs {item.cost.name.lower()}"


def _changed(item: Item, survey: Survey) -> str | None:
    """Why a thing must stay though it was free when the plan was made, minutes ago maybe."""
    if survey.look(item.paths, idle_minutes=0, named=item.cache == "named").written > item.written:
        return "it has changed since it was looked at"
    return objection(item) if item.cache != "named" and by_id(item.cache).sweep is Sweep.HUB else None


def _one(path: Path, item: Item, survey: Survey) -> durable.Removal:
    """One file or folder: into the trash, looked at once more where nobody can open it any more, unlinked."""
    root, named = item.root, item.cache == "named"
    seen = survey.look([path], idle_minutes=0, named=named)
    if reason := _outside(path, root) or seen.problem or seen.used:
        return durable.Removal(path.name, 0, seen.single_bytes, reason)
    try:
        (root / TRASH).mkdir(parents=True, exist_ok=True)
        # Not durable: after a crash it is there again, and found again.
        trashed = root / TRASH / f"{path.name[:60]}.{secrets.token_hex(4)}"
        os.rename(path, trashed)
    except OSError as error:
        if error.errno in durable.FULL:  # no room for the folder of the trash: then without it
            return durable.remove_tree(path)
        return durable.Removal(path.name, 0, seen.single_bytes, durable.why_not(error))
    again = survey.look([trashed], idle_minutes=0, named=named)
    if again.used or again.problem:
        with suppress(OSError):
            if not os.path.lexists(path):
                os.rename(trashed, path)
        return durable.Removal(path.name, 0, again.single_bytes, again.used or again.problem)
    return durable.remove_tree(trashed)


def _outside(path: Path, root: Path) -> str | None:
    """Why a path is not what was planned: a folder on the way may have become a link since."""
    if path == root or root not in path.parents:
        return "it is not below the cache's folder"
    if Path(os.path.realpath(path.parent)) != path.parent:
        return "a folder on the way to it is a link"
    return None


def _collect(payload: Path, root: Path, survey: Survey) -> tuple[int, str | None]:
    """A payload of the shared store, by the hub's own rules: under its lock, with no link left.

    Returns:
        Bytes that were freed, and why it stays.
    """
    if reason := _outside(payload, root):
        return 0, reason
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(payload.with_name(f"{payload.name}.lock"), flags, 0o666)
    except OSError as error:
        return 0, durable.why_not(error)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        references = references_of(payload, root)
        if references is None or references:
            return 0, "its list of references cannot be read" if references is None else _REFERRED
        seen = survey.look([payload], idle_minutes=0)
        if seen.problem or seen.used:
            return 0, seen.problem or seen.used
        removal = durable.remove_tree(payload)
        payload.with_name(f"{payload.name}.refs").unlink(missing_ok=True)
        return removal.freed_bytes, removal.reason
    except BlockingIOError:
        return 0, "a download is under way"
    except OSError as error:
        return 0, durable.why_not(error)
    finally:
        os.close(fd)
