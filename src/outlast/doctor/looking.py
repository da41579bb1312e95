"""Looks at caches, bounded in time: broken repositories, dead downloads, locks, tokens, runs that were not uploaded."""

from __future__ import annotations

import array
import fcntl
import os
import re
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from outlast.caches import Place, is_repository, places
from outlast.doctor.facts import Access, CacheFact, Hub, Interpreter, Lock, Partial
from outlast.durable import read_small
from outlast.host import OpenFiles, existing, lease, leases_are_safe, mount_at

_DIST = re.compile(r"(.+)-([^-]+)\.dist-info")
_GET_FLAGS, _IMMUTABLE = 0x80086601, 0x10  # FS_IOC_GETFLAGS, FS_IMMUTABLE_FL
_IDLE_SECONDS = 600.0
_OWN_VARIABLES = frozenset({"HOME", "USER", "TMPDIR", "XDG_CACHE_HOME"})
_TWICE = ("hf-hub", "hf-datasets", "torch")
"""Caches of large things, which one does not want twice."""


def access(path: Path) -> Access:
    """Whether we can write to an existing path, and what stands in the way."""
    try:
        info = os.stat(path)
        is_read_only = bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return Access(False, is_ours=False)
    is_writable = os.access(path, os.W_OK)
    is_ours = info.st_uid == os.geteuid()
    return Access(is_writable, is_ours, stat.S_IMODE(info.st_mode), is_read_only, not is_writable and _immutable(path))


def _immutable(path: Path) -> bool:
    flags = array.array("i", [0])
    with suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, _GET_FLAGS, flags)
        finally:
            os.close(fd)
    return bool(flags[0] & _IMMUTABLE)


def caches(environment: Mapping[str, str], cwd: Path) -> dict[str, CacheFact]:
    """Every cache of the catalogue, as it is on disk."""
    here = places(environment, cwd=cwd)
    plain = places({name: value for name, value in environment.items() if name in _OWN_VARIABLES}, cwd=cwd)
    return {name: _cache(place, plain.get(name), environment) for name, place in here.items()}


def _cache(place: Place, plain: Place | None, environment: Mapping[str, str]) -> CacheFact:
    path = place.path
    is_there = os.path.isdir(path)
    there = existing(path)
    mount = mount_at(there)
    others: tuple[Path, ...] = ()
    if place.cache.id in _TWICE and plain and _is_filled(plain.path) and not _is_same(plain.path, path):
        others = (plain.path,)
    return CacheFact(
        place, is_there or os.path.exists(path), access(path) if is_there else None, others,
        mount is not None and mount.is_memory, os.stat(there).st_dev,
    )  # fmt: skip


def _is_same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _is_filled(path: Path) -> bool:
    with suppress(OSError), os.scandir(path) as entries:
        return any(entry.is_dir() and not entry.name.startswith(".") for entry in entries)
    return False


def hub(root: Path, seconds: float, *, now: float | None = None, clock: Callable[[], float] = time.monotonic) -> Hub:
    """A look through the hub's cache that ends after so many seconds.

    Args:
        root: its folder.
        seconds: how long it may take.
        now: seconds since the epoch; None asks the system.
        clock: the clock that is looked at.
    """
    end = clock() + seconds
    repos = sorted(entry.path for entry in _entries(root) if is_repository(entry.name) and entry.is_dir())
    broken: list[tuple[Path, Path]] = []
    partials: list[tuple[str, os.stat_result]] = []
    looked = 0
    for repo in repos:
        if clock() > end:
            break
        looked += 1
        partials += [
            (entry.path, entry.stat(follow_symlinks=False))
            for entry in _entries(f"{repo}/blobs")
            if entry.name.endswith(".incomplete")
        ]
        if link := next(_dangling(f"{repo}/snapshots", clock, end), None):
            broken.append((Path(repo), Path(link)))
    return Hub(looked, len(repos), tuple(broken), _judged(partials, time.time() if now is None else now))


