"""The changes that ``--fix`` makes: only such as can be taken back, each journaled with the line that does so."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from outlast.doctor.findings import Finding, Mend, line
from outlast.durable import why_not
from outlast.host import OpenFiles, lease, leases_are_safe
from outlast.journal import Journal


@dataclass(frozen=True, slots=True)
class Mended:
    """What became of one change."""

    id: str
    """The check that asked for it."""
    path: Path
    """What it was about."""
    done: str | None
    """What was done, for people; None when it was not."""
    undo: str | None
    """The line that takes it back."""
    reason: str | None = None
    """Why it was not done."""


def mend(findings: Iterable[Finding], journal: Journal) -> tuple[Mended, ...]:
    """Make every change that a finding allows.

    Args:
        findings: what was found.
        journal: where each change is written down, before it is made and after.
    """
    return tuple(_mended(finding, finding.mend, journal) for finding in findings if finding.mend)


def _mended(finding: Finding, wanted: Mend, journal: Journal) -> Mended:
    facts = {"check": finding.id, "kind": wanted.kind, "path": str(wanted.path)}
    try:
        undo = _undo(wanted)
        journal.write("mend_begun", **facts, undo=undo)
        done = _DO[wanted.kind](wanted.path)
    except OSError as error:
        journal.write("mend_failed", **facts, reason=why_not(error))
        return Mended(finding.id, wanted.path, None, None, why_not(error))
    if done is None:
        journal.write("mend_failed", **facts, reason="somebody has it open now")
        return Mended(finding.id, wanted.path, None, None, "somebody has it open now")
    journal.write("mended", **facts, undo=undo)
    return Mended(finding.id, wanted.path, done, undo)


def _undo(wanted: Mend) -> str:
    path = wanted.path
    if wanted.kind == "let-write":
        return line("chmod", f"{stat.S_IMODE(os.stat(path).st_mode):o}", path)
    if wanted.kind == "set-aside":
        return line("mv", _aside(path), path)
    # From the deepest: only folders that were not there before.
    missing = [folder for folder in (path, *path.parents) if not os.path.exists(folder)]
    return line("rmdir", *missing)


def _make_folder(path: Path) -> str | None:
    path.mkdir(parents=True, exist_ok=True)
    return f"made {path}"


def _let_write(path: Path) -> str | None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        info = os.fstat(fd)
        if info.st_uid != os.geteuid():
            return None
        os.fchmod(fd, stat.S_IMODE(info.st_mode) | stat.S_IWUSR)
    finally:
        os.close(fd)
    return f"chmod u+w {path}"


def _set_aside(path: Path) -> str | None:
    os.lstat(path)  # gone meanwhile: an OSError of its own
    # Looked at again: a build may have begun since.
    with leases_are_safe():
        if OpenFiles.now().user_of(path) or lease(path) is not True:
            return None
    aside = _aside(path)
    os.rename(path, aside)
    return f"renamed {path} to {aside.name}"


def _aside(path: Path) -> Path:
    """A name that nothing has yet."""
    names = (path.with_name(f"{path.name}.stale{f'-{number}' if number else ''}") for number in itertools.count())
    return next(name for name in names if not os.path.lexists(name))


_DO = {"make-folder": _make_folder, "let-write": _let_write, "set-aside": _set_aside}
