"""How full a place is, and what to say of ENOSPC and EDQUOT: one event to the user. Pure."""

from __future__ import annotations

import errno
import os
from enum import Enum
from pathlib import Path

from outlast.host.units import show_bytes
from outlast.host.volumes import Limit, Room

WARN_SHARE = 0.9
"""Share of a limit from which on it is close."""
_NEARLY = 1 << 20
"""Bytes: a limit with less than this left is taken for the one that was hit."""


class Pressure(Enum):
    """What a guard does about a place."""

    OK = "ok"
    """Nothing."""
    WARN = "warn"
    """Says that a limit is close: nine tenths of it are taken."""
    FULL = "full"
    """Refuses: not a byte is left under some limit."""


def pressure(room: Room) -> Pressure | None:
    """How close a place is to its limits; None when no figure is known that is the user's.

    A cluster's figure says nothing of what is the user's, so it counts only when nothing is left at all.
    """
    known = [limit for limit in room.limits if limit.free_bytes is not None]
    if any(limit.free_bytes is not None and limit.free_bytes <= 0 for limit in known):
        return Pressure.FULL
    told = [limit for limit in known if not (room.is_clusters and limit.source == "statvfs")]
    if not told:
        return None
    return Pressure.WARN if any(_is_close(limit) for limit in told) else Pressure.OK


def _is_close(limit: Limit) -> bool:
    if limit.free_bytes is None or not limit.total_bytes:
        return False
    return limit.total_bytes - limit.free_bytes >= WARN_SHARE * limit.total_bytes


def explain_full(path: str | os.PathLike[str], error_errno: int | None, room: Room) -> str:
    """One sentence for a write that failed for want of room: which path, which mount, which limit, what to do.

    Args:
        path: what was written; caches fill quotas as often as checkpoints do, so it must be named.
        error_errno: ENOSPC or EDQUOT; None when a library hid it.
        room: read at that path after the failure.
    """
    where = f"{Path(path)} on {room.mount}" if room.mount else str(Path(path))
    return f"no room for {where}: {_reason(error_errno, room)}"


def _reason(error_errno: int | None, room: Room) -> str:
    known = [limit for limit in room.limits if limit.free_bytes is not None]
    if not known:
        return "how much is free there cannot be read"
    hit = next((limit for limit in known if (limit.free_bytes or 0) < _NEARLY), None)
    if error_errno == errno.EDQUOT and (hit is None or "quota" not in hit.source):
        return _hidden_quota(room, hit)
    if hit is None:
        return (
            f"{_left(known[0])} now under {_name(known[0])}: less was left a moment ago, the write was larger than "
            "that, or a limit holds that this machine does not show"
        )
    if hit.source == "inodes" or hit.source.startswith("files in"):
        return f"{_name(hit)} are taken, so no file can be made though bytes are left: delete small files"
    return f"{_name(hit)} is exhausted, {_left(hit)}"


def _hidden_quota(room: Room, hit: Limit | None) -> str:
    """The kernel said that a quota is exhausted, and none of those that it shows is."""
    if hit is not None and hit.source == "statvfs":
        return f"a project quota is exhausted, {_left(hit)}"
    shown = _left(room.limits[0])
    advice = f"say how much is yours with --budget {room.mount.point if room.mount else room.path}=100GB"
    if room.mount and room.mount.is_network:
        return f"a quota that the server keeps is exhausted ({shown}, but that is not yours); {advice}"
    if room.mount and room.mount.fstype == "btrfs":
        return f"a btrfs quota group is exhausted ({shown} on the volume); root sees which: btrfs qgroup show; {advice}"
    return f"a quota that this machine does not show is exhausted ({shown} on the volume); {advice}"


def _name(limit: Limit) -> str:
    if limit.source == "statvfs":
        return "the volume"
    if limit.source == "inodes":
        return "all inodes of the volume"
    if limit.source.startswith("files in"):
        return "all " + limit.source
    return f"the {limit.source}"


def _left(limit: Limit) -> str:
    free, total = limit.free_bytes, limit.total_bytes
    if free is not None and free < 0:
        return f"{show_bytes(-free)} over its {show_bytes(total)}"
    return f"{show_bytes(free)} of {show_bytes(total)} left"
