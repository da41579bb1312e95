"""``outlast doctor``: what is wrong here before a run, and the fix for each. Changes nothing."""

from __future__ import annotations

import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from outlast.checkpoints import Vault, cut_files, vaults_of
from outlast.cli import _app
from outlast.cli._table import table
from outlast.cli.checkpoints import FOUND
from outlast.host import Budget, Room, room, show_bytes
from outlast.journal import Journal

app = _app.new(__doc__ or "")
_LOW_BYTES = 1 << 30
_LOW_INODES = 1000


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong."""

    where: str
    """Path."""
    what: str
    """What is wrong there."""
    fix: str
    """What to do."""


@app.command(epilog="Exit codes: 0 nothing is wrong; 3 something is; 2 bad input; 1 an error.")
def doctor(
    dir: _app.Dir = Path(),
    budget: Annotated[
        list[str] | None, typer.Option(metavar="DIR=SIZE", help="At most this much may lie under DIR. Repeatable.")
    ] = None,
    as_json: _app.Json = False,
) -> None:
    """Look at the volumes, the checkpoints and what the next save needs."""
    home = dir.expanduser().resolve()
    budgets = [Budget.parse(text) for text in budget or ()]
    vaults = [Vault(root, journal=Journal(home), budgets=budgets or None) for root in vaults_of(home)]
    places = {"this folder": home, "temporary files": Path(tempfile.gettempdir()), "home": Path.home()}
    places |= {f"budget {number}": budget.root for number, budget in enumerate(budgets, 1)}
    places |= {f"checkpoints {number}": vault.root for number, vault in enumerate(vaults, 1)}
    rooms = {name: room(path, budgets or None) for name, path in places.items()}
    findings = [finding for name, path in places.items() for finding in _volume_findings(path, rooms[name])]
    findings = list({(f.where, f.what): f for vault in vaults for f in _vault_findings(vault)}.values()) + findings
    saves = {str(vault.root): _next_save(vault) for vault in vaults}
    if as_json:
        _app.print_json({
            "volumes": {n: {"path": str(places[n]), **_room_facts(r)} for n, r in rooms.items()},
            "next_save": saves,
            "findings": [asdict(finding) for finding in findings],
        })  # fmt: skip
    else:
        rows = [
            [n, _place(places[n], r), _free(r.free_bytes), show_bytes(r.total_bytes), r.source]
            for n, r in rooms.items()
        ]
        print(table(["volume", "path", "free", "of", "limited by"], rows))
        for root, save in saves.items():
            need, fits = save["need_bytes"], save["saves_that_fit"]
            print(
                f"\n{root}: the next full save needs {show_bytes(need)}; {'unknown' if fits is None else fits} fit now"
            )
        print("\n" + ("\n".join(f"- {f.where}: {f.what}\n  fix: {f.fix}" for f in findings) or "Nothing is wrong."))
    raise typer.Exit(FOUND if findings else 0)


def _place(path: Path, found: Room) -> str:
    return str(path) if os.path.lexists(path) else f"{path} (not there yet: figures of {found.path})"


def _free(size: int | None) -> str:
    return show_bytes(size) if size is None or size >= 0 else f"0 B ({show_bytes(-size)} over)"


def _room_facts(found: Room) -> dict[str, object]:
    return {
        "free_bytes": found.free_bytes,
        "total_bytes": found.total_bytes,
        "source": found.source,
        "free_inodes": found.free_inodes,
    }


def _volume_findings(path: Path, found: Room) -> list[Finding]:
    findings = []
    if not os.access(found.path, os.W_OK):
        findings.append(Finding(str(path), "cannot be written to", "choose another folder, or change its owner"))
    if found.free_inodes is not None and found.free_inodes < _LOW_INODES:
        what = f"{found.free_inodes} more files can be made"
        findings.append(Finding(str(path), what, "delete folders of many small files: caches, unpacked data sets"))
    free = found.free_bytes
    if free is not None and found.total_bytes and free < min(_LOW_BYTES, found.total_bytes // 20):
        what = f"{show_bytes(free)} free ({found.source})"
        findings.append(Finding(str(path), what, "free some space, or save to another volume"))
    return findings


def _vault_findings(vault: Vault) -> list[Finding]:
    findings = [
        Finding(
            str(vault.root / name),
            "no seal: " + "; ".join(found.problems),
            "the next guarded run sets it aside; resume from another",
        )
        for name, found in vault.unsealed().items()
        if found.kind is None
    ]
    findings += [
        Finding(str(c.path), "files that its seal lists are missing or cut", "resume from another; it is set aside")
        for c in vault.checkpoints()
        if c.kind is None
    ]
    findings += [
        Finding(str(c.path), f"cut or overwritten: {', '.join(cut)}", f"what is whole in it is {c.kind}; see verify")
        for c in vault.checkpoints()
        if c.kind and (cut := cut_files(c.path, c.seal))
    ]
    if vault.trash_bytes():
        what = f"{show_bytes(vault.trash_bytes())} of deletions did not finish"
        findings.append(
            Finding(str(vault.own / "trash"), what, "outlast why names the reason; the next run tries again")
        )
    save = _next_save(vault)
    if save["saves_that_fit"] == 0:
        what = f"the next full save ({show_bytes(save['need_bytes'])}) does not fit in {show_bytes(save['free_bytes'])}"
        findings.append(Finding(str(vault.root), what, "outlast run makes room: older checkpoints become light or go"))
    return findings


def _next_save(vault: Vault) -> dict[str, int | None]:
    """What the next save needs, from the last full one: a margin of 1 % and 256 KiB."""
    full = [checkpoint for checkpoint in vault.checkpoints() if checkpoint.kind == "full"]
    need = int(full[-1].bytes * 1.01) + 256 * 1024 if full else None
    free = vault.room().free_bytes
    fits = None if need is None or free is None else max(0, free) // need
    return {"need_bytes": need, "free_bytes": free, "saves_that_fit": fits}
