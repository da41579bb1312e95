"""Promise 4: a save is admitted before it starts, whatever limits what can be written.

Real volumes and real processes: a budget, inodes, memory, a quota group that nothing shows, a project of small files.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from outlast.host import explain_full, mount_at, room
from tests.torture.conftest import child_environment

MB = 10**6

WRITER = """
import sys
from pathlib import Path
from outlast.host import pressure, room
place = Path(sys.argv[1])
for number in range(1000):
    found = room(place)
    print(pressure(found).value, found.free_bytes, flush=True)
    if found.lacks(1_000_000):
        break
    (place / f"checkpoint-{number}").write_bytes(bytes(1_000_000))
"""


def test_a_process_under_a_small_budget_is_warned_at_nine_tenths_and_stops_in_time(tmp_path: Path) -> None:
    budget = 20 * MB
    done = subprocess.run(
        [sys.executable, "-c", WRITER, tmp_path],
        env=child_environment(OUTLAST_BUDGETS=f"{tmp_path}={budget}"),
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    said = [line.split() for line in done.stdout.splitlines()]
    words = [word for word, _ in said]
    assert words == sorted(words, key=["ok", "warn", "full"].index) and set(words) >= {"ok", "warn"}
    for word, free in said:
        assert (word == "ok") == (budget - int(free) < 0.9 * budget)
    taken = int(subprocess.check_output(["du", "-s", "--block-size=1", tmp_path]).split()[0])
    assert budget - MB < taken <= budget


def test_a_volume_without_inodes_has_no_room_though_bytes_are_free(tmp_path: Path) -> None:
    image, place = tmp_path / "image", tmp_path / "volume"
    place.mkdir()
    subprocess.run(["truncate", "-s", "32M", image], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-N", "32", "-m", "0", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    try:
        made = 0
        assert not room(place, []).lacks(MB)
        with pytest.raises(OSError) as caught:
            while made < 100:
                (place / f"file{made}").touch()
                made += 1
        found = room(place, [])
        assert caught.value.errno == errno.ENOSPC
        assert (found.source, found.free_bytes, found.free_inodes) == ("inodes", 0, 0) and found.lacks(1)
        assert f"{place}/new on {place} (ext4, /dev/loop" in (said := explain_full(place / "new", errno.ENOSPC, found))
        assert "all inodes of the volume are taken" in said
        (place / "file0").unlink()
        assert not room(place, []).lacks(MB)
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_a_full_tmpfs_is_named_with_its_mount(volume: Callable[..., Path]) -> None:
    place = volume("4m")
    with pytest.raises(OSError) as caught, (place / "file").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))
    said = explain_full(place / "file", caught.value.errno, room(place, []))
    assert (
        said
        == f"no room for {place / 'file'} on {place} (tmpfs, outlast-test): the volume is exhausted, 0 B of 4.2 MB left"
    )


@pytest.fixture
def group() -> Iterator[tuple[str, int]]:
    """A memory group of 64 MiB: its folder's ``cgroup.procs`` file, and its limit."""
    limit = 64 << 20
    first, second = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    is_first = (first / "memory.limit_in_bytes").exists()
    folder = (first if is_first else second) / f"outlast-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / ("memory.limit_in_bytes" if is_first else "memory.max")).write_text(str(limit))
    except OSError as error:
        if folder.exists():
            folder.rmdir()
        pytest.skip(f"no memory group can be made here: {error}")
    yield str(folder / "cgroup.procs"), limit
    folder.rmdir()


def test_a_tmpfs_larger_than_the_memory_limit_has_only_what_that_leaves(
    volume: Callable[..., Path], group: tuple[str, int]
) -> None:
    procs, limit = group
    place = volume("1g")
    code = (
        "import os, sys\n"
        "from outlast.host import room\n"
        "open(sys.argv[2], 'w').write(str(os.getpid()))\n"
        "before = room(sys.argv[1], [])\n"
        "open(sys.argv[1] + '/file', 'wb').write(bytes(16 << 20))\n"
        "after = room(sys.argv[1], [])\n"
        "os.unlink(sys.argv[1] + '/file')\n"
        "print(before.source, before.total_bytes, before.free_bytes, after.free_bytes, sep='|')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, place, procs],
        env=child_environment(), capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    source, total, before, after = done.stdout.strip().split("|")
    assert (source, int(total)) == ("memory limit of the group", limit)
    assert 0 < int(before) <= limit
    # The pages of the file count, and nothing else grew by much.
    assert 12 << 20 <= int(before) - int(after) <= 36 << 20


@pytest.mark.skipif(shutil.which("btrfs") is None, reason="needs the package btrfs-progs")
def test_a_quota_that_nothing_shows_is_told_as_such_when_it_is_hit(tmp_path: Path) -> None:
    image, place = tmp_path / "image", tmp_path / "volume"
    place.mkdir()
    subprocess.run(["truncate", "-s", "128M", image], check=True)
    subprocess.run(["mkfs.btrfs", "-q", image], check=True, capture_output=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    try:
        for command in (
            ["quota", "enable", place],
            ["subvolume", "create", place / "mine"],
            ["qgroup", "limit", "8M", place / "mine"],
        ):
            subprocess.run(["btrfs", *command], check=True, capture_output=True)
        path = place / "mine" / "cache"
        with pytest.raises(OSError) as caught, path.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 20))
        found = room(path, [])
        assert caught.value.errno == errno.EDQUOT and found.source == "statvfs" and not found.lacks(MB)
        said = explain_full(path, caught.value.errno, found)
        assert said.startswith(f"no room for {path} on {place} (btrfs, /dev/loop")
        assert "a btrfs quota group is exhausted" in said and "--budget" in said
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_a_place_that_is_mounted_while_it_is_watched_is_seen_at_once(
    tmp_path: Path, volume: Callable[..., Path]
) -> None:
    before = mount_at(tmp_path)
    places = [volume("1m") for _ in range(3)]
    for place in places:
        found = mount_at(place)
        assert found is not None and found.point == str(place) and found != before
