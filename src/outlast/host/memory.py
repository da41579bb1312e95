"""What there is of main memory, who holds it, and the limit at which the kernel kills: the group's, not the host's."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from outlast.host.cgroups import FILES, GroupMemory, Stall, groups_of, held_in, limit_in, memory_places, stall_of
from outlast.host.procfs import descendants, fields, number, picked, read_all

_MAY_STALL = 0.5
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """The kernel's count of OOM-kills in one memory group."""

    source: str
    """File that the kill count was read from."""
    oom_kills: int
    """Processes of this group that the kernel killed for want of memory, since the group was made."""
    limit_bytes: int | None
    """The group's limit; None when it has none."""
    used_bytes: int | None
    """Bytes charged to the group now; None when unreadable."""


@dataclass(frozen=True, slots=True)
class HostMemory:
    """The machine's main memory. What /proc/meminfo does not tell is None."""

    total_bytes: int | None
    """All of it."""
    available_bytes: int | None
    """What can be had without swapping (MemAvailable)."""
    swap_total_bytes: int
    """Swap in all; 0 without any."""
    swap_free_bytes: int
    """Swap that is free."""
    stall: Stall | None
    """How much work waits for memory on the whole machine; None where the kernel has no PSI."""


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """What one process holds."""

    pid: int
    """Process id."""
    name: str
    """As the kernel has it."""
    rss_bytes: int
    """In main memory, shared pages counted in full."""
    shared_bytes: int
    """Of these, pages of files and of shared memory."""


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """What holds a process to less than it may want: its group, one above, or the machine."""

    folder: str | None
    """The memory group whose limit it is; None for the machine."""
    is_slowed: bool
    """True for ``memory.high``: above it the kernel does not kill, it slows the processes down."""
    limit_bytes: int
    """The limit."""
    held_bytes: int
    """What counts against it now and cannot be taken back: page cache does not, files in memory do."""
    swap_left_bytes: int
    """What swap can still take over."""
    is_shared: bool
    """True where processes of others may count as well."""
    stall: Stall | None = None
    """How much work waits for memory there."""

    @property
    def stall_percent(self) -> float | None:
        """PSI full avg10 of the limit's own; None where it is told for the whole machine only: others wait too."""
        if self.stall is None or not self.stall.source.startswith(self.folder or ""):
            return None
        return self.stall.full_percent

    @property
    def free_bytes(self) -> int:
        """What can still be taken, swap apart."""
        return max(0, self.limit_bytes - self.held_bytes)

    @property
    def fraction(self) -> float:
        """Held, as a part of the limit."""
        return self.held_bytes / self.limit_bytes if self.limit_bytes else 1.0


def memory_group(pid: int | str = "self", *, root: Path = Path("/")) -> MemoryGroup | None:
    """The memory group whose kills count for a process (v1 or v2), or None where there is none to read.

    Args:
        pid: process id; ``self`` is this process.
        root: folder that holds ``proc`` and ``sys``; for tests.
    """
    for place in memory_places(pid, root=root):
        events, limit, used = FILES[place.version]
        count = oom_kills_in(f"{place.folder}/{events}")
        if count is not None:
            size = limit_in(f"{place.folder}/{limit}")
            return MemoryGroup(f"{place.folder}/{events}", count, size, number(f"{place.folder}/{used}"))
    return None


def oom_kills_in(source: str) -> int | None:
    """The count of OOM-kills in a file that `memory_group` names; None when it has none."""
    return fields(source).get("oom_kill")


def host_memory(*, root: Path = Path("/")) -> HostMemory:
    """The machine's main memory, whatever group we are in."""
    found = fields(root / "proc/meminfo")

    def size(name: str) -> int | None:
        return found[name] * 1024 if name in found else None

    return HostMemory(
        size("MemTotal:"),
        size("MemAvailable:"),
        size("SwapTotal:") or 0,
        size("SwapFree:") or 0,
        stall_of(str(root / "proc/pressure/memory")),
    )


