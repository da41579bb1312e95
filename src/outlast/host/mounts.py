"""Which mount a path is on: its point, the type of its file system and where that comes from."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from outlast.host.procfs import read_all

_NETWORK = frozenset(
    {
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "lustre_lite",
        "mfs",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "panfs",
        "pvfs2",
        "quobyte",
        "smb3",
        "smbfs",
        "virtiofs",
        "vastnfs",
        "wekafs",
    }
)
_LOCAL_FUSE = frozenset(
    {"fuse.fuse-overlayfs", "fuse.lxcfs", "fuse.ntfs-3g", "fuse.exfat", "fuse.unionfs", "fuse.mergerfs"}
)
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of ``/proc/self/mountinfo``."""

    number: int
    """The kernel's number for it."""
    device: tuple[int, int]
    """Major and minor number of the file system; not always those of its files (btrfs, overlay)."""
    root: str
    """The folder of the file system that is seen here: ``/``, or another one for a bind mount."""
    point: str
    """Where it is mounted; absolute."""
    fstype: str
    """``ext4``, ``fuse.mfs`` ..."""
    source: str
    """A device, ``server:/export``, or whatever the file system calls itself."""

    @property
    def is_network(self) -> bool:
        """True where the bytes are kept elsewhere: NFS, Lustre, MooseFS, FUSE ..."""
        if self.fstype in _NETWORK or self.source.startswith("mfs#"):
            return True
        return self.fstype == "fuse" or (self.fstype.startswith("fuse.") and self.fstype not in _LOCAL_FUSE)

    @property
    def is_memory(self) -> bool:
        """True where files are pages of memory: tmpfs, ``/dev/shm``."""
        return self.fstype in ("tmpfs", "ramfs")

    def __str__(self) -> str:
        return f"{self.point} ({self.fstype}, {self.source})"


def parse_mounts(text: str) -> tuple[Mount, ...]:
    """All mounts of a mountinfo file, in its order; a line that is none is left out (proc_pid_mountinfo(5))."""
    return tuple(mount for line in text.split("\n") if (mount := _parse(line)) is not None)


def _parse(line: str) -> Mount | None:
    # The number of optional fields before the lone hyphen varies.
    before, separator, after = line.partition(" - ")
    fields, rest = before.split(" "), after.split(" ")
    if not separator or len(fields) < 6 or len(rest) < 2:
        return None
    try:
        major, _, minor = fields[2].partition(":")
        number, device = int(fields[0]), (int(major), int(minor))
    except ValueError:
        return None
    return Mount(number, device, _plain(fields[3]), _plain(fields[4]), _plain(rest[0]), _plain(rest[1]))


def _plain(field: str) -> str:
    r"""The kernel writes blanks, tabs, newlines and backslashes as ``\040`` and the like, byte by byte."""
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), field) if "\\" in field else field


def mount_at(path: str | os.PathLike[str], *, proc: Path = Path("/proc")) -> Mount | None:
    """The mount that an existing path is on; None where the kernel does not say.

    The kernel is asked by number, since points can be mounted over: comparing paths would find what lies below.

    Args:
        path: a file or folder; links are followed.
        proc: the process file system.
    """
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        told = read_all(f"{proc}/self/fdinfo/{fd}")
    finally:
        os.close(fd)
    at = told.find("mnt_id:")
    if at < 0:
        return None
    number = told[at + 7 :].split("\n", 1)[0].strip()
    text = "\n" + read_all(f"{proc}/self/mountinfo")
    begin = text.find(f"\n{number} ") + 1
    return _parse(text[begin : text.find("\n", begin)]) if begin else None
