"""Fill places under quotas, as their users, and print what room() and explain_full() said before and after."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path

from outlast.host import explain_full, quotas, room
from outlast.host.mounts import mount_at
from outlast.host.quota import Quota

PIECE = bytes(64 * 1024)


def fill(place: str, user: int, group: int, *, many: bool = False) -> dict[str, object]:
    """What is said before and after writing until the kernel refuses; in a child, since a user is not root again."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setgroups([])
        os.setgid(group)
        os.setuid(user)
        os.write(writer, json.dumps(told(Path(place), many)).encode())
        os._exit(0)
    os.close(writer)
    os.wait()
    return dict(json.loads(os.read(reader, 1 << 16)))


def told(place: Path, many: bool) -> dict[str, object]:
    before = room(place, [])
    written = files = 0
    number = None
    names = [f"{os.geteuid()}-{os.getegid()}-{n}" for n in range(1000 if many else 1)]
    try:
        for name in names:
            with open(place / name, "wb", buffering=0) as file:
                files += 1
                while not many:
                    written += file.write(PIECE)
                    # Delayed blocks are charged when they are reserved, so the refusal is a write's, not a close's.
    except OSError as error:
        number = error.errno
    after = room(place, [])
    mount = mount_at(place)
    held: tuple[Quota, ...] = quotas(place, mount)
    return {
        "before": [before.source, before.free_bytes, before.total_bytes, before.free_inodes],
        "after": [after.source, after.free_bytes, after.free_inodes],
        "written": written,
        "files": files,
        "errno": errno.errorcode.get(number or 0),
        "says": explain_full(place / names[0], number, after),
        "quotas": [(quota.kind, quota.number, quota.used_files) for quota in held],
    }


found = {
    f"{volume} {what}": fill(f"/mnt/{volume}{below}", user, group, many=many)
    for volume in ("ext4", "xfs")
    for what, below, user, group, many in (
        ("user", "", 1000, 100, False),
        ("files", "", 1001, 100, True),
        ("group", "", 1002, 2000, False),
        ("project", "/project", 1003, 100, False),
    )
    if (volume, what) != ("xfs", "group")
}
sys.stdout.write(f"RESULT {json.dumps(found)}\n")
sys.stdout.flush()
