"""When this session began: the start of the first process that can be seen, a container's or the machine's."""

from __future__ import annotations

import os
from pathlib import Path

from outlast.host.procfs import read_all


def session_began(*, root: Path = Path("/")) -> float | None:
    """When process 1 was started, seconds since the epoch; None when /proc does not say.

    In a container that is the container's start, else the machine's.

    Args:
        root: root of the file system; a fake one in tests.
    """
    _, _, tail = read_all(root / "proc/1/stat").rpartition(")")
    fields = tail.split()
    booted = [line.split()[1] for line in read_all(root / "proc/stat").splitlines() if line.startswith("btime ")]
    try:
        # proc(5): field 22 is the start in clock ticks after boot; the name's closing bracket ends field 2.
        return float(booted[0]) + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (IndexError, ValueError):
        return None
