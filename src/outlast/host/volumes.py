"""What a user can really write at a path: the least of several limits, each with its source."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from outlast.errors import BadInput
from outlast.host.units import parse_bytes
from outlast.host.usage import allocated_bytes

BUDGETS_VARIABLE = "OUTLAST_BUDGETS"
"""Environment variable that hands declared budgets to child processes: ``DIR=BYTES`` joined by os.pathsep."""


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit that the user declared, because statvfs shows a cluster's free space and not theirs."""

    root: Path
    """Folder that the budget is for; absolute."""
    limit_bytes: int
    """Most bytes that may be allocated below the folder."""

    @classmethod
    def parse(cls, text: str) -> Budget:
        """A budget from ``DIR=45MB``.

        Raises:
            BadInput: when there is no ``=``, no folder, or no size.
        """
        folder, separator, size = text.rpartition("=")
        if not separator or not folder:
            raise BadInput(f"expected DIR=SIZE, got {text!r}", hint="for example --budget runs/a=45MB")
        return cls(Path(folder).expanduser().resolve(), parse_bytes(size))

    def covers(self, path: Path) -> bool:
        """True when the path lies in the budget's folder."""
        return path == self.root or self.root in path.parents


@dataclass(frozen=True, slots=True)
class Limit:
    """One reason why no more than this can be written."""

    source: str
    """Where the figure is from: ``statvfs``, ``inodes`` or ``budget DIR``."""
    free_bytes: int | None
    """Bytes still to be written; below 0 when a budget is overdrawn: so much must go first. None when unknown."""
    total_bytes: int | None
    """Bytes in all under this limit; None when unknown."""


@dataclass(frozen=True, slots=True)
class Room:
    """How much can be written at a path."""

    path: Path
    """The nearest existing folder at or above the path that was asked about."""
    device: int | None
    """st_dev of the file system: equal for two paths on one volume."""
    limits: tuple[Limit, ...]
    """All limits that were found, least free first."""
    free_inodes: int | None
    """Files that can still be made; None when the file system has no fixed number."""

    @property
    def free_bytes(self) -> int | None:
        """Bytes that can really be written; None when no limit could be read."""
        return next((limit.free_bytes for limit in self.limits if limit.free_bytes is not None), None)

    @property
    def total_bytes(self) -> int | None:
        """Bytes in all under the tightest limit; None when unknown."""
        return self.limits[0].total_bytes if self.limits else None

    def lacks(self, size: int) -> bool:
        """True when it is known that fewer bytes than this can be written."""
        return self.free_bytes is not None and self.free_bytes < size

    @property
    def source(self) -> str:
        """Which limit is the tightest."""
        return self.limits[0].source if self.limits else "unknown"


def declared_budgets(environment: dict[str, str] | None = None) -> tuple[Budget, ...]:
    """Budgets that `outlast run` passed on in the environment."""
    text = (os.environ if environment is None else environment).get(BUDGETS_VARIABLE, "")
    return tuple(Budget.parse(part) for part in text.split(os.pathsep) if part)


def room(
    path: str | os.PathLike[str],
    budgets: Iterable[Budget] | None = None,
    *,
    statvfs: Callable[[str], os.statvfs_result] = os.statvfs,
    used: Callable[[Path], int] = allocated_bytes,
) -> Room:
    """What can be written at a path, also one that does not exist yet.

    Args:
        path: a file or folder.
        budgets: declared budgets; None takes those of the environment.
        statvfs: reads a file system's figures; takes 1 to 3 us.
        used: allocated bytes below a folder, for budgets.
    """
    place = existing(Path(path))
    limits: list[Limit] = []
    inodes: int | None = None
    device: int | None = None
    try:
        figures = statvfs(str(place))
        device = os.stat(place).st_dev
    except OSError:
        limits.append(Limit("statvfs", None, None))
    else:
        unit = figures.f_frsize
        limits.append(Limit("statvfs", figures.f_bavail * unit, figures.f_blocks * unit))
        # f_files is 0 where inodes are made on demand (btrfs, some network file systems).
        inodes = figures.f_favail if figures.f_files else None
    resolved = place.resolve()
    for budget in declared_budgets() if budgets is None else budgets:
        if budget.covers(resolved):
            left = budget.limit_bytes - used(budget.root)
            limits.append(Limit(f"budget {budget.root}", left, budget.limit_bytes))
    return Room(place, device, tuple(_least_first(limits)), inodes)


def _least_first(limits: Sequence[Limit]) -> list[Limit]:
    return sorted(limits, key=lambda limit: (limit.free_bytes is None, limit.free_bytes or 0))


def existing(path: Path) -> Path:
    """The nearest existing folder at or above a path."""
    for candidate in (path, *path.absolute().parents):
        if candidate.is_dir():
            return candidate
    return Path("/")
