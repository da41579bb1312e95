"""Which memory groups a process is in, version 1 or 2, and what the kernel says of each."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from outlast.host.procfs import fields, number, picked, read_all

# cgroup v1 writes "no limit" as the largest page-aligned 63-bit number.
_NO_LIMIT = 2**62

_CACHES = ("inactive_file", "active_file", "slab_reclaimable")
FILES = {
    1: ("memory.oom_control", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    2: ("memory.events", "memory.max", "memory.current"),
}
"""By version: where kills are counted, the limit, and what is charged."""


@dataclass(frozen=True, slots=True)
class Stall:
    """How much work waits for memory: a reading of PSI (Documentation/accounting/psi.rst)."""

    some_percent: float
    """Share of the last 10 seconds in which at least one task waited."""
    full_percent: float
    """Share of the last 10 seconds in which all tasks waited at once."""
    source: str
    """File that it was read from."""


@dataclass(frozen=True, slots=True)
class GroupMemory:
    """A reading of one memory group. What the kernel does not tell is None."""

    folder: str
    """Its folder."""
    version: int
    """Of cgroups: 1 or 2."""
    limit_bytes: int | None
    """Where the kernel begins to kill; None without a limit."""
    high_bytes: int | None
    """``memory.high``: where it begins to slow the processes down; None without one, and in version 1."""
    usage_bytes: int | None
    """All that is charged, page cache too."""
    inactive_file_bytes: int
    """Page cache that was not used lately."""
    active_file_bytes: int
    """Page cache that was used lately; given back as well before anything is killed."""
    slab_bytes: int
    """The kernel's own caches of names and inodes that can be given back; 0 in version 1, which does not say."""
    shmem_bytes: int
    """Files in memory (tmpfs, /dev/shm): they are charged, and cannot be given back."""
    swap_used_bytes: int | None
    """In swap."""
    swap_limit_bytes: int | None
    """Swap that it may take; None without a limit of its own."""
    events: Mapping[str, int]
    """``memory.events`` (high, max, oom, oom_kill), or ``memory.oom_control`` (under_oom, oom_kill)."""
    stall: Stall | None
    """The group's own, in version 2."""

    @property
    def working_set_bytes(self) -> int | None:
        """Usage without inactive page cache: what Kubernetes goes by."""
        return None if self.usage_bytes is None else max(0, self.usage_bytes - self.inactive_file_bytes)

    @property
    def cache_bytes(self) -> int:
        """What the kernel takes back before it kills."""
        return self.inactive_file_bytes + self.active_file_bytes + self.slab_bytes

    @property
    def held_bytes(self) -> int | None:
        """Usage without caches: what the kernel cannot take back without killing or swapping."""
        return None if self.usage_bytes is None else max(0, self.usage_bytes - self.cache_bytes)


@dataclass(frozen=True, slots=True)
class Place:
    """A memory group's folder."""

    folder: str
    """Its path."""
    version: int
    """Of cgroups: 1 or 2."""


def memory_places(pid: int | str = "self", *, root: Path = Path("/")) -> list[Place]:
    """Folders of a process's memory group and of all above it, its own first; they need not be there.

    In a container the group's own path is often not there: what is mounted is the group itself.

    Args:
        pid: process id; ``self`` is this process.
        root: folder that holds ``proc`` and ``sys``; for tests.
    """
    places: list[Place] = []
    for line in read_all(f"{root}/proc/{pid}/cgroup").splitlines():
        parts = line.split(":", 2)
        if len(parts) < 3:
            continue
        _, controllers, path = parts
        if "memory" in controllers.split(","):
            top, version = f"{root}/sys/fs/cgroup/memory".replace("//", "/"), 1
        elif controllers == "":
            top, version = f"{root}/sys/fs/cgroup".replace("//", "/"), 2
        else:
            continue
        folder = os.path.normpath(f"{top}/{path}")
        while folder.startswith(f"{top}/"):
            places.append(Place(folder, version))
            folder = os.path.dirname(folder)
        places.append(Place(top, version))
    return places


