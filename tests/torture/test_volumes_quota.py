"""Promise 4: a save is admitted before it starts, also where a quota is tighter than the disk.

Real quotas of ext4 and XFS, in a user-mode Linux: the kernel of many machines is built without them, Debian's
user-mode one has all. What room() says is compared with what the kernel then lets a user write.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.torture.conftest import SCRIPTS

KERNEL = "linux.uml"
NEEDED = (KERNEL, "insmod", "setquota", "mkfs.xfs", "xfs_quota", "mkfs.ext4", "chattr")
MIB = 1 << 20
pytestmark = pytest.mark.skipif(
    any(shutil.which(name) is None for name in NEEDED),
    reason="needs the packages user-mode-linux, kmod, quota, xfsprogs and e2fsprogs",
)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("quota")
    ext4, xfs = folder / "ext4", folder / "xfs"
    subprocess.run(["truncate", "-s", "64M", ext4], check=True)
    quota = ["-O", "quota,project", "-E", "quotatype=usrquota:grpquota:prjquota"]
    subprocess.run(["mkfs.ext4", "-q", *quota, ext4], check=True)
    subprocess.run(["truncate", "-s", "320M", xfs], check=True)
    subprocess.run(["mkfs.xfs", "-q", xfs], check=True)
    command = [
        KERNEL, "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "mem=512M", "quiet", "panic=1",
        f"ubdb={ext4}", f"ubdc={xfs}", "con=null", "con0=null,fd:1", f"init={SCRIPTS / 'quota_init.sh'}",
        f"OUTLAST_PYTHON={sys.executable}", f"OUTLAST_SCRIPT={SCRIPTS / 'quota_fill.py'}",
    ]  # fmt: skip
    # The kernel keeps its memory in a file there, and its sockets in $HOME/.uml.
    environment = {**os.environ, "TMPDIR": str(folder), "HOME": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, cwd=folder)
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert results, done.stdout[-3000:] + done.stderr[-3000:]
    yield json.loads(results[0].removeprefix("RESULT "))


@pytest.mark.parametrize(
    ("place", "source", "limit"),
    [
        ("ext4 user", "quota of user 1000", 10 * MIB),
        ("ext4 group", "quota of group 2000", 6 * MIB),
        ("xfs user", "quota of user 1000", 10 * MIB),
        # statvfs shows a project's quota as if it were the file system.
        ("ext4 project", "statvfs", 5 * MIB),
        ("xfs project", "statvfs", 5 * MIB),
    ],
)
def test_room_is_what_the_kernel_lets_a_user_write(told: dict[str, Any], place: str, source: str, limit: int) -> None:
    found = told[place]
    named, free, total, _ = found["before"]
    assert (named, total) == (source, limit)
    assert found["errno"] in ("EDQUOT", "ENOSPC")
    # Within the last piece, of 64 KiB, and the blocks that hold the file's map.
    assert free - 3 * 65536 <= found["written"] <= free
    assert found["after"][0] == source and found["after"][1] < 3 * 65536


@pytest.mark.parametrize("volume", ["ext4", "xfs"])
def test_a_quota_of_files_is_told_too(told: dict[str, Any], volume: str) -> None:
    found = told[f"{volume} files"]
    assert found["before"][3] == 5 and found["files"] == 5 and found["errno"] == "EDQUOT"
    assert found["after"] == ["files in the quota of user 1001", 0, 0]
    assert "all files in the quota of user 1001 are taken" in found["says"]


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("ext4 user", "on /mnt/ext4 (ext4, /dev/ubdb): the quota of user 1000 is exhausted"),
        ("ext4 group", "the quota of group 2000 is exhausted"),
        ("xfs user", "on /mnt/xfs (xfs, /dev/ubdc): the quota of user 1000 is exhausted"),
    ],
)
def test_the_message_names_the_quota_that_was_hit(told: dict[str, Any], place: str, words: str) -> None:
    assert words in told[place]["says"]
