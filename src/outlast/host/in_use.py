"""Who has a file open or mapped. Nothing in use is deleted, and what cannot be known counts as in use.

Three witnesses, since none sees everything: the process table (only processes that we may look into, and only those of
this container), the kernel's write lease (any process on this kernel, also one that mapped the file and closed it; not
on every file system, not for other users' files), and the locks that libraries take on files of their own.
"""

from __future__ import annotations

import bisect
import errno
import fcntl
import os
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path


def users_of(path: Path, *, proc: Path = Path("/proc")) -> tuple[str, ...]:
    """Processes that have something at or below the path open, as ``PID (name)``; only those we may look into."""
    target = os.path.realpath(path)
    found = []
    with suppress(OSError):
        for entry in os.scandir(proc):
            if entry.name.isdigit() and _uses(entry.path, target):
                found.append(f"{entry.name} ({_name(entry.path)})")
    return tuple(found)


def _uses(process: str, target: str) -> bool:
    inside = target + "/"
    if any(link == target or link.startswith(inside) for link in _descriptors(process)):
        return True
    maps = _maps(process)
    return f" {inside}" in maps or f" {target}\n" in maps


def _descriptors(process: str) -> Iterator[str]:
    for name in ("cwd", "exe"):  # a program works in its folder, and runs from its file, with nothing open there
        with suppress(OSError):
            yield os.readlink(f"{process}/{name}")  # noqa: PTH115
    with suppress(OSError), os.scandir(f"{process}/fd") as descriptors:
        for descriptor in descriptors:
            with suppress(OSError):
                yield os.readlink(descriptor.path)  # noqa: PTH115 (a Path for each descriptor is slow)


def _maps(process: str) -> str:
    with suppress(OSError):
        return Path(process, "maps").read_text(errors="replace")
    return ""


def _name(process: str) -> str:
    with suppress(OSError):
        return Path(process, "comm").read_text().strip()
    return "?"


@dataclass(frozen=True, slots=True)
class OpenFiles:
    """What all processes had open or mapped at one moment; for questions about thousands of paths."""

    paths: tuple[str, ...]
    """Real paths, sorted."""
    owners: tuple[str, ...]
    """For each path a process that has it, as ``PID (name)``."""

    @classmethod
    def now(cls, proc: Path = Path("/proc")) -> OpenFiles:
        """Read the process table once (3 ms for 73 processes)."""
        found: dict[str, str] = {}
        with suppress(OSError):
            for entry in os.scandir(proc):
                if entry.name.isdigit():
                    owner = f"{entry.name} ({_name(entry.path)})"
                    mapped = (line.partition("/")[2] for line in _maps(entry.path).splitlines() if "/" in line)
                    found.update(dict.fromkeys((f"/{path}" for path in mapped), owner))
                    found.update(dict.fromkeys(_descriptors(entry.path), owner))
        paths = sorted(path for path in found if path.startswith("/"))
        return cls(tuple(paths), tuple(found[path] for path in paths))

    def user_of(self, path: str | os.PathLike[str]) -> str | None:
        """A process that has something at or below the path; None when none that we may look into has."""
        target = os.path.realpath(path)
        for wanted in (target, target + "/"):
            at = bisect.bisect_left(self.paths, wanted)
            if at < len(self.paths) and (self.paths[at] == wanted or self.paths[at].startswith(target + "/")):
                return self.owners[at]
        return None


@contextmanager
def leases_are_safe() -> Iterator[bool]:
    """Ignore SIGIO meanwhile: it ends a process whose lease another one breaks, by default.

    Yields:
        False outside the main thread, where that cannot be arranged: `lease` knows nothing then.
    """
    if threading.current_thread() is not threading.main_thread():
        yield False
        return
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        yield True
    finally:
        signal.signal(signal.SIGIO, before if before is not None else signal.SIG_DFL)


def lease(path: str | os.PathLike[str]) -> bool | None:
    """Whether the kernel would give us the file for ourselves alone; call it inside `leases_are_safe`.

    Returns:
        True when nobody has it open or mapped, False when somebody has, None when the kernel cannot tell: another
        user's file, a network file system, no regular file, or outside `leases_are_safe`, where to ask could end us.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGIO) != signal.SIG_IGN:
        return None
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return True
    except OSError as error:
        return False if error.errno == errno.EAGAIN else None
    finally:
        os.close(fd)


def is_locked(path: str | os.PathLike[str]) -> bool:
    """True when another process holds a lock (flock) on a lock file; a file that cannot be opened counts as locked."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(fd)
