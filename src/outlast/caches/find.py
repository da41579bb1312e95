"""All that could be freed on this machine: each cache of the catalogue by its own rules, and what the user names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from outlast.caches import entries, hub
from outlast.caches.catalogue import Cache, Cost, Place, Sweep, places
from outlast.caches.plan import Item
from outlast.caches.survey import Survey, refusal
from outlast.checkpoints import Vault, vaults_of
from outlast.errors import BadInput
from outlast.journal import FOLDER

TRASH = Path(FOLDER, "trash")
"""Below a cache's folder: what is on its way out."""
_NAMED = Cache("named", "you", (), "{cwd}", "what you named", Sweep.NEVER, Cost.NEVER, role="none")


@dataclass(frozen=True, slots=True)
class Skipped:
    """A cache that was not looked into."""

    cache: str
    """Its id."""
    path: Path
    """Where it is."""
    reason: str
    """Why."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """What was found."""

    items: tuple[Item, ...]
    """Things that could go, and things that are in use."""
    skipped: tuple[Skipped, ...]
    """Caches that are there and were left out, each with its reason."""


def inventory(
    environment: Mapping[str, str] | None = None,
    *,
    named: Sequence[Path] = (),
    only: frozenset[str] = frozenset(),
    survey: Survey | None = None,
    cwd: Path | None = None,
) -> Inventory:
    """Look at every cache that is there.

    Args:
        environment: variables that say where caches are; None takes those of the process.
        named: further files and folders that the user wants to be rid of.
        only: ids of caches to look at; empty for all.
        survey: who uses what; None looks now.
        cwd: the current folder; None takes the process's.

    Raises:
        BadInput: for a named path that is not there, or that must not be deleted.
    """
    here = Path.cwd() if cwd is None else cwd
    seen = survey or Survey()
    values = os.environ if environment is None else environment
    home = Path(os.path.realpath(values.get("HOME") or Path.home()))
    found: list[Item] = []
    skipped: list[Skipped] = []
    done: set[Path] = set()
    all_places = places(values, cwd=here)
    roots = frozenset(Path(os.path.realpath(place.path)) for place in all_places.values())
    for place in all_places.values():
        root = Path(os.path.realpath(place.path))
        if root in done or not root.is_dir() or (only and place.cache.id not in only):
            continue
        done.add(root)
        if reason := _left_out(place, home, here):
            skipped.append(Skipped(place.cache.id, place.path, reason))
        else:
            found += _items(place.cache, root, seen, roots - {root})
    found += [_named(path, home, here, seen) for path in named]
    return Inventory(tuple(found), tuple(skipped))


def _left_out(place: Place, home: Path, cwd: Path) -> str | None:
    cache = place.cache
    if cache.sweep is Sweep.TOOL:
        return f"its owner frees it: {' '.join(cache.command)}" if cache.command else "its owner alone may free it"
    if cache.sweep is Sweep.NEVER:
        return f"never: {cache.holds}"
    if cache.sweep is not Sweep.HUB and cache.id not in entries.SHAPES:
        return "its things cannot be told from yours"
    return refusal(place.path, home, cwd)


def _items(cache: Cache, root: Path, survey: Survey, apart: frozenset[Path]) -> Iterator[Item]:
    yield from _debris(cache, root, survey)
    if cache.sweep is Sweep.HUB:
        yield from hub.items(cache, root, survey)
    else:
        yield from entries.items(cache, root, survey, apart)


def _debris(cache: Cache, root: Path, survey: Survey) -> Iterator[Item]:
    """What a clean that was cut short has left in the trash."""
    with suppress(OSError):
        if (root / FOLDER).is_symlink() or (root / TRASH).is_symlink():
            return
        for entry in os.scandir(root / TRASH):
            path = Path(entry.path)
            seen = survey.look([path], idle_minutes=0)
            yield Item(
                cache.id, "debris", f"{cache.id}: a deletion that did not finish", root, (path,), Cost.SECONDS,
                seen.single_bytes, seen.linked, (), seen.files, seen.newest, seen.problem or seen.used,
            )  # fmt: skip


def _named(path: Path, home: Path, cwd: Path, survey: Survey) -> Item:
    where = Path(os.path.normpath(cwd / path.expanduser()))
    hint = "outlast clean lists what is in the caches; a path of your own must be a file or folder that is there"
    if not os.path.lexists(where):
        raise BadInput(f"{path} is not there", hint=hint)
    real = Path(os.path.realpath(where.parent)) / where.name
    reason = refusal(real, home, cwd) if not real.is_symlink() else "it is a link; name what it leads to"
    if reason:
        raise BadInput(f"{path} is not deleted: {reason}", hint="name a folder inside it")
    seen = survey.look([real], idle_minutes=_NAMED.idle_minutes)
    return Item(
        "named", "named", str(path), real.parent, (real,), Cost.NEVER, seen.single_bytes, seen.linked, (), seen.files,
        seen.newest, seen.problem or seen.used, _checkpoints_in(real),
    )  # fmt: skip


def _checkpoints_in(path: Path) -> str:
    roots = vaults_of(path, journaled=False) if path.is_dir() else []
    sealed = [checkpoint for root in roots for checkpoint in Vault(root).checkpoints()]
    if not sealed:
        return ""
    return f"it holds {len(sealed)} sealed checkpoints, the newest of step {max(c.step for c in sealed)}"
