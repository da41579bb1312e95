"""The session that this is: on which platform, and when it began."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from outlast.host.platforms import Platform, recognise
from outlast.host.procfs import read_all


@dataclass(frozen=True, slots=True)
class Session:
    """What the machine says of the session that this is."""

    platform: Platform
    """A row of `PLATFORMS`."""
    began: float | None
    """When the session began, seconds since the epoch; None when that cannot be told."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """The environment."""


def this_session(environment: Mapping[str, str] | None = None, *, root: Path = Path("/")) -> Session:
    """The session of this process.

    Args:
        environment: variables; None takes those of the process.
        root: root of the file system; a fake one in tests.
    """
    values = dict(os.environ if environment is None else environment)
    return Session(recognise(values, root=root), began(root=root), values)


def began(*, root: Path = Path("/")) -> float | None:
    """When process 1 was started, seconds since the epoch; None when /proc does not say.

    In a container that is the container's start, else the machine's.

    Args:
        root: root of the file system; a fake one in tests.
    """
    _, _, tail = read_all(root / "proc/1/stat").rpartition(")")
    fields = tail.split()
    booted = [line.split()[1:] for line in read_all(root / "proc/stat").splitlines() if line.startswith("btime")]
    try:
        # proc(5): field 22 is the start in clock ticks after boot; the name's closing bracket ends field 2.
        return float(booted[0][0]) + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (IndexError, ValueError):
        return None
