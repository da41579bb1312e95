"""What the layout is decided from on this machine, and making its folders."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from outlast.caches.catalogue import places
from outlast.caches.layout import OFFERED, Layout, Site, decide, mend
from outlast.errors import OutlastError
from outlast.host import Platform, Room, Spot, existing, recognise, room, spots_here


@dataclass(frozen=True, slots=True)
class Here:
    """This machine, as far as caches are concerned."""

    platform: Platform
    """Which it is."""
    sites: tuple[Site, ...]
    """Where caches could live."""
    layout: Layout
    """What to set."""


def look(
    environment: Mapping[str, str] | None = None,
    *,
    root: Path = Path("/"),
    cwd: Path | None = None,
    more: Sequence[Path] = (),
    measure: Callable[[Path], Room] = room,
) -> Here:
    """Decide the layout for this machine.

    Args:
        environment: variables; None takes those of the process.
        root: root of the file system; a fake one in tests.
        cwd: the current folder; None takes the process's.
        more: further folders that the user offers, on roomy volumes.
        measure: what can be written at a path.
    """
    values = dict(os.environ if environment is None else environment)
    folder = Path.cwd() if cwd is None else cwd
    platform = recognise(values, root=root)
    spots = [Spot(os.path.normpath(folder / path), OFFERED) for path in more]
    spots += _spots(platform, values, root)
    mended = mend(values, folder)
    values = mended.applied(values)
    rooms: dict[Path, Room] = {}
    volumes: dict[object, Room] = {}

    def site(path: Path) -> Site:
        there = existing(path)
        if there not in rooms:
            now = measure(there)
            # One figure for each volume: a write between two looks must not make one of its folders the roomier.
            known = volumes.setdefault((now.device, now.source, now.path if now.device is None else None), now)
            rooms[there] = replace(known, path=now.path)
        return _site(path, rooms[there], spots)

    found = {name: place for name, place in places(values, cwd=folder).items() if place.cache.variables}
    home = Path(values.get("HOME") or "/")
    sites = [site(Path(spot.path)) for spot in spots if os.path.isdir(spot.path)]
    sites += [site(path) for path in (home,) if os.path.isdir(path) and all(path != one.path for one in sites)]
    decided = decide(
        sites,
        {name: site(place.path) for name, place in found.items()},
        values,
        folder,
        present=frozenset(name for name, place in found.items() if holds_something(place.path)),
    )
    layout = Layout(mended.settings + decided.settings, mended.remarks + decided.remarks)
    return Here(platform, tuple(sites), layout)


def _spots(platform: Platform, values: Mapping[str, str], root: Path) -> list[Spot]:
    """The platform's spots as paths that can be opened from here, also where the root is a fake one."""
    prefix = str(root).rstrip("/")
    inside = {name: value.removeprefix(prefix) or "/" for name, value in values.items()}
    return [replace(spot, path=prefix + spot.path) for spot in spots_here(platform, inside, root=root)]


def _site(path: Path, measured: Room, spots: Sequence[Spot]) -> Site:
    covering = [spot for spot in spots if path == Path(spot.path) or Path(spot.path) in path.parents]
    nearest = max(covering, key=lambda spot: len(spot.path), default=None)
    shared = False
    with suppress(OSError):
        shared = bool(os.stat(measured.path).st_mode & stat.S_IWOTH)
    return Site(
        path if nearest is None or path == Path(nearest.path) else measured.path,
        measured,
        nearest.role if nearest else "",
        nearest.kept if nearest else None,
        os.access(measured.path, os.W_OK | os.X_OK),
        shared,
    )


def holds_something(path: Path) -> bool:
    """True for a folder with anything in it."""
    try:
        with os.scandir(path) as entries:
            return any(True for _ in entries)
    except OSError:
        return False


def make_folders(layout: Layout) -> tuple[Path, ...]:
    """Make the folders of a layout, for this user alone where others may write beside them.

    Returns:
        The folders that were not there before, parents first.

    Raises:
        OutlastError: when one cannot be made or is somebody else's; what was made by then is gone again.
    """
    made: list[Path] = []
    try:
        for folder in layout.folders:
            _make(folder, made)
    except OSError as error:
        for path in reversed(made):
            with suppress(OSError):
                path.rmdir()
        reason = error.strerror or str(error)
        raise OutlastError(
            f"{error.filename or folder} cannot be made: {reason}",
            hint="choose another folder for it: set the variable yourself, or offer a volume with --volume DIR",
        ) from error
    return tuple(made)


def _make(folder: Path, made: list[Path]) -> None:
    missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    for path in reversed(missing):
        private = bool(os.stat(path.parent).st_mode & stat.S_IWOTH)
        with suppress(FileExistsError):  # another process of ours was quicker
            path.mkdir(mode=0o700 if private else 0o777)
            made.append(path)
    info = os.stat(folder)
    if not stat.S_ISDIR(info.st_mode):
        raise NotADirectoryError(20, "it is a file", str(folder))
    beside_others = next((one for one in (folder, *folder.parents) if _is_open_to_all(one.parent)), None)
    if beside_others is not None and os.lstat(beside_others).st_uid != os.geteuid():
        raise PermissionError(1, "it belongs to another user", str(beside_others))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(13, "it may not be written to", str(folder))


def _is_open_to_all(folder: Path) -> bool:
    return bool(os.stat(folder).st_mode & stat.S_IWOTH)