def _judged(partials: list[tuple[str, os.stat_result]], now: float) -> tuple[Partial, ...]:
    opened = OpenFiles.now() if partials else OpenFiles((), ())
    with leases_are_safe():
        return tuple(
            Partial(
                Path(path),
                info.st_blocks * 512,
                now - info.st_mtime > _IDLE_SECONDS and opened.user_of(path) is None and lease(path) is True,
            )
            for path, info in partials
        )


def _dangling(folder: str, clock: Callable[[], float], end: float) -> Iterator[str]:
    stack = [folder]
    while stack and clock() <= end:
        for entry in _entries(stack.pop()):
            if entry.is_symlink():
                if _leads_nowhere(entry.path):
                    yield entry.path
            elif entry.is_dir(follow_symlinks=False):
                stack.append(entry.path)


def _leads_nowhere(link: str) -> bool:
    try:
        os.stat(link)  # noqa: PTH116 (a Path for each of thousands is slow)
    except FileNotFoundError:
        return True
    except OSError:
        return False  # not to be known
    return False


def _entries(folder: str | Path) -> list[os.DirEntry[str]]:
    with suppress(OSError), os.scandir(folder) as entries:
        return list(entries)
    return []


def locks(root: Path, *, now: float | None = None) -> tuple[Lock, ...]:
    """Lock files of torch's extension builder: ``NAME/lock``, or ``pyXX_cuYY/NAME/lock``."""
    paths = [path for pattern in ("*/lock", "*/*/lock") for path in root.glob(pattern) if path.is_file()]
    if not paths:
        return ()
    opened = OpenFiles.now()
    moment = time.time() if now is None else now
    with leases_are_safe():
        return tuple(
            Lock(path, max(0.0, moment - path.stat().st_mtime), opened.user_of(path), lease(path)) for path in paths
        )


def unsynced(folder: Path) -> tuple[Path, ...]:
    """Runs of wandb made offline and never uploaded: a ``.synced`` file beside the data tells of an upload."""
    runs = [path for path in folder.glob("offline-run-*") if os.path.isdir(path)]
    return tuple(sorted(path for path in runs if any(path.glob("*.wandb")) and not any(path.glob("*.wandb.synced"))))


def precision(environment: Mapping[str, str], settings: Path) -> tuple[str, str] | None:
    """Precision that accelerate is told to use, and by what: the variable, else ``accelerate config``'s file."""
    if value := environment.get("ACCELERATE_MIXED_PRECISION"):
        return value, "ACCELERATE_MIXED_PRECISION"
    with suppress(OSError, UnicodeDecodeError):
        path = settings / "default_config.yaml"
        if match := re.search(r"^mixed_precision:\s*['\"]?(\w+)", read_small(path).decode(), re.MULTILINE):
            return match[1], str(path)
    return None


def interpreter(python: Path, *, may_start: bool = False) -> Interpreter:
    """An interpreter's environment and packages.

    Args:
        python: its program.
        may_start: start it where its path does not tell (150 ms for a shim of pyenv's).
    """
    prefix = python.parent.parent
    if not (prefix / "pyvenv.cfg").exists():
        prefix = Path(os.path.realpath(python)).parent.parent
    packages = _packages(prefix)
    if packages is None and may_start and (told := _prefix(python)):
        prefix, packages = told, _packages(told)
    mount = mount_at(prefix) if os.path.isdir(prefix) else None
    place = str(mount) if mount is not None and mount.is_network else None
    return Interpreter(python, prefix, place, packages)


def _prefix(python: Path) -> Path | None:
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(
            [python, "-I", "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True,
            errors="replace", stdin=subprocess.DEVNULL, timeout=10.0, check=False,
        )  # fmt: skip
        if done.returncode == 0 and done.stdout.strip():
            return Path(done.stdout.strip())
    return None


def _packages(prefix: Path) -> dict[str, str] | None:
    folders = [path for kind in ("site-packages", "dist-packages") for path in prefix.glob(f"lib/python3*/{kind}")]
    found: dict[str, str] = {}
    for folder in folders:
        for entry in _entries(folder):
            if match := _DIST.fullmatch(entry.name):
                found.setdefault(match[1].lower().replace("_", "-"), match[2])
    return found if folders else None
