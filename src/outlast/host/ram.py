"""How much memory a file in memory can still take: a tmpfs's pages count against the memory limits."""

from __future__ import annotations

from pathlib import Path

from outlast.host.cgroups import limit_in, memory_places
from outlast.host.procfs import fields, number


def tightest_memory(enough: int, *, root: Path = Path("/")) -> tuple[str, int, int] | None:
    """What holds files in memory to less than ``enough`` bytes; None when nothing that can be read does.

    The machine gives what it has available, swap with it. A control group (v1 or v2, and all above it) gives what its
    limit leaves, where the pages of files on disks do not count as taken: the kernel gives them back.

    Args:
        enough: bytes that the file system itself leaves; nothing is looked at closely before it matters.
        root: folder that holds ``proc`` and ``sys``; for tests.

    Returns:
        A name, bytes that can still be taken, bytes in all.
    """
    found = [_machine(root), *(_group(place.folder, enough) for place in memory_places(root=root))]
    tighter = [one for one in found if one is not None and one[1] < enough]
    return min(tighter, key=lambda one: one[1], default=None)


def _machine(root: Path) -> tuple[str, int, int] | None:
    values = fields(root / "proc/meminfo")
    try:
        free = values["MemAvailable:"] + values.get("SwapFree:", 0)
        return "memory of the machine", free * 1024, (values["MemTotal:"] + values.get("SwapTotal:", 0)) * 1024
    except KeyError:
        return None


def _group(folder: str, enough: int) -> tuple[str, int, int] | None:
    for limit_name, used_name, prefix in (
        ("memory.max", "memory.current", ""),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ):
        limit, used = limit_in(f"{folder}/{limit_name}"), number(f"{folder}/{used_name}")
        if limit is None or used is None:
            continue
        free = limit - used
        if free < enough:
            # memory.stat takes the kernel 100 us and more.
            values = fields(f"{folder}/memory.stat")
            given_back = values.get(f"{prefix}inactive_file", 0) + values.get(f"{prefix}active_file", 0)
            free = limit - max(0, used - given_back)
        return "memory limit of the group", max(0, free), limit
    return None
