"""Checks of the checkpoints: whole, deleted to the end, and room for the next one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from outlast.doctor.facts import Facts, Saves
from outlast.doctor.findings import Finding, error, fine, line, quoted, warning
from outlast.host import BUDGETS_VARIABLE, show_bytes


def _aside(saves: Saves, path: Path) -> str:
    """Where a guarded run puts it by itself."""
    quarantine = saves.own / "quarantine"
    return f"{line('mkdir', '-p', quarantine)} && {line('mv', path, quarantine)}"


def unsealed_checkpoint(facts: Facts) -> Sequence[Finding]:
    """A plain Trainer would resume from it; a guarded run sets it aside by itself."""
    return [
        warning(f"{path}: no seal: {'; '.join(problems)}", _aside(saves, path), path)
        for saves in facts.saves
        for path, problems in saves.unsealed.items()
    ]


def damaged_checkpoint(facts: Facts) -> Sequence[Finding]:
    """Sealed once, and too little of it is left."""
    return [
        error(f"{path}: files that its seal lists are missing or cut", _aside(saves, path), path)
        for saves in facts.saves
        for path in saves.damaged
    ]


def cut_checkpoint(facts: Facts) -> Sequence[Finding]:
    """Sealed once; what is left is still a smaller kind."""
    return [
        warning(
            f"{path}: cut or overwritten: {files}; what is whole in it is {kind}",
            line("outlast", "checkpoints", "verify", path.name, "--dir", saves.root, note="which others are whole"),
            path,
        )
        for saves in facts.saves
        for path, (files, kind) in saves.cut.items()
    ]


def unfinished_deletion(facts: Facts) -> Sequence[Finding]:
    """What was to go and is still there."""
    return [
        warning(f"{saves.trash}: {show_bytes(saves.trash_bytes)} of deletions did not finish", _empty(saves.trash),
                saves.trash)
        for saves in facts.saves
        if saves.trash and saves.trash_bytes
    ]  # fmt: skip


def _empty(trash: Path) -> str:
    # Immutable or read-only folders are what usually kept it.
    return f"chattr -R -i {line(trash)} 2>/dev/null; chmod -R u+w {line(trash)}; rm -rf {line(trash)}"


def next_save_does_not_fit(facts: Facts) -> Sequence[Finding]:
    """The next full save beside what is there."""
    return [_next_save(saves, facts) for saves in facts.saves if saves.need_bytes is not None]


def _next_save(saves: Saves, facts: Facts) -> Finding:
    need = show_bytes(saves.need_bytes)
    figures = {"need_bytes": saves.need_bytes, "free_bytes": saves.free_bytes, "saves_that_fit": saves.fits}
    if saves.fits != 0:
        fit = "unknown" if saves.fits is None else saves.fits
        return replace(fine(f"{saves.root}: the next full save needs {need}; {fit} fit now", saves.root),
                       figures=figures)  # fmt: skip
    said = f"{saves.root}: the next full save ({need}) does not fit in {show_bytes(max(0, saves.free_bytes or 0))}"
    options = [word for budget in facts.budgets for word in ("--budget", f"{budget.root}={budget.limit_bytes}")]
    if saves.sealed < 2:
        command = ("outlast", "run", "--dir", facts.home, *options, "--", "python", "train.py")
        fix = line(*command, note="it makes room, rung by rung")
    else:
        fix = line("outlast", "checkpoints", "prune", "--keep", "last=1", "--dir", saves.root)
        if facts.budgets:
            declared = os.pathsep.join(f"{budget.root}={budget.limit_bytes}" for budget in facts.budgets)
            fix = f"{BUDGETS_VARIABLE}={quoted(declared)} {fix}"
    return replace(error(said, fix, saves.root), figures=figures)
