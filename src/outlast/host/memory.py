"""What the kernel says about memory: how often it killed for want of it, and the limit that it holds us to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """A reading of one memory cgroup."""

    source: str
    """File that the kill count was read from."""
    oom_kills: int
    """Processes of this group that the kernel killed for want of memory, since the group was made."""
    limit_bytes: int | None
    """The group's limit; None when it has none."""
    used_bytes: int | None
    """Bytes charged to the group now; None when unreadable."""


def memory_group(pid: int | str = "self", *, root: Path = Path("/")) -> MemoryGroup | None:
    """The memory cgroup of a process (v1 or v2), or None where there is none to read.

    Args:
        pid: process id; ``self`` is this process.
        root: folder that holds ``proc`` and ``sys``; for tests.
    """
    for folder, events, limit, used in _candidates(pid, root):
        count = _field(folder / events, "oom_kill")
        if count is not None:
            return MemoryGroup(str(folder / events), count, _number(folder / limit), _number(folder / used))
    return None


def _candidates(pid: int | str, root: Path) -> Iterator[tuple[Path, str, str, str]]:
    try:
        lines = (root / "proc" / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        inside = path.lstrip("/")
        if "memory" in controllers.split(","):
            for folder in (root / "sys/fs/cgroup/memory" / inside, root / "sys/fs/cgroup/memory"):
                yield folder, "memory.oom_control", "memory.limit_in_bytes", "memory.usage_in_bytes"
        elif controllers == "":
            # In a container the group's own path is often the root of what is mounted.
            for folder in (root / "sys/fs/cgroup" / inside, root / "sys/fs/cgroup"):
                yield folder, "memory.events", "memory.max", "memory.current"


def _field(path: Path, name: str) -> int | None:
    try:
        for line in path.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    except (OSError, ValueError):
        pass
    return None


def _number(path: Path) -> int | None:
    try:
        value = int(path.read_text())
    except (OSError, ValueError):
        return None
    # cgroup v1 writes "no limit" as the largest page-aligned 63-bit number.
    return None if value >= 2**62 else value
