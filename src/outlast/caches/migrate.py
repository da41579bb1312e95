"""Moving an existing cache to another volume: copy, verify, switch, delete. Resumable after a kill at any moment.

What a second run goes by is on disk. Beside the target, in ``.NAME.outlast-migrate``: ``state.json`` (which move this
is, and whether deleting has begun), ``verified.jsonl`` (what of the copy has been read back) and ``tree``, the copy,
until it is renamed to the target. Beside the source ``.NAME.outlast-moved``: the source after the switch, until it is
deleted. At every instant the source, or the target, or what the source was renamed to, is whole.
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from outlast import durable
from outlast.caches.copying import Copier, Log
from outlast.caches.move import Look, Move, MovePlan, is_folder, state_of, users
from outlast.caches.trees import Tree, differences, scan
from outlast.errors import NoRoom, OutlastError
from outlast.journal import Journal

_ROUNDS = 4
_EXCHANGE = 2  # RENAME_EXCHANGE
_HERE = -100  # AT_FDCWD
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Moved:
    """What a move did."""

    move: Move
    """From where to where."""
    freed_bytes: int
    """Blocks that are gone from the source's volume."""
    kept: str | None
    """Why the source's old files are still there; None when they are gone."""


def carry_out(
    found: MovePlan, journal: Journal, *, say: Callable[[str | int], None] = lambda step: None, look: Look = users
) -> Moved:
    """Do what was planned, or what is left of it.

    Args:
        found: the plan.
        journal: where each step is written down.
        say: called with each step, for people, and with the bytes of each file that was copied and verified.
        look: finds who uses a tree.

    Raises:
        NoRoom: when the copy does not fit.
        OutlastError: when the source is in use or changes, or the copy does not verify. The source is whole then.
    """
    move = found.move
    if found.is_there:
        with suppress(OSError):
            move.staging.rmdir()  # a kill came just before this last step
        return Moved(move, 0, None)
    if found.problems:
        raise OutlastError(found.problems[0], hint="end what uses it, then run this again; nothing was changed")
    if found.fits is False:
        raise NoRoom(
            f"{found.need_bytes:,} bytes are needed at {move.target}, "
            f"{max(0, found.room.free_bytes or 0):,} are free ({found.room.source})",
            hint="choose another volume, or make room there: outlast clean",
        )
    try:
        return _carry_out(move, journal, say, look)
    except OutlastError:
        raise
    except OSError as error:
        what = f"{error.filename or move.target}: {durable.why_not(error)}"
        journal.write("migrate_failed", source=str(move.source), target=str(move.target), reason=what)
        if error.errno in durable.FULL:
            raise NoRoom(what, hint=f"make room and run this again: it goes on; or delete {move.staging}") from error
        raise OutlastError(what, hint="run this again: it goes on where it was") from error


def _carry_out(move: Move, journal: Journal, say: Callable[[str | int], None], look: Look) -> Moved:
    facts = {"source": os.fspath(move.source), "target": os.fspath(move.target), "how": move.how}
    move.staging.mkdir(parents=True, exist_ok=True)
    with durable.locked(move.staging / "lock", wait=False) as is_ours:
        if not is_ours:
            raise OutlastError("another outlast migrate is at work there", hint="wait for it")
        if state_of(move) is None:
            durable.write_bytes(move.state, json.dumps({**facts, "phase": "copying"}).encode())
        journal.write("migrate_begun", **facts)
        if not move.is_switched:
            _copy(move, say, look)
            journal.write("migrate_copied", **facts)
            say(f"copied and verified: {move.target}")
        if (state_of(move) or {}).get("phase") != "deleting":
            _switch(move)
            journal.write("migrate_switched", **facts, backup=str(move.backup))
            say(f"switched: {move.source} is now at {move.target}")
            if reason := _changed(move) or next(iter(look(move.backup, move.cache)), None):
                journal.write("migrate_kept", **facts, backup=str(move.backup), reason=reason)
                return Moved(move, 0, f"{reason}; the old files stay in {move.backup}")
            durable.write_bytes(move.state, json.dumps({**facts, "phase": "deleting"}).encode())
        return _delete(move, journal, facts)


