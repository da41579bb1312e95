"""Which volume each cache should live on. Pure: takes what was seen of the machine, returns what to set and why.

Measured free bytes decide; what is known of the platform only breaks ties and says what outlives the session. What the
user has set is kept. Nothing is moved without a gain: on a machine whose home is roomy the layout is empty.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from outlast.caches.catalogue import Place, by_id, expanded, place_of, places
from outlast.caches.rows import CATALOGUE, Cache, Cost
from outlast.host import Room, show_bytes

ENOUGH_BYTES = {"data": 100 * 10**9, "small": 20 * 10**9}
"""By role: more free than this makes a volume no better."""
GAIN = 2
"""A cache moves to a volume with so many times the room, of what counts of it."""
FEW_INODES = 20_000
"""A cache of many small files finds no home where fewer files than this can be made."""
UNFIT = frozenset(
    {"fuse.drive", "fuse.gcsfuse", "fuse.s3fs", "fuse.goofys", "fuse.mountpoint-s3", "fuse.rclone", "drvfs"}
)
"""File systems over object stores and drives: without links, locks or renames that caches rely on."""
OFFERED = "offered"
"""Role of a site that the user named: the first choice wherever it has the room."""
_LIKED = {"data": ("scratch", "kept", "", "roomy", OFFERED), "small": ("kept", "", "roomy", "scratch", OFFERED)}
"""Roles of spots, the best last: of volumes with enough room."""


@dataclass(frozen=True, slots=True)
class Site:
    """A place where caches could live, or one where some live now."""

    path: Path
    """Absolute."""
    room: Room
    """What can be written there."""
    role: str = ""
    """What the platform says of it: a role of `host.Spot`; empty when it says nothing."""
    kept: bool | None = None
    """Whether it outlives the session; None when that is not known."""
    writable: bool = True
    """False where this user may not make a folder."""
    shared: bool = False
    """True where other users may make folders too: ours then gets our name."""

    @property
    def is_local(self) -> bool:
        """False for a network volume and for memory, as far as the kernel tells."""
        mount = self.room.mount
        return mount is None or not (mount.is_network or mount.is_memory)

    @property
    def is_memory(self) -> bool:
        """True where files are pages of memory."""
        return self.room.mount is not None and self.room.mount.is_memory

    @property
    def free_bytes(self) -> int | None:
        """Bytes that are ours to write; None when unknown, as on a network volume that shows the cluster's."""
        return None if self.room.is_clusters else self.room.free_bytes


@dataclass(frozen=True, slots=True)
class Setting:
    """A variable to set, or to unset."""

    variable: str
    """Its name."""
    value: str | None
    """An absolute path; None unsets it."""
    caches: tuple[str, ...]
    """Ids of the caches that it moves."""
    why: str
    """A sentence."""


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that the user should know."""

    subject: str
    """A variable or the id of a cache."""
    what: str
    """What is so."""
    fix: str = ""
    """What to do about it; empty when nothing needs to be done."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What to set."""

    settings: tuple[Setting, ...] = ()
    """In the order of the catalogue; empty when all is well where it is."""
    remarks: tuple[Remark, ...] = ()
    """What was kept, what nobody reads, what was found."""

    @property
    def folders(self) -> tuple[Path, ...]:
        """Folders that the settings need."""
        return tuple(Path(setting.value) for setting in self.settings if setting.value is not None)

    def applied(self, environment: Mapping[str, str]) -> dict[str, str]:
        """An environment under this layout."""
        changed = {setting.variable: setting.value for setting in self.settings}
        kept = {name: value for name, value in environment.items() if name not in changed}
        return kept | {name: value for name, value in changed.items() if value is not None}


def mend(environment: Mapping[str, str], cwd: Path) -> Layout:
    """What is wrong with the user's own values: a literal ``~`` or ``$HOME``, a relative path, an empty or a dead one.

    Libraries expand differently: one such value puts their caches into several folders. Absolute paths are read alike.

    Args:
        environment: variables.
        cwd: folder that relative values start from.
    """
    settings: list[Setting] = []
    remarks: list[Remark] = []
    for variable, readers in _readers().items():
        if variable not in environment:
            continue
        value = environment[variable]
        if not readers:
            remarks.append(_dead(variable))
            continue
        ids = tuple(cache.id for cache in readers)
        if not value:
            if any(cache.blank for cache in readers):
                why = "it is set to nothing: its caches are in whatever folder a command runs in"
                settings.append(Setting(variable, None, ids, why))
            continue
        remarks += _mended(variable, value, readers, environment, cwd, settings)
    return Layout(tuple(settings), tuple(remarks))


