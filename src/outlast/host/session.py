"""The session that this is: on which platform, and when it began."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from outlast.host.platforms import Platform, recognise
from outlast.host.procfs import fields, start_ticks


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
    ticks, booted = start_ticks(1, root / "proc"), fields(root / "proc/stat").get("btime")
    return None if ticks is None or booted is None else booted + ticks / os.sysconf("SC_CLK_TCK")
