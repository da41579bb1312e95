"""A folder of checkpoints put in order at a start: what a kill can leave, and what becomes of it.

A staged save with a seal that verifies is committed, one without is removed; what is in the trash is removed; a
checkpoint without a seal is adopted when it is whole, and set aside otherwise. Any step can be cut short and
done again.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from outlast import durable
from outlast.checkpoints import _alive, layouts
from outlast.checkpoints import seal as seals
from outlast.checkpoints.shelf import is_offered
from outlast.errors import SealError
from outlast.journal import FOLDER

if TYPE_CHECKING:
    from outlast.checkpoints.vault import Vault


_NO_JUDGEMENT = frozenset({errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE})
"""Errors that say nothing of what is in a file."""


def recover(vault: Vault, *, settles: bool = True) -> None:
    """Finish or sweep what a kill interrupted, adopt or set aside what has no seal.

    Does nothing while another process is saving here: its stage is alive.

    Args:
        vault: the folder, with Outlast's own folders made.
        settles: False leaves what has no seal alone, where its name does not tell who wrote it.
    """
    with durable.locked(vault.own / "save.lock", wait=False) as is_idle:
        if not is_idle:
            return
        with vault.changing():
            _finish_staged(vault)
            vault.empty_trash()
            _sweep_parts(vault)
            _alive.sweep(vault.own)
            if settles:
                _settle_unsealed(vault)


def _finish_staged(vault: Vault) -> None:
    for token in vault.children("stage"):
        for path in _staged_in(token):
            if _is_finished(vault, path):
                vault.commit(path)
                vault.journal.write("committed_late", path=str(vault.root / path.name))
        durable.remove_tree(token)


def _staged_in(token: Path) -> list[Path]:
    if not token.is_dir():
        return []
    folders = [path for path in token.iterdir() if path.is_dir() and path.name != FOLDER]
    seals_of_files = (token / FOLDER / "seals").glob("[!.]*.json")
    return sorted(folders) + sorted(token / path.name.removesuffix(".json") for path in seals_of_files)


def _is_finished(vault: Vault, staged: Path) -> bool:
    """True when a stage is sealed and whole, and not older than what has its name.

    Of one file the data may have its final name already: then the stage holds the seal alone.
    """
    final = vault.root / staged.name
    try:
        seal = seals.read(staged)
        where = staged if os.path.lexists(staged) else final
        if not seals.check(where, seal).is_whole:
            return False
    except (SealError, OSError):
        return False
    held = vault.open(staged.name)
    return held is None or held.kind is None or held.seal.created <= seal.created


def _sweep_parts(vault: Vault) -> None:
    for path in (vault.own / "seals").glob("[!.]*.json"):
        file = vault.root / path.name.removesuffix(".json")
        if file.is_symlink() or not os.path.lexists(file):
            # Its file was deleted, or a framework put a link in its place: it vouches for nothing.
            with suppress(OSError):
                path.unlink()
    parts = [*vault.root.glob(f"*/.{seals.NAME}.*.part"), *(vault.own / "seals").glob(".*.part")]
    for path in parts:
        if path.is_file() and not path.is_symlink() and not vault.look(path):
            with suppress(OSError):
                path.unlink()


def _settle_unsealed(vault: Vault) -> None:
    with os.scandir(vault.root) as entries:
        names = [entry.name for entry in entries if is_offered(entry)]
    for name in names:
        path = vault.root / name
        try:
            seals.read(path)
            if _open_kind(vault, name) is None:
                vault.quarantine(path, "files that its seal lists are missing or cut")
        except SealError as error:
            if not vault.look(path):
                _settle(vault, path, error)


def _made_at(path: Path) -> float:
    """When it was made: never after now, whatever the clock that wrote it said."""
    return min(time.time(), max((file.stat().st_mtime for file in seals.files_in(path).values()), default=time.time()))


def _is_unrelated(path: Path) -> bool:
    """A folder of the user's own that merely has a checkpoint's name."""
    if not path.is_dir() or layouts.is_partial(path, path.name):
        return False
    return any(entry.is_file() for entry in path.rglob("*")) and not any(path.glob("*.json"))


def _open_kind(vault: Vault, name: str) -> str | None:
    checkpoint = vault.open(name)
    return checkpoint.kind if checkpoint else None


def _settle(vault: Vault, path: Path, error: SealError) -> None:
    """Adopt a checkpoint that nobody sealed, or set it aside; leave what cannot be judged."""
    fault = None if "no seal" in error.message else error.message
    is_unreadable = isinstance(error.__cause__, OSError) and error.__cause__.errno in _NO_JUDGEMENT
    if is_unreadable or "this Outlast reads" in error.message or _is_unrelated(path):
        vault.journal.write("left_alone", path=str(path), reason=fault or "it holds nothing that a framework writes")
        return
    findings = layouts.inspect(path)
    if fault or findings.kind is None:
        vault.quarantine(path, fault or "; ".join(findings.problems))
        return
    try:
        seal = vault.seal_for(
            path, findings.step, findings.layout, {findings.kind: ()}, made="adopted", created=_made_at(path)
        )
        seals.write(path, seal)
    except (OSError, SealError) as error:
        vault.journal.write("not_adopted", path=str(path), reason=str(error))
        return
    vault.journal.write("adopted", path=str(path), step=findings.step, kind=findings.kind, layout=findings.layout)
