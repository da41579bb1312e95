"""What is in a thing that could be freed, and whether anybody uses it. Reads only; follows no link."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from outlast.caches.plan import Linked
from outlast.checkpoints import SEAL
from outlast.durable import mount_points, mounts_below
from outlast.host import OpenFiles, lease, leases_are_safe, show_seconds
from outlast.journal import FOLDER


@dataclass(frozen=True, slots=True)
class Found:
    """What a walk through a thing saw."""

    single_bytes: int
    """Blocks of folders and of files with one name, bytes."""
    linked: tuple[Linked, ...]
    """Files with several names."""
    files: int
    """Regular files and links."""
    newest: float
    """Latest change of a file, a folder or what is said of them, seconds since the epoch."""
    written: float
    """Latest write to a file or a folder, seconds since the epoch."""
    problem: str | None
    """Why it must not go whatever its users: another user's, another mount, cannot be read."""
    used: str | None
    """Who uses it, as far as the kernel's leases tell."""


@dataclass(slots=True)
class Survey:
    """One look at the machine: who has what open now, and what time it is.

    Args:
        open_files: what processes have open.
        now: seconds since the epoch.
        mounts: where something is mounted; `outlast.durable` looks again before it deletes anything.
        uid: whose files may go.
    """

    open_files: OpenFiles = field(default_factory=OpenFiles.now)
    now: float = field(default_factory=time.time)
    mounts: frozenset[str] = field(default_factory=mount_points)
    uid: int = field(default_factory=os.geteuid)

    def look(self, paths: Sequence[Path], *, idle_minutes: float, named: bool = False) -> Found:
        """Walk through a thing.

        Args:
            paths: its files and folders.
            idle_minutes: it is in use while anything in it is younger.
            named: the user named it, so that checkpoints and work trees in it are meant too.
        """
        mounts = frozenset().union(*(mounts_below(path, self.mounts) for path in paths))
        walk = _Walk(self.uid, {} if named else _PRECIOUS, mounts)
        with leases_are_safe():
            for path in paths:
                walk.through(path)
        used = walk.used or self._opened(paths) or self._is_young(walk.newest, idle_minutes)
        linked = tuple(Linked(inode, links, here, size) for inode, (links, here, size) in walk.linked.items())
        return Found(walk.single, linked, walk.files, walk.newest, walk.written, walk.problem, used)

    def _opened(self, paths: Sequence[Path]) -> str | None:
        users = (self.open_files.user_of(path) for path in paths if not path.is_symlink())
        return next((f"in use by {user}" for user in users if user), None)

    def _is_young(self, newest: float, idle_minutes: float) -> str | None:
        age = self.now - newest
        return f"written {show_seconds(max(0.0, age))} ago" if age < idle_minutes * 60 else None


@dataclass(slots=True)
class _Walk:
    uid: int
    precious: Mapping[str, str]
    mounts: frozenset[str]
    single: int = 0
    linked: dict[tuple[int, int], tuple[int, int, int]] = field(default_factory=dict)
    files: int = 0
    newest: float = 0.0
    written: float = 0.0
    problem: str | None = None
    used: str | None = None

    def through(self, top: Path) -> None:
        try:
            info = os.lstat(top)
        except FileNotFoundError:
            return
        except OSError as error:
            self.problem = self.problem or f"cannot be read: {os.strerror(error.errno or 0)}"
            return
        stack = [(os.fspath(top), info)]
        while stack:
            path, info = stack.pop()
            if path in self.mounts:
                self.problem = self.problem or f"holds another mount: {path!r}"
                continue
            name = path.rpartition("/")[2]
            if name in self.precious:
                self.problem = self.problem or f"holds {self.precious[name]}: {path!r}"
            self._take(path, info)
            if stat.S_ISDIR(info.st_mode):
                stack.extend(self._children(path))

    def _take(self, path: str, info: os.stat_result) -> None:
        if info.st_uid != self.uid:
            self.problem = self.problem or f"holds files of another user (uid {info.st_uid})"
        size = info.st_blocks * 512
        # Both times: an archive that was just unpacked has files of years ago. Folders too: a new one may be empty.
        self.newest = max(self.newest, info.st_mtime, info.st_ctime)
        self.written = max(self.written, info.st_mtime)
        if stat.S_ISDIR(info.st_mode):
            self.single += size
            return
        self.files += 1
        if info.st_nlink > 1:
            links, here, _ = self.linked.get((info.st_dev, info.st_ino), (info.st_nlink, 0, size))
            self.linked[(info.st_dev, info.st_ino)] = (links, here + 1, size)
        else:
            self.single += size
        if stat.S_ISREG(info.st_mode) and info.st_uid == self.uid and self.used is None:
            free = lease(path)
            if free is not True:
                self.used = f"{'in use' if free is False else 'the kernel cannot tell who uses it'}: {path!r}"

    def _children(self, folder: str) -> list[tuple[str, os.stat_result]]:
        found = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    found.append((entry.path, entry.stat(follow_symlinks=False)))
        except OSError as error:
            self.problem = self.problem or f"{folder!r} cannot be read: {os.strerror(error.errno or 0)}"
        return found


_PRECIOUS = {SEAL: "a sealed checkpoint", FOLDER: "a run of Outlast", ".git": "a git work tree"}
"""Names that tell of something that is no cache, whatever folder it lies in."""


def refusal(root: Path, home: Path, cwd: Path) -> str | None:
    """Why a folder must not be swept whatever variable points at it; None when it may be."""
    real = Path(os.path.realpath(root))
    if real == Path("/") or real == home or real in home.parents:
        return "it is the root or your home folder, or above it"
    if real == cwd or real in cwd.parents:
        return "it is the current folder, or above it"
    if os.path.ismount(real):
        return "it is a mount point"
    if os.path.lexists(real / ".git"):
        return "it is a git work tree"
    try:
        owners = {os.lstat(root).st_uid, os.stat(real).st_uid}
    except OSError as error:
        return f"it cannot be read: {os.strerror(error.errno or 0)}"
    return None if owners == {os.geteuid()} else "it belongs to another user"
