"""Shared memory that dead processes of ours left behind: it stays charged and kills their successor (guard.md, trap 8).

A file counts as ours only with proof: it was not there before the run, it belongs to our user, and either its name
holds the id of a process of this run (torch), or a process of this run was seen using it. It goes only when its
processes are dead and nobody maps it or has it open.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_OF_TORCH = re.compile(r"torch_(\d+)_")
_OF_PYTHON = re.compile(r"psm_|wnsm_")


@dataclass(slots=True)
class SharedMemory:
    """The shared-memory files that a run makes.

    Args:
        folder: where the system keeps them.
        proc: the process table.
        uid: whose files are ours.
    """

    folder: Path = Path("/dev/shm")
    proc: Path = Path("/proc")
    uid: int = field(default_factory=os.getuid)
    _before: set[str] = field(default_factory=set)
    _pids: set[int] = field(default_factory=set)
    _ours: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._before = set(self._names())

    def observe(self, pids: Iterable[int]) -> None:
        """Note the processes of this run, and which new files they use."""
        known = list(pids)
        self._pids.update(known)
        new = {name for name in self._names() if name not in self._before and name not in self._ours}
        for name in new:
            if (found := _OF_TORCH.match(name)) and int(found[1]) in self._pids:
                self._ours.add(name)
        waiting = {name for name in new - self._ours if _OF_PYTHON.match(name) or _OF_TORCH.match(name)}
        for pid in known if waiting else ():
            self._ours.update(waiting & self._used_by(pid))

    def remove_dead(self) -> list[tuple[Path, int]]:
        """Unlink what is ours and used by nobody; pairs of path and bytes that it held."""
        self.observe(())
        candidates = {name for name in self._ours if self._is_dead(name)}
        if candidates:
            for entry in self.proc.iterdir():
                if entry.name.isdigit():
                    candidates -= self._used_by(int(entry.name))
        removed = []
        for name in sorted(candidates):
            with suppress(OSError):
                info = os.lstat(self.folder / name)
                if info.st_uid == self.uid:
                    (self.folder / name).unlink()
                    removed.append((self.folder / name, info.st_blocks * 512))
                    self._ours.discard(name)
        return removed

    def _names(self) -> list[str]:
        try:
            return os.listdir(self.folder)
        except OSError:
            return []

    def _is_dead(self, name: str) -> bool:
        found = _OF_TORCH.match(name)
        return not found or not (self.proc / found[1]).exists()

    def _used_by(self, pid: int) -> set[str]:
        """Names in the folder that a process maps or has open."""
        used: set[str] = set()
        prefix = f"{self.folder}/"
        with suppress(OSError):
            for line in (self.proc / str(pid) / "maps").read_text(errors="replace").splitlines():
                if prefix in line:
                    used.add(line.partition(prefix)[2].removesuffix(" (deleted)"))
        with suppress(OSError):
            for entry in (self.proc / str(pid) / "fd").iterdir():
                with suppress(OSError):
                    target = str(entry.readlink())
                    if target.startswith(prefix):
                        used.add(target[len(prefix) :])
        return used