def group_memory(place: Place) -> GroupMemory | None:
    """A reading of a group; None where there is no memory controller."""
    return _second(place.folder) if place.version == 2 else _first(place.folder)


def groups_of(pid: int | str = "self", *, root: Path = Path("/")) -> list[GroupMemory]:
    """Readings of a process's memory groups, its own first; none where there are none."""
    found = (group_memory(place) for place in memory_places(pid, root=root))
    return [group for group in found if group is not None]


def limit_in(path: str) -> int | None:
    """The limit in a file; None where it is no limit, in either version's words."""
    size = number(path)
    return None if size is None or size >= _NO_LIMIT else size


def stall_of(path: str) -> Stall | None:
    """A reading of a PSI file; None where the kernel has none."""
    shares = {}
    for line in read_all(path).splitlines():
        kind, _, rest = line.partition(" ")
        pairs = dict(part.split("=", 1) for part in rest.split() if "=" in part)
        try:
            shares[kind] = float(pairs["avg10"])
        except (KeyError, ValueError):
            continue
    if "some" not in shares:
        return None
    return Stall(shares["some"], shares.get("full", 0.0), path)


def held_in(folder: str) -> int | None:
    """What a group holds that the kernel cannot take back; None when it is gone."""
    for version, prefix in ((1, "total_"), (2, "")):
        usage = number(f"{folder}/{FILES[version][2]}")
        if usage is not None:
            caches = picked(f"{folder}/memory.stat", [f"{prefix}{name}" for name in _CACHES])
            return max(0, usage - sum(caches.values()))
    return None


def _part(stat: Mapping[str, int], name: str, version: int) -> int:
    # In version 1 the plain figure leaves out the groups below, whose memory is charged here too.
    return stat.get(f"total_{name}" if version == 1 else name, 0)


def _second(folder: str) -> GroupMemory | None:
    events, usage = fields(f"{folder}/memory.events"), number(f"{folder}/memory.current")
    # The root group of a machine has a memory.stat, but neither a usage nor a limit.
    if usage is None and not events:
        return None
    stat = fields(f"{folder}/memory.stat")
    return GroupMemory(
        folder=folder,
        version=2,
        limit_bytes=limit_in(f"{folder}/memory.max"),
        high_bytes=limit_in(f"{folder}/memory.high"),
        usage_bytes=usage,
        inactive_file_bytes=stat.get("inactive_file", 0),
        active_file_bytes=stat.get("active_file", 0),
        slab_bytes=stat.get("slab_reclaimable", 0),
        shmem_bytes=stat.get("shmem", 0),
        swap_used_bytes=number(f"{folder}/memory.swap.current"),
        swap_limit_bytes=number(f"{folder}/memory.swap.max"),
        events=events,
        stall=stall_of(f"{folder}/memory.pressure"),
    )


def _first(folder: str) -> GroupMemory | None:
    events, usage = fields(f"{folder}/memory.oom_control"), number(f"{folder}/memory.usage_in_bytes")
    if usage is None and not events:
        return None
    stat = fields(f"{folder}/memory.stat")
    # The hierarchical figure also knows the limits of groups that a container does not see.
    own, above = limit_in(f"{folder}/memory.limit_in_bytes"), stat.get("hierarchical_memory_limit", _NO_LIMIT)
    limit = above if above < (own or _NO_LIMIT) else own
    with_swap = number(f"{folder}/memory.memsw.usage_in_bytes")
    swap_limit = limit_in(f"{folder}/memory.memsw.limit_in_bytes")
    return GroupMemory(
        folder=folder,
        version=1,
        limit_bytes=limit,
        high_bytes=None,
        usage_bytes=usage,
        inactive_file_bytes=_part(stat, "inactive_file", 1),
        active_file_bytes=_part(stat, "active_file", 1),
        slab_bytes=0,
        shmem_bytes=_part(stat, "shmem", 1),
        swap_used_bytes=None if with_swap is None or usage is None else max(0, with_swap - usage),
        swap_limit_bytes=None if swap_limit is None or limit is None else max(0, swap_limit - limit),
        events=events,
        stall=None,
    )
