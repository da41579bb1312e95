"""``outlast checkpoints``: list, verify, prune and pin what a run has saved."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from outlast.checkpoints import Checkpoint, Keep, Vault, vaults_of
from outlast.cli import _app
from outlast.cli._table import table
from outlast.errors import BadInput
from outlast.host import show_bytes
from outlast.journal import Journal

FOUND = 3
"""Exit code when the command worked and found something wrong."""

app = _app.new(__doc__ or "")
Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Checkpoints; all of them by default.")]
_EPILOG = "Exit codes: 0 all is well; 3 something does not verify, or could not be deleted; 2 bad input; 1 an error."


def _vaults(home: Path, *, journaled: bool = True) -> list[Vault]:
    """The folders of checkpoints under ``--dir``; looking at them writes nothing."""
    roots = vaults_of(home.expanduser().resolve(), journaled=journaled)
    if not roots:
        raise BadInput(f"no checkpoints found at or below {home.absolute()}", hint="name the run's folder with --dir")
    return [Vault(root, journal=Journal(home.expanduser().resolve())) for root in roots]


@app.command("list", epilog=_EPILOG)
def list_(dir: _app.Dir = Path(), as_json: _app.Json = False) -> None:
    """List sealed checkpoints, oldest first, and folders that have no seal."""
    found = [(vault, vault.checkpoints(), vault.unsealed()) for vault in _vaults(dir)]
    if as_json:
        _app.print_json([
            {
                "root": str(vault.root),
                "checkpoints": [_facts(checkpoint) for checkpoint in sealed],
                "unsealed": {name: {"kind": f.kind, "problems": f.problems} for name, f in unsealed.items()},
            }
            for vault, sealed, unsealed in found
        ])  # fmt: skip
        return
    for vault, sealed, unsealed in found:
        print(vault.root)
        rows = [_row(c) for c in sealed]
        rows += [[n, "", "no seal", "", "", "; ".join(f.problems) or "whole: is adopted"] for n, f in unsealed.items()]
        print(table(["name", "step", "kind", "size", "saved", "notes"], rows) if rows else "  nothing yet")


def _facts(checkpoint: Checkpoint) -> dict[str, Any]:
    seal = checkpoint.seal
    return {
        "name": checkpoint.name,
        "step": checkpoint.step,
        "kind": checkpoint.kind,
        "bytes": checkpoint.bytes,
        "created": seal.created,
        "layout": seal.layout,
        "made": seal.made,
        "metrics": dict(seal.metrics),
        "pinned": checkpoint.is_pinned,
        "notes": dict(seal.notes),
    }


def _row(checkpoint: Checkpoint) -> list[str]:
    notes = ["pinned"] if checkpoint.is_pinned else []
    notes += ["adopted"] if checkpoint.seal.made == "adopted" else []
    notes += [f"{name}={value:.4g}" for name, value in checkpoint.seal.metrics.items() if name in ("loss", "eval_loss")]
    if checkpoint.seal.notes.get("why_light"):
        notes.append(f"light: {checkpoint.seal.notes['why_light']}")
    saved = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(checkpoint.seal.created))
    kind = checkpoint.kind or "damaged"
    return [checkpoint.name, str(checkpoint.step), kind, show_bytes(checkpoint.bytes), saved, ", ".join(notes)]


@app.command(epilog=_EPILOG)
def verify(names: Names = None, dir: _app.Dir = Path(), as_json: _app.Json = False) -> None:
    """Read every byte of the checkpoints and compare it with their seals."""
    results = []
    for vault in _vaults(dir):
        for checkpoint in _named(vault, names):
            check = vault.check(checkpoint)
            results.append((vault, checkpoint.name, check.kind, check.problems))
        results += [
            (vault, name, None, ("it has no seal", *f.problems))
            for name, f in vault.unsealed().items()
            if not names or name in names
        ]
    if strange := set(names or ()) - {name for _, name, *_ in results}:
        raise BadInput(f"{', '.join(sorted(strange))}: no such checkpoint here", hint="outlast checkpoints list")
    if as_json:
        _app.print_json([
            {"root": str(v.root), "name": name, "kind": kind, "verifies": not problems, "problems": problems}
            for v, name, kind, problems in results
        ])  # fmt: skip
    else:
        rows = [
            [name, "damaged" if problems else kind or "", "; ".join(problems)] for _, name, kind, problems in results
        ]
        print(table(["name", "verifies as", "problems"], rows))
    raise typer.Exit(FOUND if any(problems for *_, problems in results) else 0)


def _named(vault: Vault, names: list[str] | None) -> list[Checkpoint]:
    return [checkpoint for checkpoint in vault.checkpoints() if not names or checkpoint.name in names]


@app.command(epilog=_EPILOG)
def prune(
    keep: Annotated[str, typer.Option(metavar="RULES", help="For example last=2,best=1,metric=eval_loss,mode=min.")],
    dir: _app.Dir = Path(),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go and why; delete nothing.")] = False,
    as_json: _app.Json = False,
) -> None:
    """Delete the checkpoints that the rules do not keep. Pinned ones and the newest always stay."""
    rules = Keep.parse(keep)
    document: list[dict[str, Any]] = []
    has_failed = False
    for vault in _vaults(dir, journaled=False):
        verdicts = vault.verdicts(rules, anothers=True)  # the user's own word
        removals = {} if dry_run else {removal.name: removal for removal in vault.prune(rules, anothers=True)}
        for verdict in verdicts:
            removal = removals.get(verdict.name)
            fate = "keep" if verdict.keep else "would delete" if dry_run else "deleted"
            if removal and removal.reason:
                fate, has_failed = "NOT deleted", True
            document.append({
                "root": str(vault.root),
                "name": verdict.name,
                "fate": fate,
                "reasons": [*verdict.reasons, *([removal.reason] if removal and removal.reason else [])],
                "freed_bytes": removal.freed_bytes if removal else None,
            })  # fmt: skip
    if as_json:
        _app.print_json(document)
    else:
        rows = [[d["name"], d["fate"], "; ".join(d["reasons"])] for d in document]
        print(table(["name", "fate", "why"], rows))
    raise typer.Exit(FOUND if has_failed else 0)


@app.command(epilog=_EPILOG)
def pin(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Checkpoints to pin.")],
    dir: _app.Dir = Path(),
    off: Annotated[bool, typer.Option("--off", help="Unpin: let the rules decide again.")] = False,
) -> None:
    """Keep checkpoints whatever the rules and the ladder say."""
    vaults = _vaults(dir, journaled=False)
    for name in names:
        holders = [vault for vault in vaults if any(c.name == name for c in vault.checkpoints())]
        if not holders:
            raise BadInput(f"no sealed checkpoint {name!r} here", hint="outlast checkpoints list")
        for vault in holders:
            (vault.unpin if off else vault.pin)(name)
            print(f"{'unpinned' if off else 'pinned'} {vault.root / name}")