def process_memory(pid: int, *, proc: Path = Path("/proc")) -> ProcessMemory | None:
    """What a process holds; None when it is gone, or is the kernel's own."""
    words = read_all(f"{proc}/{pid}/statm").split()
    if len(words) < 3 or words[1] == "0":
        return None
    name = read_all(f"{proc}/{pid}/comm").strip() or "?"
    return ProcessMemory(pid, name, int(words[1]) * _PAGE, int(words[2]) * _PAGE)


def tree_memory(pid: int, *, proc: Path = Path("/proc")) -> list[ProcessMemory]:
    """What a process and all below it hold, itself first."""
    found = (process_memory(one, proc=proc) for one in (pid, *descendants(pid, proc)))
    return [one for one in found if one is not None]


def largest_processes(count: int, *, proc: Path = Path("/proc")) -> list[ProcessMemory]:
    """The processes that hold most, of all that can be seen."""
    pids = (int(entry.name) for entry in proc.iterdir() if entry.name.isdigit())
    found = (process_memory(pid, proc=proc) for pid in pids)
    return sorted((one for one in found if one is not None), key=lambda one: -one.rss_bytes)[:count]


def own_bytes(processes: Iterable[ProcessMemory]) -> int:
    """What processes hold together: shared pages once, as the largest of them has them."""
    known = list(processes)
    shared = max((one.shared_bytes for one in known), default=0)
    return shared + sum(one.rss_bytes - one.shared_bytes for one in known)


def memory_limit(pid: int | str = "self", *, root: Path = Path("/")) -> MemoryLimit | None:
    """What is used up first as a process grows; None where nothing can be read.

    Args:
        pid: process id; ``self`` is this process.
        root: folder that holds ``proc`` and ``sys``; for tests.
    """
    return tightest(groups_of(pid, root=root), host_memory(root=root))


def memory_limit_again(limit: MemoryLimit, *, root: Path = Path("/")) -> MemoryLimit:
    """The same limit a moment later: three small files, where finding it takes two dozen.

    What cannot be read any more stays as it was.
    """
    swap = limit.swap_left_bytes
    if limit.folder is None:
        now = picked(root / "proc/meminfo", ["MemAvailable:", "SwapFree:"])
        held = limit.limit_bytes - now["MemAvailable:"] * 1024 if "MemAvailable:" in now else None
        swap = now.get("SwapFree:", 0) * 1024
    else:
        held = held_in(limit.folder)
    found = replace(limit, held_bytes=limit.held_bytes if held is None else held, swap_left_bytes=swap)
    # Where there is plenty, nothing waits for memory.
    if limit.stall is None or found.fraction < _MAY_STALL:
        return found
    return replace(found, stall=stall_of(limit.stall.source))


def tightest(groups: Sequence[GroupMemory], host: HostMemory) -> MemoryLimit | None:
    """Of the groups (own first) and the machine, what leaves least.

    ``memory.high`` counts as a limit too: above it the kernel slows a process down until it hardly moves.
    """
    found = []
    for steps_up, group in enumerate(groups):
        for limit, is_slowed in ((group.limit_bytes, False), (group.high_bytes, True)):
            if limit is None or group.held_bytes is None:
                continue
            swap, stall = _swap_left(group, host), group.stall or host.stall
            found.append(MemoryLimit(group.folder, is_slowed, limit, group.held_bytes, swap, steps_up > 0, stall))
    if host.total_bytes is not None and host.available_bytes is not None:
        held = host.total_bytes - host.available_bytes
        found.append(MemoryLimit(None, False, host.total_bytes, held, host.swap_free_bytes, True, host.stall))
    return min(found, key=lambda one: one.free_bytes, default=None)


def _swap_left(group: GroupMemory, host: HostMemory) -> int:
    if group.swap_limit_bytes is None:
        return host.swap_free_bytes
    return min(host.swap_free_bytes, max(0, group.swap_limit_bytes - (group.swap_used_bytes or 0)))
