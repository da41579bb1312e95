"""What a user can really write at a path: the least of several limits, each with its source.

What the kernel shows of the volume (statvfs, which holds project quotas too, and inodes), user and group quotas,
budgets that the user declared, and memory for files in memory. The figures of a network volume are mostly those of the
whole cluster: `Room.is_clusters` says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from outlast.errors import BadInput
from outlast.host.mounts import Mount, mount_at
from outlast.host.quota import Quota, quotas
from outlast.host.ram import tightest_memory
from outlast.host.units import parse_bytes, show_bytes
from outlast.host.usage import allocated_bytes

BUDGETS_VARIABLE = "OUTLAST_BUDGETS"
"""Environment variable that hands declared budgets to child processes: ``DIR=BYTES`` joined by os.pathsep."""

CLUSTER_BYTES = 20 * 10**12
"""A network volume larger than this is a cluster's (RunPod's shows 2.3 PB to a user with 100 GB)."""


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
        try:
            root = Path(folder).expanduser().resolve()
        except (OSError, RuntimeError) as error:
            raise BadInput(f"{folder} is no folder: {error}", hint="for example --budget runs/a=45MB") from None
        return cls(root, parse_bytes(size))

    def covers(self, path: Path) -> bool:
        """True when the path lies in the budget's folder."""
        return path == self.root or self.root in path.parents


@dataclass(frozen=True, slots=True)
class Limit:
    """One reason why no more than this can be written."""

    source: str
    """Where the figure is from: ``statvfs``, ``inodes``, ``budget DIR``, ``quota of user 1000``, ``memory ...``."""
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
    mount: Mount | None = None
    """What it is on; None where the kernel does not say."""

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

    @property
    def is_clusters(self) -> bool:
        """True when what is free is the figure of a whole cluster, of which an unknown part is the user's."""
        if self.mount is None or not self.mount.is_network or self.source != "statvfs":
            return False
        return (self.total_bytes or 0) > CLUSTER_BYTES

    @property
    def doubt(self) -> str | None:
        """Why the figure is not to be trusted, and what to do; None when there is no reason to think so."""
        if self.mount is None or not self.is_clusters:
            return None
        return (
            f"{show_bytes(self.free_bytes)} free on {self.mount} is the cluster's, not yours: "
            f"say how much is yours with --budget {self.mount.point}=100GB"
        )


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
    mounted: Callable[[Path], Mount | None] = mount_at,
    held: Callable[[Path, Mount | None], Sequence[Quota]] = quotas,
    memory: Callable[[int], tuple[str, int, int] | None] = tightest_memory,
) -> Room:
    """What can be written at a path, also one that does not exist yet. Takes about 60 us; on a tmpfs 250 us.

    Args:
        path: a file or folder.
        budgets: declared budgets; None takes those of the environment.
        statvfs: reads a file system's figures; takes 1 to 3 us.
        used: allocated bytes below a folder, for budgets.
        mounted: finds the mount of a folder.
        held: reads the quotas that hold there.
        memory: what holds a file in memory to less than so many bytes.
    """
    place = existing(Path(path))
    limits: list[Limit] = []
    inodes: list[int] = []
    device: int | None = None
    mount = mounted(place)
    try:
        figures = statvfs(str(place))
        device = os.stat(place).st_dev
    except OSError:
        limits.append(Limit("statvfs", None, None))
    else:
        free, total = figures.f_bavail * figures.f_frsize, figures.f_blocks * figures.f_frsize
        limits.append(Limit("statvfs", free, total))
        # f_files is 0 where inodes are made on demand (btrfs, some network file systems).
        if figures.f_files:
            inodes.append(figures.f_favail)
        if figures.f_files and not figures.f_favail:
            # Not a byte can be written to a file that cannot be made.
            limits.append(Limit("inodes", 0, total))
        if mount is not None and mount.is_memory and (tighter := memory(free)):
            limits.append(Limit(*tighter))
    for quota in held(place, mount):
        if quota.free_files is not None:
            inodes.append(quota.free_files)
        if quota.free_files == 0:
            limits.append(Limit(f"files in the {quota.source}", 0, quota.limit_bytes))
        elif quota.free_bytes is not None:
            limits.append(Limit(quota.source, quota.free_bytes, quota.limit_bytes))
    limits += _budgeted(place, declared_budgets() if budgets is None else budgets, used)
    return Room(place, device, tuple(_least_first(limits)), min(inodes, default=None), mount)


def _budgeted(place: Path, budgets: Iterable[Budget], used: Callable[[Path], int]) -> Iterator[Limit]:
    resolved: Path | None = None
    for budget in budgets:
        resolved = resolved or place.resolve()
        if budget.covers(resolved):
            yield Limit(f"budget {budget.root}", budget.limit_bytes - used(budget.root), budget.limit_bytes)


def _least_first(limits: Sequence[Limit]) -> list[Limit]:
    return sorted(limits, key=lambda limit: (limit.free_bytes is None, limit.free_bytes or 0))


def existing(path: Path) -> Path:
    """The nearest existing folder at or above a path."""
    for candidate in (path, *path.absolute().parents):
        if os.path.isdir(candidate):
            return candidate
    return Path("/")
