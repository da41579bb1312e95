"""``outlast doctor``: what is wrong here before a run, and the fix for each. Changes nothing without ``--fix``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from outlast.cli import _app
from outlast.cli._table import table
from outlast.doctor import CHECKS, Facts, Finding, Mended, Status, diagnose, exit_code, gather, mend
from outlast.errors import BadInput
from outlast.host import Budget, Room, show_bytes
from outlast.journal import Journal

app = _app.new(__doc__ or "")
_EPILOG = (
    "Exit codes: 0 nothing is wrong; 1 warnings, or an error of Outlast's own, which is on stderr; "
    "2 errors were found, or bad input."
)
_TELLING = ("gpu-driver", "gpu-precision", "attention", "next-save-does-not-fit", "token-in-cache-you-clean")
"""Checks whose evidence is worth reading when nothing is wrong."""


@app.command(epilog=_EPILOG)
def doctor(
    dir: _app.Dir = Path(),
    budget: Annotated[
        list[str] | None, typer.Option(metavar="DIR=SIZE", help="At most this much may lie under DIR. Repeatable.")
    ] = None,
    python: Annotated[
        str | None, typer.Option(metavar="PYTHON", help="The interpreter that trains; default: what `python` means.")
    ] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also ask that interpreter what its libraries say; takes seconds.")
    ] = False,
    fix: Annotated[bool, typer.Option("--fix", help="Make the changes that can be taken back; says how.")] = False,
    as_json: _app.Json = False,
) -> None:
    """Look at the volumes, the caches, the GPU and the checkpoints before a run."""
    home = _app.folder(dir)
    budgets = [Budget.parse(text) for text in budget or ()]
    if python and not Path(python).expanduser().exists():
        raise BadInput(f"there is no interpreter {python}", hint="name its program, such as .venv/bin/python")
    facts = gather(home, budgets, python=python, deep=deep)
    findings = diagnose(facts)
    mended: Sequence[Mended] = ()
    if fix:
        mended = mend(findings, Journal(home))
        if any(one.done for one in mended):
            facts = gather(home, budgets, python=python, deep=deep)
            findings = diagnose(facts)
    if as_json:
        _app.print_json([_document(finding, mended) for finding in findings])
    else:
        print("\n".join([*_volumes(facts), "", *_lines(findings), *_mended(mended)]))
    raise typer.Exit(exit_code(findings))


def _volumes(facts: Facts) -> list[str]:
    rows = [
        [v.name, _place(v.path, v.room, v.is_there), _free(v.room.free_bytes), show_bytes(v.room.total_bytes),
         v.room.source]
        for v in (*facts.volumes, *([facts.shm] if facts.shm else []))
    ]  # fmt: skip
    return table(["volume", "path", "free", "of", "limited by"], rows).splitlines()


def _place(path: Path, found: Room, is_there: bool) -> str:
    return str(path) if is_there else f"{path} (not there yet: figures of {found.path})"


def _free(size: int | None) -> str:
    return show_bytes(size) if size is None or size >= 0 else f"0 B ({show_bytes(-size)} over)"


def _lines(findings: Sequence[Finding]) -> list[str]:
    wrong = [f for f in findings if f.status in (Status.WARNING, Status.ERROR)]
    lines = []
    for finding in sorted(wrong, key=lambda one: one.status is not Status.ERROR):
        lines += [f"{finding.status.mark} {finding.id}: {finding.evidence}", f"    fix: {finding.fix}"]
    bad = {finding.id for finding in wrong}
    for group in dict.fromkeys(check.group for check in CHECKS):
        ids = [check.id for check in CHECKS if check.group == group and check.id not in bad]
        here = [f for f in findings if f.id in ids and f.status is Status.OK]
        told = [f.evidence for f in here if f.id in _TELLING and f.evidence != f.title]
        if here:
            count = len({finding.id for finding in here})
            lines.append(f"{Status.OK.mark} {group}: {count} {'check' if count == 1 else 'checks'} fine"
                         + "".join(f"; {text}" for text in dict.fromkeys(told)))  # fmt: skip
    lines += [f"{f.status.mark} {f.id}: {f.evidence}" for f in findings if f.status is Status.SKIPPED]
    return lines if wrong else [*lines, "Nothing is wrong."]


def _mended(mended: Sequence[Mended]) -> list[str]:
    lines = []
    for one in mended:
        if one.done:
            lines += [f"fixed {one.id}: {one.done}", f"    undo: {one.undo}"]
        else:
            lines.append(f"NOT fixed {one.id}: {one.path}: {one.reason}")
    return ["", *lines] if lines else []


def _document(finding: Finding, mended: Sequence[Mended]) -> dict[str, Any]:
    path = str(finding.path) if finding.path else None
    done = next((one for one in mended if one.id == finding.id and one.done), None)
    return {
        "id": finding.id,
        "status": finding.status.value,
        "title": finding.title,
        "evidence": finding.evidence,
        "fix": finding.fix,
        "path": path,
        "figures": dict(finding.figures),
        "fixed": {"done": done.done, "undo": done.undo} if done else None,
    }