def _mended(
    variable: str,
    value: str,
    readers: Sequence[Cache],
    environment: Mapping[str, str],
    cwd: Path,
    settings: list[Setting],
) -> list[Remark]:
    if any(cache.separator and cache.separator in value for cache in readers):
        return []
    text = expanded(value, environment)
    if text.startswith("~") or "$" in text:
        fix = f"export {variable}=/an/absolute/path"
        return [Remark(variable, f"{value!r} holds a name that nothing stands for: a folder of that very name", fix)]
    whole = os.path.normpath(cwd / text)
    moved = _moved(places(environment, cwd=cwd), {**environment, variable: whole}, cwd)
    if moved:
        why = f"not all libraries expand {value!r}: these use a folder of that very name"
        settings.append(Setting(variable, whole, moved, why))
    elif not text.startswith("/"):
        without = {name: other for name, other in environment.items() if name != variable}
        placed = _moved(places(environment, cwd=cwd), without, cwd) or tuple(cache.id for cache in readers)
        if any(by_id(name).role in ENOUGH_BYTES for name in placed):
            why = f"{value!r} is relative: another cache for each folder that a command runs in"
            settings.append(Setting(variable, whole, placed, why))
    return []


def _readers() -> dict[str, tuple[Cache, ...]]:
    """Variables that place caches, and the rows that read each; none for a dead one."""
    found: dict[str, list[Cache]] = {name: [] for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME")}
    for cache in CATALOGUE:
        named = re.findall(r"\{([A-Z_]+):", cache.default or "")
        for variable in (*cache.variables, *named):
            found.setdefault(variable, []).extend([] if cache.ignored else [cache])
        for word, variable in (("{xdg}", "XDG_CACHE_HOME"), ("{data}", "XDG_DATA_HOME")):
            if word in (cache.default or ""):
                found[variable].append(cache)
    return {variable: tuple(readers) for variable, readers in found.items()}


def _dead(variable: str) -> Remark:
    what = "nobody reads it any more (transformers before 5 did)"
    return Remark(variable, what, f"unset {variable}; HF_HUB_CACHE is what is read")


def _moved(before: Mapping[str, Place], after: Mapping[str, str], cwd: Path) -> tuple[str, ...]:
    new = places(after, cwd=cwd)
    return tuple(name for name, old in before.items() if name in new and old.path != new[name].path)


def decide(
    sites: Sequence[Site],
    found: Mapping[str, Site],
    environment: Mapping[str, str],
    cwd: Path,
    *,
    present: frozenset[str] = frozenset(),
) -> Layout:
    """Where each cache should live.

    Args:
        sites: where caches could live.
        found: for each cache, by id, what it is on now.
        environment: variables, mended.
        cwd: the current folder.
        present: ids of the caches that hold something now.
    """
    values = dict(environment)
    settings: list[Setting] = []
    remarks: list[Remark] = []
    before = places(environment, cwd=cwd)
    for cache in CATALOGUE:
        now = place_of(cache, values, cwd)
        if now is None or cache.id not in found or not cache.variables or cache.ignored:
            continue
        here = found[cache.id]
        if now.variable in {setting.variable for setting in settings}:
            continue  # it goes along with one that moves
        if now.variable is not None:
            remarks += _kept(cache, now, here, sites)
        elif now.path == before[cache.id].path and (there := _better(cache, here, sites)):
            if cache.cost is Cost.NEVER and cache.id in present:
                remarks.append(_stays(cache, now, there))
                continue
            path = _folder(there, cache)
            values[cache.variables[0]] = str(path)
            settings.append(Setting(cache.variables[0], str(path), (), _why(cache, here, there)))
            if cache.id in present:
                remarks.append(_left_behind(cache, now, path))
    moved = [_with_caches(setting, environment, cwd, before) for setting in settings]
    return Layout(tuple(moved), tuple(remarks))


def _with_caches(setting: Setting, environment: Mapping[str, str], cwd: Path, before: Mapping[str, Place]) -> Setting:
    assert setting.value is not None
    return replace(setting, caches=_moved(before, {**environment, setting.variable: setting.value}, cwd))


def _better(cache: Cache, here: Site, sites: Sequence[Site]) -> Site | None:
    """The site that a cache should move to; None when it is well where it is, or nothing better is known."""
    others = [site for site in sites if site.writable and not site.is_memory and not _is_same(site, here)]
    if cache.role == "results":
        kept = [site for site in others if site.kept and here.kept is False]
        return max(kept, key=lambda site: site.free_bytes or 0, default=None)
    if cache.role == "data":
        others = [site for site in others if site.role != "small" and not _is_unfit(site)]
    elif cache.role == "small":
        others = [site for site in others if site.is_local and not _has_few_inodes(site)]
    else:
        return None
    mine = _worth(cache.role, here)
    best = max(others, key=lambda site: _rank(cache.role, site), default=None)
    if best is None or mine is None:
        return None
    worth = _worth(cache.role, best) or 0
    return best if worth > 0 and worth >= GAIN * mine else None


def _is_same(one: Site, other: Site) -> bool:
    """True when a move would gain nothing: one volume, held to one limit (a budget or quota may hold a part of it)."""
    if one.path == other.path:
        return True
    return one.room.device is not None and (one.room.device, one.room.source) == (other.room.device, other.room.source)


def _worth(role: str, site: Site) -> int | None:
    """The free bytes that count; what the platform says stands in where they cannot be measured. None: unknown."""
    if site.is_memory or not site.writable:
        return 0
    if role == "small" and (not site.is_local or _has_few_inodes(site)):
        return 0
    free = site.free_bytes
    if free is None:
        return {"roomy": ENOUGH_BYTES[role], "kept": ENOUGH_BYTES[role] // 2}.get(site.role)
    return min(max(free, 0), ENOUGH_BYTES[role])


def _rank(role: str, site: Site) -> tuple[int, int, int, str]:
    liked = _LIKED[role].index(site.role) if site.role in _LIKED[role] else 0
    return _worth(role, site) or 0, liked, site.free_bytes or 0, str(site.path)


def _is_unfit(site: Site) -> bool:
    return site.room.mount is not None and site.room.mount.fstype in UNFIT


def _has_few_inodes(site: Site) -> bool:
    return site.room.free_inodes is not None and site.room.free_inodes < FEW_INODES


def _folder(site: Site, cache: Cache) -> Path:
    base = site.path / f"outlast-{os.getuid()}" if site.shared else site.path
    if cache.role == "results":
        # An owner that appends a name of its own needs none of ours.
        return base / "results" if cache.suffix else base / "results" / cache.id
    return base / ".cache" / _tail(cache)


def _tail(cache: Cache) -> str:
    """The name of a cache below a folder of caches, as its default has it: ``huggingface/hub``, ``triton/cache``."""
    text = cache.default or cache.id
    while match := re.match(r"\{(?:[A-Z_]+:)?([a-z-]+)\}", text):
        parent = next((row for row in CATALOGUE if row.id == match[1]), None)
        text = (parent.default or parent.id if parent else "") + text[match.end() :]
    text = re.sub(r"\{[a-z]+\}", "", text)
    return "/".join(part.strip("._") for part in text.split("/") if part.strip("._") and part != ".cache")


def _why(cache: Cache, here: Site, there: Site) -> str:
    if cache.role == "results":
        return f"results: {here.path} ends with the session, {there.path} is kept"
    where = f"{show_bytes(here.free_bytes)} free at {here.path}, {show_bytes(there.free_bytes)} at {there.path}"
    if here.is_memory:
        return f"{here.path} is memory; {show_bytes(there.free_bytes)} free at {there.path}"
    if cache.role == "small" and not here.is_local:
        return f"many small files, and {here.path} is a network volume; {there.path} is local"
    if cache.role == "small" and _has_few_inodes(here):
        return f"only {here.room.free_inodes} more files can be made at {here.path}"
    return where


def _kept(cache: Cache, place: Place, here: Site, sites: Sequence[Site]) -> list[Remark]:
    there = None if place.literal else _better(cache, here, sites)
    if there is None or cache.role == "none":
        return []
    return [Remark(str(place.variable), f"kept as you set it, though: {_why(cache, here, there)}")]


def _stays(cache: Cache, place: Place, there: Site) -> Remark:
    why = "it ends with the session" if cache.role == "results" else "there is little room"
    return Remark(cache.id, f"{place.path} holds {cache.holds}, and {why}", f"copy it to {there.path}")


def _left_behind(cache: Cache, place: Place, path: Path) -> Remark:
    command = shlex.join(["outlast", "migrate", str(place.path), str(path), "--env"])
    return Remark(cache.id, f"what is in {place.path} already stays there, and is not found", command)
