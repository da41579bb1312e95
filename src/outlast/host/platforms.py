"""Which platform this is, and what it is known to limit: a table of data, not a chain of ifs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Fact:
    """Something known of a platform, and from where. What nobody knows is no Fact, but None."""

    value: float
    """Bytes or seconds."""
    source: str
    """Who says so: a documentation page, a public thread, our own measurement."""
    date: str
    """When it was so: ``2026-08``."""


@dataclass(frozen=True, slots=True)
class Spot:
    """A path of a platform and what it is good for."""

    path: str
    """Absolute; ``~`` and ``$NAME`` of the environment are filled in by `spots_here`."""
    role: str
    """``kept`` (outlives the session), ``roomy`` (large, for weights and data), ``scratch`` (fast and local, for many
    small files), ``small`` (fills up first)."""
    kept: bool | None = None
    """Whether it outlives the session; None when that depends or is not known."""
    total_bytes: Fact | None = None
    """How large it is."""
    note: str = ""
    """What one must know of it."""


@dataclass(frozen=True, slots=True)
class Platform:
    """A row of `PLATFORMS`."""

    name: str
    """Stable: ``kaggle``, ``runpod`` ..."""
    title: str
    """For people."""
    variables: tuple[str, ...] = ()
    """Any of these in the environment tells it (``NAME`` or ``NAME=value``)."""
    paths: tuple[str, ...] = ()
    """Any of these below the root folder tells it."""
    spots: tuple[Spot, ...] = ()
    """Its paths."""
    session_seconds: Fact | None = None
    """How long a session may last at most."""
    idle_seconds: Fact | None = None
    """How long it may be idle."""
    preemption: str | None = None
    """Where or how a preemption is announced; None when it is not, or nobody knows."""
    budget_variables: tuple[str, ...] = ()
    """Variables in which the platform says how much of a network volume is the user's."""
    notes: tuple[str, ...] = field(default=())
    """Traps, a line each."""


PLATFORMS: tuple[Platform, ...] = (
    Platform(
        "kaggle", "Kaggle notebook", variables=("KAGGLE_KERNEL_RUN_TYPE",), paths=("kaggle/working",),
        spots=(
            Spot("/kaggle/working", "kept", True, Fact(19.5e9, "unslothai/unsloth#8439", "2026-08"),
                 "the only folder that is kept, and the small one"),
            Spot("/tmp", "roomy", False, Fact(8062e9, "unslothai/unsloth#8439", "2026-08"), "gone after the session"),
        ),
    ),
    Platform("plain", "a machine of no known platform"),
)  # fmt: skip
"""The most telling first; the last one is always true."""


def recognise(environment: Mapping[str, str] | None = None, *, root: Path = Path("/")) -> Platform:
    """The first platform that the environment or the root folder tells.

    Args:
        environment: variables; None takes those of the process.
        root: root of the file system; a fake one in tests.
    """
    values = os.environ if environment is None else environment
    for platform in PLATFORMS[:-1]:
        if _is_told(platform, values, root):
            return platform
    return PLATFORMS[-1]


def _is_told(platform: Platform, values: Mapping[str, str], root: Path) -> bool:
    for variable in platform.variables:
        name, wants_value, value = variable.partition("=")
        if name in values and (not wants_value or values[name] == value):
            return True
    return any((root / path).exists() for path in platform.paths)
