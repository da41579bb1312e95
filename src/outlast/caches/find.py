"""All that could be freed on this machine: each cache of the catalogue by its own rules, and what the user names."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
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
    home = Path(os.path.realpath(values.get("HOME") or "/"))
    found: list[Item] = []
    skipped: list[Skipped] = []
    done: set[Path] = set()
    all_places = places(values, cwd=here)
    roots = frozenset(Path(os.path.realpath(place.path)) for place in all_places.values())
    for place in all_places.values():
        root = Path(os.path.realpath(place.path))
        if root in done or not os.path.isdir(root) or (only and place.cache.id not in only):
            continue
        done.add(root)
        if reason := _left_out(place, home, here):
            skipped.append(Skipped(place.cache.id, place.path, reason))
        else:
            found += _items(place.cache, root, seen, roots - {root})
    there = _there(all_places.values())
    found = [_apart(item, there) for item in found]
    precious = _there(place for place in all_places.values() if _is_precious(place)) if named else {}
    for path in named:
        found += _named(path, home, here, seen, precious)
    return Inventory(tuple(found), tuple(skipped))


def _is_precious(place: Place) -> bool:
    """What must not go even when it is named. Results beside a script are what people name when they want them gone."""
    is_output = place.variable is None and str(place.cache.default).startswith("{cwd}")
    return place.cache.sweep is Sweep.NEVER and not is_output


def _there(all_places: Iterable[Place]) -> dict[Path, Place]:
    """Caches that exist, under their own path and each folder above it."""
    found: dict[Path, Place] = {}
    for place in all_places:
        real = Path(os.path.realpath(place.path))
        if os.path.lexists(real):
            found.update(dict.fromkeys((real, *real.parents), place))
    return found


def _apart(item: Item, there: Mapping[Path, Place]) -> Item:
    """A thing in which another cache lies stays: what is in that has rules of its own, and may be your login."""
    inner = next((there[path] for path in item.paths if path in there), None)
    return item if inner is None else replace(item, in_use=f"it holds another cache: {inner.cache.id}, {inner.path}")


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
    for path in _trash_of(root):
        seen = survey.look([path], idle_minutes=0)
        yield Item(
            cache.id, "debris", f"{cache.id}: a deletion that did not finish", root, (path,), Cost.SECONDS,
            seen.single_bytes, seen.linked, (), seen.files, seen.newest, seen.written, seen.problem or seen.used,
        )  # fmt: skip


def _named(path: Path, home: Path, cwd: Path, survey: Survey, precious: Mapping[Path, Place]) -> list[Item]:
    where = Path(os.path.normpath(cwd / path))
    hint = "outlast clean lists what is in the caches; a path of your own must be a file or folder that is there"
    real = Path(os.path.realpath(where.parent)) / where.name
    # A deletion of it that was cut short: in the trash it has its name, a dot, and eight letters.
    left = [one for one in _trash_of(real.parent) if one.name.startswith(f"{real.name[:60]}.")]
    if not os.path.lexists(real) and not left:
        raise BadInput(f"{path} is not there", hint=hint)
    if not os.path.lexists(real):
        return [_of_your_own(one, real.parent, "debris", Cost.SECONDS, f"{path}, half deleted", survey) for one in left]
    reason = refusal(real, home, cwd) if not real.is_symlink() else "it is a link; name what it leads to"
    if real in precious:
        reason = reason or f"it holds {precious[real].cache.holds} ({precious[real].path})"
    if pinned := _pinned_in(real):
        reason = reason or f"it holds a pinned checkpoint: {pinned}"
    if reason:
        raise BadInput(f"{path} is not deleted: {reason}", hint="name a folder inside it")
    return [_of_your_own(real, real.parent, "named", Cost.NEVER, str(path), survey)]


def _of_your_own(path: Path, root: Path, kind: str, cost: Cost, name: str, survey: Survey) -> Item:
    seen = survey.look([path], idle_minutes=_NAMED.idle_minutes if kind == "named" else 0, named=True)
    return Item(
        "named", kind, name, root, (path,), cost, seen.single_bytes, seen.linked, (), seen.files,
        seen.newest, seen.written, seen.problem or seen.used, _checkpoints_in(path),
    )  # fmt: skip


def _trash_of(folder: Path) -> list[Path]:
    if (folder / FOLDER).is_symlink() or (folder / TRASH).is_symlink():
        return []
    with suppress(OSError):
        return sorted(Path(entry.path) for entry in os.scandir(folder / TRASH))
    return []


def _pinned_in(path: Path) -> Path | None:
    checkpoints = (c for root in _vaults(path) for c in Vault(root).checkpoints())
    return next((checkpoint.path for checkpoint in checkpoints if checkpoint.is_pinned), None)


def _vaults(path: Path) -> list[Path]:
    return vaults_of(path, journaled=False) if os.path.isdir(path) else []


def _checkpoints_in(path: Path) -> str:
    sealed = [checkpoint for root in _vaults(path) for checkpoint in Vault(root).checkpoints()]
    if not sealed:
        return ""
    return f"it holds {len(sealed)} sealed checkpoints, the newest of step {max(c.step for c in sealed)}"
