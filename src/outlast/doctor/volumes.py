"""Checks of the places where a run writes: room, inodes, rights, what memory they really are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from outlast.doctor.facts import Access, Facts, Volume
from outlast.doctor.findings import Finding, Status, error, export, fine, line, warning
from outlast.host import show_bytes

_LOW_BYTES, _LOW_PART = 1 << 30, 20
_NEXT_TO_NOTHING, _NEXT_PART = 64 << 20, 100
_LOW_INODES, _LOW_INODES_PART = 1000, 10
_SMALL_SHM = 1 << 30
_BUDGET_PART = 10


def disk_low(facts: Facts) -> Sequence[Finding]:
    """Little free: below 1 GiB and a 20th of the volume; next to nothing: below 64 MiB and a 100th."""
    found = []
    said_of: set[tuple[int | None, str]] = set()
    for volume in facts.volumes:
        free, total = volume.room.free_bytes, volume.room.total_bytes
        figures = {"free_bytes": free, "total_bytes": total, "free_inodes": volume.room.free_inodes}
        said = f"{volume.path}: {show_free(free)} free of {show_bytes(total)} ({volume.room.source})"
        status = Status.OK
        if free is not None and total:
            is_budget = volume.room.source.startswith("budget")
            # A budget is spent on purpose: at nine tenths is the time to say so.
            low = total // _BUDGET_PART if is_budget else min(_LOW_BYTES, total // _LOW_PART)
            least = min(_NEXT_TO_NOTHING, total // _NEXT_PART)
            status = Status.ERROR if free <= least else Status.WARNING if free <= low else Status.OK
        fix = None
        if status is not Status.OK:
            # The same volume under another name is said once.
            if (volume.room.device, volume.room.source) in said_of:
                continue
            said_of.add((volume.room.device, volume.room.source))
            # `clean` first: what it names can be made again.
            fix = f"outlast clean; {line('du', '-xhd1', volume.room.path)} | sort -h | tail -5"
        found.append(Finding(status, said, fix, volume.path, figures))
    return found


def show_free(size: int | None) -> str:
    """Free bytes for people; an overdrawn budget says by how much."""
    return show_bytes(size) if size is None or size >= 0 else f"0 B ({show_bytes(-size)} over)"


def inodes_low(facts: Facts) -> Sequence[Finding]:
    """Few files can still be made: below a thousand, or a tenth of what the volume can hold."""
    found = []
    said_of: set[int | None] = set()
    for volume in facts.volumes:
        free, total = volume.room.free_inodes, volume.total_inodes
        if free is None or (free >= _LOW_INODES and not (total and free < total // _LOW_INODES_PART)):
            continue
        if volume.room.device in said_of:
            continue
        said_of.add(volume.room.device)
        used = f"{100 - 100 * free // total} % of {total:,} are used; " if total else ""
        fix = f"{line('du', '--inodes', '-xd1', volume.room.path)} | sort -n | tail -5"
        said = f"{volume.path}: {used}{free:,} more files can be made"
        found.append((error if free < _LOW_INODES else warning)(said, fix, volume.path))
    return found


def not_writable(facts: Facts) -> Sequence[Finding]:
    """A place where the run writes and we cannot."""
    found: dict[Path, Finding] = {}
    for volume in facts.volumes:
        if not volume.access.is_writable:
            said = f"{volume.path} cannot be written to: {_why(volume.access)}"
            fix = fix_access(volume.room.path, volume.access, _point(volume))
            found.setdefault(volume.room.path, error(said, fix, volume.path))
    return list(found.values())


def _point(volume: Volume) -> str:
    return volume.room.mount.point if volume.room.mount else "/"


def _why(access: Access) -> str:
    if access.is_read_only:
        return "its volume is mounted read-only"
    if access.is_immutable:
        return "it is immutable (chattr +i)"
    return f"its mode is {access.mode:o}" if access.is_ours else "it belongs to another user"


def fix_access(path: Path, access: Access, point: str) -> str:
    """The line that makes a folder writable."""
    if access.is_read_only:
        return line("mount", "-o", "remount,rw", point, note="as root; in a container: start it with a writable volume")
    if access.is_immutable:
        return line("chattr", "-i", path, note="as root")
    if access.is_ours:
        return line("chmod", "u+w", path)
    return f'sudo chown "$(id -u)" {line(path)}'


def network_volume_without_budget(facts: Facts) -> Sequence[Finding]:
    """Free space that is the cluster's."""
    found: dict[str, Finding] = {}
    for volume in facts.volumes:
        if volume.room.is_clusters and volume.room.mount:
            point = volume.room.mount.point
            said = f"{show_bytes(volume.room.free_bytes)} free on {volume.room.mount} is the cluster's, not yours"
            fix = f"{export('OUTLAST_BUDGETS', f'{point}=100GB')}  # with the size that you rented"
            found.setdefault(point, warning(said, fix, Path(point)))
    return list(found.values())


def shm_small(facts: Facts) -> Sequence[Finding]:
    """DataLoader workers hand batches over through /dev/shm; docker gives it 64 MB."""
    if facts.shm is None:
        fix = "mkdir -p /dev/shm && mount -t tmpfs -o size=2g tmpfs /dev/shm  # as root"
        return [warning("there is no /dev/shm: DataLoader workers cannot hand over batches", fix, Path("/dev/shm"))]
    total, path = facts.shm.room.total_bytes, facts.shm.path
    if total is None or total >= _SMALL_SHM:
        return [fine(f"{path}: {show_bytes(total)}", path, total_bytes=total)]
    note = "as root; where that is refused: docker run --shm-size=2g, or DataLoader(num_workers=0)"
    fix = line("mount", "-o", "remount,size=2g", path, note=note)
    said = f"{path} holds {show_bytes(total)}: DataLoader workers die of a bus error when their batches do not fit"
    return [replace(warning(said, fix, path), figures={"total_bytes": total})]


def tmp_is_ram(facts: Facts) -> Sequence[Finding]:
    """What torch.compile keeps in /tmp is charged to memory there."""
    cache = facts.caches.get("inductor")
    if cache is None or not cache.is_memory:
        return []
    better = Path(facts.environment.get("HOME", "/root")) / ".cache" / "torchinductor"
    said = f"{cache.place.path} is on a tmpfs: what torch.compile keeps there is charged to your memory"
    return [warning(said, export("TORCHINDUCTOR_CACHE_DIR", better), cache.place.path)]
