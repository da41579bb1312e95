"""What memory leaves to files in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from outlast.host.ram import tightest_memory

MIB = 1 << 20
ENOUGH = 1 << 40


def machine(root: Path, *, available: int = 10_000 * MIB, swap: int = 0) -> Path:
    write(root / "proc/meminfo", f"MemTotal: {20_000 * 1024} kB\nMemAvailable: {available // 1024} kB\n"
          f"SwapTotal: 0 kB\nSwapFree: {swap // 1024} kB\n")  # fmt: skip
    return root


def write(path: Path, text: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


def test_the_machine_gives_what_it_has_available_and_swap(tmp_path: Path) -> None:
    machine(tmp_path, available=300 * MIB, swap=100 * MIB)
    assert tightest_memory(ENOUGH, root=tmp_path) == ("memory of the machine", 400 * MIB, 20_000 * MIB)


def test_a_group_gives_what_its_limit_leaves_without_the_pages_of_disks(tmp_path: Path) -> None:
    machine(tmp_path)
    write(tmp_path / "proc/self/cgroup", "0::/pod/me")
    write(tmp_path / "sys/fs/cgroup/pod/me/memory.max", 1000 * MIB)
    write(tmp_path / "sys/fs/cgroup/pod/me/memory.current", 900 * MIB)
    write(tmp_path / "sys/fs/cgroup/pod/me/memory.stat", f"inactive_file {100 * MIB}\nactive_file {50 * MIB}\nshmem 7")
    assert tightest_memory(ENOUGH, root=tmp_path) == ("memory limit of the group", 250 * MIB, 1000 * MIB)


def test_a_group_is_held_to_the_limits_above_it(tmp_path: Path) -> None:
    machine(tmp_path)
    write(tmp_path / "proc/self/cgroup", "0::/pod/me")
    write(tmp_path / "sys/fs/cgroup/pod/me/memory.max", "max")
    write(tmp_path / "sys/fs/cgroup/pod/me/memory.current", 5 * MIB)
    write(tmp_path / "sys/fs/cgroup/pod/memory.max", 100 * MIB)
    write(tmp_path / "sys/fs/cgroup/pod/memory.current", 40 * MIB)
    assert tightest_memory(ENOUGH, root=tmp_path) == ("memory limit of the group", 60 * MIB, 100 * MIB)


def test_the_first_version_of_control_groups_is_read_too(tmp_path: Path) -> None:
    machine(tmp_path)
    write(tmp_path / "proc/self/cgroup", "9:name=systemd:/\n4:memory:/docker/abc\n0::/")
    # In a container the group itself is what is mounted.
    write(tmp_path / "sys/fs/cgroup/memory/memory.limit_in_bytes", 500 * MIB)
    write(tmp_path / "sys/fs/cgroup/memory/memory.usage_in_bytes", 450 * MIB)
    write(tmp_path / "sys/fs/cgroup/memory/memory.stat", f"inactive_file 1\ntotal_inactive_file {50 * MIB}")
    assert tightest_memory(ENOUGH, root=tmp_path) == ("memory limit of the group", 100 * MIB, 500 * MIB)


def test_no_limit_is_no_limit(tmp_path: Path) -> None:
    machine(tmp_path)
    write(tmp_path / "proc/self/cgroup", "4:memory:/\n")
    write(tmp_path / "sys/fs/cgroup/memory/memory.limit_in_bytes", 9223372036854771712)
    write(tmp_path / "sys/fs/cgroup/memory/memory.usage_in_bytes", 450 * MIB)
    found = tightest_memory(ENOUGH, root=tmp_path)
    assert found is not None and found[0] == "memory of the machine"


def test_what_leaves_enough_is_not_told(tmp_path: Path) -> None:
    assert tightest_memory(64 * MIB, root=machine(tmp_path)) is None


@pytest.mark.parametrize("text", ["", "0::/../..", "nonsense"])
def test_where_nothing_can_be_read_nothing_is_known(tmp_path: Path, text: str) -> None:
    if text:
        write(tmp_path / "proc/self/cgroup", text)
    assert tightest_memory(ENOUGH, root=tmp_path) is None
