"""The process tree of a command: who is in it, stopping and ending it, what the kernel counts against it."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from outlast.host import descendants, memory_group, oom_kills_in, start_ticks

_PR_SET_CHILD_SUBREAPER = 36
_GRACE_SECONDS = 5.0
_SHIELDED = -900

__all__ = [
    "OomCounts",
    "adopt_orphans",
    "descendants",
    "end_all",
    "name_of",
    "score_again",
    "shield",
    "signal_all",
    "start_ticks",
]


def adopt_orphans() -> bool:
    """Become the parent of grandchildren whose parent dies (PR_SET_CHILD_SUBREAPER); False where it cannot."""
    try:
        return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def name_of(pid: int, proc: Path = Path("/proc")) -> str:
    """``process 12 (bash)``, as much of it as is known."""
    try:
        return f"process {pid} ({(proc / str(pid) / 'comm').read_text().strip()})"
    except OSError:
        return f"process {pid}" if pid else "the kernel or a process outside this container"


def shield(proc: Path = Path("/proc")) -> int | None:
    """Make the kernel kill anything rather than this process when memory runs out.

    Shared memory counts for nobody, so a supervisor of 30 MB can be the largest process of a small group (measured).

    Returns:
        The score that a command must get back (`score_again`), or None where we may not lower our own.
    """
    path = proc / "self" / "oom_score_adj"
    try:
        before = int(path.read_text())
        path.write_text(str(min(before, _SHIELDED)))
        return before
    except (OSError, ValueError):
        return None


def score_again(pid: int, before: int | None, bump: int, proc: Path = Path("/proc")) -> None:
    """Give a command the score that it would have without us; where we could not lower ours, a little more.

    Args:
        pid: the command.
        before: what `shield` returned.
        bump: thousandths of the memory limit that it gets on top when that was None.
        proc: the process table.
    """
    path = proc / str(pid) / "oom_score_adj"
    with suppress(OSError, ValueError):
        score = before if before is not None else min(1000, int(path.read_text()) + bump)
        path.write_text(str(score))


def signal_all(pids: Iterable[int], number: int) -> None:
    """Send a signal to each; one that has ended meanwhile is left out."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def end_all(find: Callable[[], list[int]], reap: Callable[[], object], *, grace: float = _GRACE_SECONDS) -> list[int]:
    """End what is left of a process tree: SIGTERM, a few seconds, SIGKILL.

    Args:
        find: the processes that are there now.
        reap: collects the dead.
        grace: seconds between the two signals.

    Returns:
        The processes that were there.
    """
    first = find()
    signal_all(first, signal.SIGTERM)
    signal_all(first, signal.SIGCONT)
    deadline = time.monotonic() + grace
    while (left := find()) and time.monotonic() < deadline:
        reap()
        time.sleep(0.05)
    while left:
        signal_all(left, signal.SIGKILL)
        time.sleep(0.02)
        reap()
        left = find()
    return first


@dataclass(slots=True)
class OomCounts:
    """The kernel's counts of OOM-kills in the memory groups that a command's processes were seen in."""

    clock: Callable[[], float] = time.monotonic
    limit_bytes: int | None = None
    """Least limit of the groups."""
    _first: dict[str, int] = field(default_factory=dict)
    _last: dict[str, int] = field(default_factory=dict)
    _rose: float | None = None

    def include(self, pids: Iterable[int | str]) -> None:
        """Count from now on in the groups of these processes too."""
        for pid in pids:
            group = memory_group(pid)
            if group and group.source not in self._first:
                self._first[group.source] = self._last[group.source] = group.oom_kills
                limits = [size for size in (self.limit_bytes, group.limit_bytes) if size]
                self.limit_bytes = min(limits, default=None)

    def read(self) -> None:
        """Look at all counts again."""
        for source, before in self._last.items():
            now = oom_kills_in(source)
            if now is not None and now > before:
                self._last[source] = now
                self._rose = self.clock()

    @property
    def rise(self) -> int:
        """Processes killed since each group was first seen."""
        return sum(self._last[source] - self._first[source] for source in self._first)

    @property
    def age_seconds(self) -> float | None:
        """Seconds since the last rise was seen; None when there was none."""
        return None if self._rose is None else self.clock() - self._rose

    @property
    def source(self) -> str:
        """The files and their values, for the evidence."""
        risen = [name for name in self._first if self._last[name] > self._first[name]]
        return "; ".join(f"{name}: {self._first[name]} -> {self._last[name]}" for name in risen or self._first)
