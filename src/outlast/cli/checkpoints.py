"""``outlast checkpoints``: list, verify, prune and pin what a run has saved."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from outlast.checkpoints import Checkpoint, Keep, Vault, cut_files, vaults_of
from outlast.cli import _app
from outlast.cli._table import table
from outlast.errors import BadInput
from outlast.host import show_bytes
from outlast.journal import Journal

FOUND = 3
"""Exit code when the command worked and found something wrong."""
_NO_SEAL = "it has no seal"

app = _app.new(__doc__ or "")
Names = Annotated[
    list[str] | None, typer.Argument(metavar="NAME", help="Checkpoints, by name or path; by default all.")
]
_EPILOG = "Exit codes: 0 all is well; 3 something does not verify, or could not be deleted; 2 bad input; 1 an error."


def _vaults(home: Path, *, journaled: bool = True) -> list[Vault]:
    """The folders of checkpoints under ``--dir``; looking at them writes nothing."""
    roots = vaults_of(_app.folder(home), journaled=journaled)
    if not roots:
        raise BadInput(f"no checkpoints found at or below {home.absolute()}", hint="name the run's folder with --dir")
    return [Vault(root, journal=Journal(_app.folder(home))) for root in roots]


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
        "cut": cut_files(checkpoint.path, seal),
    }


def _row(checkpoint: Checkpoint) -> list[str]:
    notes = [f"{name} is not as long as it was sealed" for name in cut_files(checkpoint.path, checkpoint.seal)]
    notes += ["pinned"] if checkpoint.is_pinned else []
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
        named = {c.name: c for c in vault.checkpoints() if not names or _is_named(c.path, names)}
        for checkpoint in named.values():
            check = vault.check(checkpoint)
            results.append((vault, checkpoint.name, check.kind, check.problems))
        results += [
            (vault, name, None, (_NO_SEAL, *f.problems))
            for name, f in vault.unsealed().items()
            if not names or _is_named(vault.root / name, names)
        ]
    strange = [name for name in names or () if not any(_is_named(v.root / n, [name]) for v, n, *_ in results)]
    if strange:
        raise BadInput(f"{', '.join(sorted(strange))}: no such checkpoint here", hint="outlast checkpoints list")
    if as_json:
        _app.print_json([
            {"root": str(v.root), "name": name, "kind": kind, "verifies": not problems, "problems": problems}
            for v, name, kind, problems in results
        ])  # fmt: skip
    else:
        rows = [[name, _verdict(kind, problems), "; ".join(problems)] for _, name, kind, problems in results]
        print(table(["name", "verifies as", "problems"], rows))
    raise typer.Exit(FOUND if any(problems for *_, problems in results) else 0)


def _verdict(kind: str | None, problems: Sequence[str]) -> str:
    if problems:
        return "no seal" if kind is None and problems[0] == _NO_SEAL else "damaged"
    return kind or ""


def _is_named(path: Path, names: Sequence[str]) -> bool:
    """True when one of the names is this checkpoint's: its name, also as shells complete it, or a path to it."""
    return any(name.rstrip("/") == path.name or _app.folder(name) == path for name in names)


@app.command(epilog=_EPILOG)
def prune(
    keep: Annotated[str, typer.Option(metavar="RULES", help="For example last=2,best=1,metric=eval_loss,mode=min.")],
    dir: _app.Dir = Path(),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go and why; delete nothing.")] = False,
    as_json: _app.Json = False,
) -> None:
    """Delete the checkpoints that the rules do not keep. Pinned ones and the newest always stay."""
    rules = Keep.parse(keep)
    vaults = _vaults(dir, journaled=False)
    _check_metric(rules, vaults)
    document: list[dict[str, Any]] = []
    for vault in vaults:
        verdicts = vault.verdicts(rules, anothers=True)  # the user's own word
        removals = {} if dry_run else {removal.name: removal for removal in vault.prune(rules, anothers=True)}
        sizes = {checkpoint.name: checkpoint.bytes for checkpoint in vault.checkpoints()} if dry_run else {}
        for verdict in verdicts:
            removal = removals.get(verdict.name)
            reason = removal.reason if removal else None
            fate = "keep" if verdict.keep else "would delete" if dry_run else "NOT deleted" if reason else "deleted"
            freed = removal.freed_bytes if removal else None if verdict.keep else sizes.get(verdict.name)
            document.append({
                "root": str(vault.root),
                "name": verdict.name,
                "fate": fate,
                "reasons": [*verdict.reasons, *([reason] if reason else [])],
                "freed_bytes": freed,
            })  # fmt: skip
    if as_json:
        _app.print_json(document)
    else:
        _print_fates(document, vaults)
    raise typer.Exit(FOUND if any(d["fate"] == "NOT deleted" for d in document) else 0)


def _check_metric(rules: Keep, vaults: Sequence[Vault]) -> None:
    """A metric that no checkpoint has is a misspelt one: nothing may be deleted on its word.

    Raises:
        BadInput: with the names that are known.
    """
    known = sorted({name for vault in vaults for checkpoint in vault.checkpoints() for name in checkpoint.seal.metrics})
    if rules.best and rules.metric not in known:
        raise BadInput(
            f"no checkpoint here has the metric {rules.metric!r}", hint=f"they have: {', '.join(known) or 'none'}"
        )


def _print_fates(document: Sequence[dict[str, Any]], vaults: Sequence[Vault]) -> None:
    for vault in vaults:
        here = [d for d in document if d["root"] == str(vault.root)]
        freed = [show_bytes(d["freed_bytes"]) if d["freed_bytes"] is not None else "" for d in here]
        rows = [[d["name"], d["fate"], size, "; ".join(d["reasons"])] for d, size in zip(here, freed, strict=True)]
        print(vault.root)
        print(table(["name", "fate", "freed", "why"], rows) if rows else "  nothing sealed")


@app.command(epilog=_EPILOG)
def pin(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Checkpoints to pin, by name or path.")],
    dir: _app.Dir = Path(),
    off: Annotated[bool, typer.Option("--off", help="Unpin: let the rules decide again.")] = False,
    as_json: _app.Json = False,
) -> None:
    """Keep checkpoints whatever the rules and the ladder say."""
    found = {
        name: [(v, c.name) for v in _vaults(dir, journaled=False) for c in v.checkpoints() if _is_named(c.path, [name])]
        for name in names
    }
    if strange := sorted(name for name, holders in found.items() if not holders):
        raise BadInput(f"no sealed checkpoint {strange[0]!r} here", hint="outlast checkpoints list")
    pinned = [pair for holders in found.values() for pair in holders]
    for vault, name in pinned:
        (vault.unpin if off else vault.pin)(name)
    if as_json:
        _app.print_json([{"root": str(vault.root), "name": name, "pinned": not off} for vault, name in pinned])
        return
    for vault, name in pinned:
        print(f"{'unpinned' if off else 'pinned'} {vault.root / name}")