def _copy(move: Move, say: Callable[[str | int], None], look: Look) -> None:
    """Copy until the source and the copy are the same, then give the copy its name."""
    if not is_folder(move.copy) and is_folder(move.target) and os.listdir(move.target):
        _take_back(move)
    log = Log(move.log)
    wrong: dict[str, str] = {}
    for _ in range(_ROUNDS):
        tree = scan(move.source)
        if tree.odd:
            raise OutlastError(tree.odd[0], hint="move or delete it by hand, then run this again")
        Copier(move.source, move.copy, log, say).run(tree)
        if reasons := look(move.source, move.cache):
            raise OutlastError(reasons[0], hint="end what uses it, then run this again: it goes on")
        wrong = differences(scan(move.source), scan(move.copy), os.fspath(move.source), log.stamps)
        if not wrong:
            break
    else:
        path, what = next(iter(wrong.items()))
        raise OutlastError(
            f"{move.source / path} {what}: copied {_ROUNDS} times",
            hint="end what writes there, then run it again",
        )
    mode = os.stat(move.copy).st_mode & 0o7777
    move.copy.chmod(mode | 0o700)  # a read-only folder can be renamed, but not into another folder
    durable.sync_folder(move.staging)
    os.rename(move.copy, move.target)
    move.target.chmod(mode)
    durable.sync_folder(move.target.parent)


def _take_back(move: Move) -> None:
    """A kill came between the last two renames: the source may have changed since, so the copy is compared again."""
    if strange := scan(move.target).entries.keys() - scan(move.source).entries.keys():
        path = move.target / min(strange)
        raise OutlastError(f"{path} was made since the copy was finished", hint="move it away, then run this again")
    os.rename(move.target, move.copy)
    durable.sync_folder(move.staging)


def _switch(move: Move) -> None:
    if is_folder(move.source):
        if move.backup.is_symlink():
            move.backup.unlink()  # a kill came before the exchange
        if move.how == "env" or not _exchanged(move):
            os.rename(move.source, move.backup)
        durable.sync_folder(move.source.parent)
    _put_link(move)


def _exchanged(move: Move) -> bool:
    """Put a link in the source's place and the source in the backup's, at once; False where the kernel cannot."""
    try:
        move.backup.symlink_to(move.target)
    except OSError as error:
        # On a volume that is full to the last block a link can be made only once something was deleted.
        if error.errno not in durable.FULL:
            raise
        return False
    with suppress(AttributeError):
        names = os.fsencode(move.backup), os.fsencode(move.source)
        if _libc.renameat2(_HERE, names[0], _HERE, names[1], _EXCHANGE) == 0:
            return True
    move.backup.unlink()
    return False


def _put_link(move: Move) -> None:
    if move.how == "link" and not os.path.lexists(move.source):
        try:
            move.source.symlink_to(move.target)
            durable.sync_folder(move.source.parent)
        except OSError as error:
            if error.errno not in durable.FULL or not is_folder(move.backup):
                raise


def _changed(move: Move) -> str | None:
    """What was written between the last look at the source and the switch."""
    stamps = Log(move.log).stamps
    tree = scan(move.backup) if is_folder(move.backup) else Tree({}, ())
    leaders = tree.leaders()
    for path, entry in tree.entries.items():
        if entry.kind == "file":
            leader = leaders[entry.inode]
            if stamps.get(leader) != tree.entries[leader].stamp:
                return f"{move.backup / path} was written during the switch"
        if not os.path.lexists(move.target / path):
            return f"{move.backup / path} is not in {move.target}"
    return tree.odd[0] if tree.odd else None


def _delete(move: Move, journal: Journal, facts: Mapping[str, str]) -> Moved:
    freed, reason = 0, None
    if is_folder(move.backup):
        for path, entry in scan(move.backup).entries.items():
            if entry.kind == "folder" and entry.mode & 0o700 != 0o700:
                with suppress(OSError):
                    (move.backup / path).chmod(0o700)
        removal = durable.remove_tree(move.backup)
        durable.sync_folder(move.source.parent)
        freed, reason = removal.freed_bytes, removal.reason
    _put_link(move)
    journal.write("migrate_deleted", **facts, freed_bytes=freed, reason=reason)
    if reason is None:
        # The state goes last: while it is there, a run after a kill knows what is left to be done.
        for name in os.listdir(move.staging):
            if name != move.state.name:
                durable.remove_tree(move.staging / name)
        move.state.unlink(missing_ok=True)
        with suppress(OSError):
            move.staging.rmdir()
    return Moved(move, freed, reason)
