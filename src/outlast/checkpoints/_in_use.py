"""Which processes have a file below a path open or mapped. Nothing in use is deleted."""

from __future__ import annotations

import os
from contextlib import suppress
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
    with suppress(OSError), os.scandir(f"{process}/fd") as descriptors:
        for descriptor in descriptors:
            with suppress(OSError):
                link = os.readlink(descriptor.path)  # noqa: PTH115 (a Path for each descriptor is slow)
                if link == target or link.startswith(inside):
                    return True
    with suppress(OSError):
        maps = Path(process, "maps").read_text(errors="replace")
        return f" {inside}" in maps or f" {target}\n" in maps
    return False


def _name(process: str) -> str:
    with suppress(OSError):
        return Path(process, "comm").read_text().strip()
    return "?"
