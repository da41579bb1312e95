"""How much memory a file in memory can still take: a tmpfs's pages count against the memory limits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from outlast.host.procfs import read_all

_NO_LIMIT = 2**62


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
    found = [_machine(root), *(_group(folder, enough) for folder in _groups(root))]
    tighter = [one for one in found if one is not None and one[1] < enough]
    return min(tighter, key=lambda one: one[1], default=None)


def _machine(root: Path) -> tuple[str, int, int] | None:
    values = _fields(root / "proc/meminfo")
    try:
        free = values["MemAvailable:"] + values.get("SwapFree:", 0)
        return "memory of the machine", free * 1024, (values["MemTotal:"] + values.get("SwapTotal:", 0)) * 1024
    except KeyError:
        return None


def _groups(root: Path) -> Iterator[str]:
    """Folders of our memory group and of those above it."""
    for line in read_all(root / "proc/self/cgroup").splitlines():
        parts = line.split(":", 2)
        if len(parts) < 3:
            continue
        _, controllers, path = parts
        if "memory" in controllers.split(","):
            top = f"{root}/sys/fs/cgroup/memory".replace("//", "/")
        elif controllers == "":
            top = f"{root}/sys/fs/cgroup".replace("//", "/")
        else:
            continue
        # In a container the group's own path is often not there: what is mounted is the group itself.
        folder = os.path.normpath(f"{top}/{path}")
        while folder.startswith(f"{top}/"):
            yield folder
            folder = os.path.dirname(folder)
        yield top


def _group(folder: str, enough: int) -> tuple[str, int, int] | None:
    for limit_name, used_name, prefix in (
        ("memory.max", "memory.current", ""),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ):
        limit, used = _number(f"{folder}/{limit_name}"), _number(f"{folder}/{used_name}")
        if limit is None or used is None or limit >= _NO_LIMIT:
            continue
        free = limit - used
        if free < enough:
            # memory.stat takes the kernel 100 us and more.
            values = _fields(f"{folder}/memory.stat")
            given_back = values.get(f"{prefix}inactive_file", 0) + values.get(f"{prefix}active_file", 0)
            free = limit - max(0, used - given_back)
        return "memory limit of the group", max(0, free), limit
    return None


def _number(path: str) -> int | None:
    text = read_all(path).strip()
    return int(text) if text.isdigit() else None  # ``max`` is no number


def _fields(path: str | os.PathLike[str]) -> dict[str, int]:
    pairs = (line.split() for line in read_all(path).splitlines())
    return {words[0]: int(words[1]) for words in pairs if len(words) > 1 and words[1].isdigit()}
