"""What the kernel's quotas leave to a user: quotactl(2). statvfs does not show these.

A project quota (XFS, ext4, Docker's ``--storage-opt size``) is not asked for: statvfs shows its figures as if the tree
were a file system of its own. Neither are btrfs's qgroups (for root alone), nor those that a server keeps (NFS, Lustre,
MooseFS): the kernel here does not know them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from outlast.host.mounts import Mount

_TYPES = frozenset({"ext2", "ext3", "ext4", "xfs", "f2fs", "ocfs2", "gfs2", "jfs", "reiserfs", "tmpfs", "bcachefs"})
_USER, _GROUP = 0, 1
_Q_GETQUOTA = 0x800007
_QUOTACTL_FD = 443  # the same number on every architecture (Linux 5.14 on)
_ANSWER = struct.Struct("=QQQQQQQQI4x")
_BLOCK = 1024  # limits are in KiB whatever the file system's block is; usage is in bytes
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Quota:
    """What one user or group may take of a file system."""

    kind: str
    """``user`` or ``group``."""
    number: int
    """uid or gid."""
    limit_bytes: int | None
    """Most bytes; None when bytes are not limited."""
    used_bytes: int
    """Bytes taken."""
    limit_files: int | None
    """Most files; None when files are not limited."""
    used_files: int
    """Files there."""

    @property
    def source(self) -> str:
        """A name for messages."""
        return f"quota of {self.kind} {self.number}"

    @property
    def free_bytes(self) -> int | None:
        """Bytes still to be written; below 0 when overdrawn; None when not limited."""
        return None if self.limit_bytes is None else self.limit_bytes - self.used_bytes

    @property
    def free_files(self) -> int | None:
        """Files still to be made; None when not limited."""
        return None if self.limit_files is None else max(0, self.limit_files - self.used_files)


Ask = Callable[[int, int, int], bytes | None]
"""Kernel's answer for (descriptor on the file system, 0 for a user and 1 for a group, its number); None when none."""


def quotas(
    path: str | os.PathLike[str],
    mount: Mount | None,
    *,
    user: int | None = None,
    group: int | None = None,
    ask: Ask | None = None,
    now: Callable[[], float] = time.time,
) -> tuple[Quota, ...]:
    """Quotas that hold for what we write in a folder; none where there are none, or nobody tells us.

    Args:
        path: an existing folder.
        mount: its mount; where that is of a type without quotas nothing is asked.
        user: uid that writes; None takes ours. 0 has no quota.
        group: gid that new files get; None takes the folder's when it hands its group on, else ours.
        ask: reads the kernel's answer.
        now: seconds since the epoch.
    """
    if mount is None or mount.fstype not in _TYPES:
        return ()
    user = os.geteuid() if user is None else user
    if user == 0:
        # Nobody holds root to a quota; on XFS the entry of 0 is the default of all others.
        return ()
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return ()
    try:
        if group is None:
            folder = os.fstat(fd)
            group = folder.st_gid if folder.st_mode & stat.S_ISGID else os.getegid()
        asked = ask or _asker(mount)
        found = []
        for kind, number in ((_USER, user), (_GROUP, group)):
            answer = asked(fd, kind, number) if number else None
            quota = decode(kind, number, answer, now()) if answer else None
            if quota:
                found.append(quota)
        return tuple(found)
    finally:
        os.close(fd)


def decode(kind: int, number: int, answer: bytes, now: float) -> Quota | None:
    """A quota from the kernel's ``struct if_dqblk``; None when it limits nothing.

    The hard limit counts; the soft one where there is no other, or once its grace is over: the kernel refuses then.
    """
    hard, soft, used, hard_files, soft_files, files, until, until_files, _ = _ANSWER.unpack(answer)
    blocks = _limit(hard, soft, until, now)
    inodes = _limit(hard_files, soft_files, until_files, now)
    if blocks is None and inodes is None:
        return None
    limit = None if blocks is None else blocks * _BLOCK
    return Quota(("user", "group")[kind], number, limit, used, inodes, files)


def _limit(hard: int, soft: int, until: int, now: float) -> int | None:
    if soft and (not hard or 0 < until <= now):
        return soft
    return hard or None


def _asker(mount: Mount) -> Ask:
    def ask(fd: int, kind: int, number: int) -> bytes | None:
        answer = ctypes.create_string_buffer(_ANSWER.size)
        # The command's number is unsigned in C and may look negative to ctypes.
        command = ctypes.c_uint((_Q_GETQUOTA << 8) | kind)
        if _libc.syscall(ctypes.c_long(_QUOTACTL_FD), ctypes.c_uint(fd), command, ctypes.c_int(number), answer) == 0:
            return answer.raw
        if ctypes.get_errno() == errno.ENOSYS and mount.source.startswith("/dev/"):
            device = os.fsencode(mount.source)
            if _libc.quotactl(command, device, ctypes.c_int(number), answer) == 0:
                return answer.raw
        # ESRCH: no quotas there. EPERM: a container's filter. Either way nobody tells us.
        return None

    return ask
