"""``outlast migrate``: move an existing cache to another volume. The source goes once the copy has been verified."""

from __future__ import annotations

import shlex
import time
from typing import Annotated, Any

import typer

from outlast.caches import places
from outlast.caches.migrate import Moved, carry_out
from outlast.caches.move import MovePlan, find, plan
from outlast.cli import _app
from outlast.host import show_bytes
from outlast.journal import Journal

app = _app.new(__doc__ or "")
KEPT = 3
"""Exit code when the cache is moved but its old files could not be deleted."""
_EPILOG = (
    "Exit codes: 0 moved, or shown; 3 moved, but the old files are still there; 2 bad input, or never moved; "
    "1 an error, or in use: the source is whole, and the same command goes on."
)
_SECONDS_BETWEEN_LINES = 2.0


@app.command(epilog=_EPILOG)
def migrate(
    cache: Annotated[str, typer.Argument(metavar="CACHE", help="Id of a cache (hf-hub, pip ...), or its folder.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Its new folder, on another volume; made here.")],
    link: Annotated[
        bool, typer.Option("--link/--env", help="Leave a symbolic link, or print the variable to be set instead.")
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the plan.")] = False,
    as_json: _app.Json = False,
) -> None:
    """Copy CACHE to TARGET, verify every byte, switch, delete the old files. Can be killed and run again."""
    found = plan(find(cache, target, "link" if link else "env", places()))
    if not as_json:
        print(_text(found))
    if dry_run:
        if as_json:
            _app.print_json(_document(found))
        return
    done = carry_out(found, Journal(_app.state_folder()), say=_Teller(found, quiet=as_json).say)
    if as_json:
        _app.print_json(_document(found, done))
    elif not found.is_there:
        print(f"freed: {show_bytes(done.freed_bytes)}" if done.kept is None else f"NOT deleted: {done.kept}")
        if not link:
            print(f"\nexport {_export(found)}")
    raise typer.Exit(0 if done.kept is None else KEPT)


def _export(found: MovePlan) -> str:
    name, _, value = (found.move.export or "").partition("=")
    return f"{name}={shlex.quote(value)}"


def _text(found: MovePlan) -> str:
    move = found.move
    lines = [f"{move.source} -> {move.target}"]
    if found.is_there:
        return f"{lines[0]}\nit is there already"
    lines.append(f"  size: {show_bytes(found.bytes)} in {found.files:,} files")
    if found.verified_bytes:
        lines.append(f"  of these copied and verified before: {show_bytes(found.verified_bytes)}")
    free = f"{show_bytes(found.room.free_bytes)} ({found.room.source})"
    lines.append(f"  needed: {show_bytes(found.need_bytes)}; free there: {free}")
    if found.shared_bytes:
        lines.append(f"  hard links from outside hold {show_bytes(found.shared_bytes)}: deleting those frees nothing")
    if found.is_same_volume:
        lines.append("  both are on one volume: nothing will be freed on it")
    after = f"a symbolic link stays at {move.source}" if move.how == "link" else f"export {_export(found)}"
    lines.append(f"  after it: {after}")
    if move.cache and move.cache.traps:
        lines.append(f"  note: {move.cache.traps}")
    lines += [f"  not now: {problem}" for problem in found.problems]
    lines += ["  not now: it does not fit"] if found.fits is False else []
    return "\n".join(lines)


def _document(found: MovePlan, done: Moved | None = None) -> dict[str, Any]:
    move = found.move
    return {
        "cache": move.cache.id if move.cache else None,
        "source": str(move.source),
        "target": str(move.target),
        "how": move.how,
        "bytes": found.bytes,
        "files": found.files,
        "verified_bytes": found.verified_bytes,
        "shared_bytes": found.shared_bytes,
        "need_bytes": found.need_bytes,
        "free_bytes": found.room.free_bytes,
        "limited_by": found.room.source,
        "fits": found.fits,
        "same_volume": found.is_same_volume,
        "problems": list(found.problems),
        "already_there": found.is_there,
        "export": move.export if move.how == "env" else None,
        "moved": done is not None,
        "freed_bytes": done.freed_bytes if done else None,
        "kept": done.kept if done else None,
    }


class _Teller:
    """Says each step, and how far the copy is every two seconds."""

    def __init__(self, found: MovePlan, *, quiet: bool) -> None:
        self.total, self.done, self.quiet = found.bytes, found.verified_bytes, quiet
        self.last = time.monotonic()

    def say(self, step: str | int) -> None:
        if isinstance(step, int):
            self.done += step
            if time.monotonic() - self.last < _SECONDS_BETWEEN_LINES:
                return
            self.last = time.monotonic()
            step = f"copied and verified {show_bytes(self.done)} of {show_bytes(self.total)}"
        if not self.quiet:
            print(step, flush=True)
