"""``outlast clean``: what the caches of ML tools hold, and freeing it. Deletes nothing without ``--yes``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from outlast.caches import Cost, Inventory, Item, Plan, Result, Wish, by_id, decide, execute, inventory, keeps
from outlast.cli import _app
from outlast.cli._table import table
from outlast.errors import BadInput
from outlast.host import parse_bytes, show_bytes
from outlast.journal import Journal

app = _app.new(__doc__ or "")
NOT_ALL = 3
_SHOWN = 20
_COSTS = {"seconds": Cost.SECONDS, "minutes": Cost.MINUTES, "download": Cost.DOWNLOAD}
_EPILOG = (
    "Exit codes: 0 done, or shown; 3 something could not be deleted, or --free is not reached; 2 bad input; 1 an error."
)


@app.command(epilog=_EPILOG)
def clean(
    paths: Annotated[
        list[Path] | None, typer.Argument(metavar="PATH", help="Old outputs of your own that may go, whole.")
    ] = None,
    free: Annotated[str, typer.Option(metavar="SIZE", help="Stop when this much is freed, e.g. 20GB.")] = "",
    up_to: Annotated[
        str,
        typer.Option(
            metavar="seconds|minutes|download",
            help="The most that a thing may cost to make again. Default: minutes; with --free: download.",
        ),
    ] = "",
    only: Annotated[
        list[str] | None, typer.Option(metavar="CACHE", help="Only this cache (hf-hub, pip, triton ...). Repeatable.")
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Keep what has this name or path. Repeatable.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it. Without it nothing is deleted.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the plan; that is the default.")] = False,
    as_json: _app.Json = False,
) -> None:
    """Free what the caches hold and nobody uses: the cheapest to make again first."""
    wish = _wish(free, up_to, only or [], keep or [])
    found = inventory(named=[_expanded(path) for path in paths or ()], only=wish.only)
    unmatched = [pattern for pattern in keep or () if not any(keeps(pattern, item) for item in found.items)]
    if paths and not (free or up_to or only):
        found = Inventory(tuple(item for item in found.items if item.kind == "named"), ())
    plan = decide(found.items, wish)
    result = execute(plan, Journal(_app.state_folder())) if yes and not dry_run else None
    if as_json:
        _app.print_json(_document(found, plan, result))
    else:
        print("\n".join(_lines(found, plan, result)))
    for pattern in unmatched:
        print(f"outlast: --keep {_printable(pattern)} is the name or path of nothing here", file=sys.stderr)
    failed = result is not None and any(outcome.reason for outcome in result.outcomes)
    raise typer.Exit(NOT_ALL if failed or plan.short_bytes else 0)


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise BadInput(f"{path} is no path: {error}", hint="name a file or folder that is there") from None


def _wish(free: str, up_to: str, only: Sequence[str], keep: Sequence[str]) -> Wish:
    if up_to and up_to not in _COSTS:
        raise BadInput(f"--up-to is {up_to!r}", hint=f"expected one of {', '.join(_COSTS)}")
    for name in only:
        try:
            by_id(name)
        except KeyError:
            raise BadInput(f"there is no cache {name!r}", hint="outlast clean names those that are here") from None
    dearest = _COSTS[up_to] if up_to else Cost.DOWNLOAD if free else Cost.MINUTES
    return Wish(
        parse_bytes(free) if free else None,
        dearest,
        frozenset(only),
        tuple(str(_expanded(Path(pattern))) if pattern.startswith("~") else pattern for pattern in keep),
    )


def _document(found: Inventory, plan: Plan, result: Result | None) -> dict[str, Any]:
    return {
        "items": [{**_facts(item), "fate": "delete"} for item in plan.items]
        + [{**_facts(item), "fate": "keep", "reason": reason} for item, reason in plan.left],
        "skipped": [{"cache": s.cache, "path": str(s.path), "reason": s.reason} for s in found.skipped],
        "predicted_bytes": plan.frees_bytes,
        "short_bytes": plan.short_bytes,
        "freed_bytes": result.freed_bytes if result else None,
        "measured_bytes": result.measured_bytes if result else None,
        "not_deleted": [
            {"name": outcome.item.name, "reason": outcome.reason, "held_bytes": outcome.held_bytes}
            for outcome in (result.outcomes if result else ())
            if outcome.reason
        ],
    }


def _facts(item: Item) -> dict[str, Any]:
    return {
        "cache": item.cache,
        "kind": item.kind,
        "name": item.name,
        "paths": [str(path) for path in item.paths],
        "bytes": item.single_bytes + sum(one.bytes for one in item.linked) + sum(one.bytes for one in item.stored),
        "cost": item.cost.name.lower(),
        "newest": item.newest,
        "note": item.note,
    }


def _lines(found: Inventory, plan: Plan, result: Result | None) -> list[str]:
    lines = []
    if plan.items:
        lines.append(_table(plan.items))
    stays = [_printable(f"  {item.name}: {reason}") for item, reason in plan.left if reason not in _DULL]
    lines += ["", "stays:", *_cut(stays)] if stays else []
    dear = [item for item, _ in plan.left if item.cost is Cost.DOWNLOAD and not item.in_use]
    if dear:
        more = decide(dear, Wish(dearest=Cost.DOWNLOAD)).frees_bytes
        lines += ["", f"{show_bytes(more)} more could be downloaded again: --up-to download, or --free SIZE"]
    lines += (
        ["", *_cut([_printable(f"not touched: {s.path} ({s.reason})") for s in found.skipped])] if found.skipped else []
    )
    lines += ["", *_end(plan, result)]
    return lines


_DULL = frozenset({"not needed", "not asked for", "to make it again costs a download"})


def _table(items: Sequence[Item]) -> str:
    rows = [
        [
            item.cache,
            item.kind,
            show_bytes(_bytes(item)),
            item.cost.name.lower(),
            _printable(item.name),
            _printable(item.note),
        ]
        for item in items[:_SHOWN]
    ]
    text = table(["cache", "kind", "size", "again costs", "what", ""], rows)
    return text if len(items) <= _SHOWN else f"{text}\n({len(items) - _SHOWN} more; --json has all)"


def _bytes(item: Item) -> int:
    return item.single_bytes + sum(one.bytes for one in item.linked) + sum(one.bytes for one in item.stored)


def _printable(text: str) -> str:
    """A name on one line: file names may hold newlines and escapes."""
    return text if text.isprintable() else repr(text)[1:-1]


def _cut(lines: Sequence[str]) -> list[str]:
    return [*lines[:_SHOWN], *([f"({len(lines) - _SHOWN} more; --json has all)"] if len(lines) > _SHOWN else [])]


def _end(plan: Plan, result: Result | None) -> list[str]:
    short = [f"{show_bytes(plan.short_bytes)} are missing to --free"] if plan.short_bytes else []
    if result is None:
        if not plan.items:
            return ["nothing to free", *short]
        return [f"would free {show_bytes(plan.frees_bytes)}; nothing was deleted: add --yes to do it", *short]
    lines = [_printable(f"NOT deleted: {o.item.name}: {o.reason}") for o in result.outcomes if o.reason]
    measured = f"; free space grew by {show_bytes(result.measured_bytes)}" if result.measured_bytes is not None else ""
    return [
        *lines,
        f"freed {show_bytes(result.freed_bytes)} of {show_bytes(result.predicted_bytes)} planned{measured}",
        *short,
    ]
