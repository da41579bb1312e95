"""The memory cgroup of a process, from files as the kernel writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from outlast.host import memory_group

V1_NO_LIMIT = 9223372036854771712
GROUP = "docker/abc"


def kernel(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    """A /proc and a /sys as far as they are read."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2 = {"memory.events": "low 0\noom 4\noom_kill 2\n", "memory.max": "1000000\n", "memory.current": "700\n"}
V1 = {
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
    "memory.limit_in_bytes": "2000000\n",
    "memory.usage_in_bytes": "900\n",
}


def below(folder: str, files: dict[str, str]) -> dict[str, str]:
    return {f"{folder}/{name}": text for name, text in files.items()}


def test_version_2_is_read_from_the_processs_own_group(tmp_path: Path) -> None:
    found = memory_group(root=kernel(tmp_path, f"0::/{GROUP}\n", below(GROUP, V2)))
    assert found is not None
    assert (found.oom_kills, found.limit_bytes, found.used_bytes) == (2, 1_000_000, 700)
    assert found.source == str(tmp_path / "sys/fs/cgroup" / GROUP / "memory.events")


def test_version_1_is_read_from_the_memory_controller(tmp_path: Path) -> None:
    lines = f"12:cpu,cpuacct:/other\n5:memory:/{GROUP}\n1:name=systemd:/x\n"
    found = memory_group(root=kernel(tmp_path, lines, below(f"memory/{GROUP}", V1)))
    assert found is not None
    assert (found.oom_kills, found.limit_bytes, found.used_bytes) == (3, 2_000_000, 900)


@pytest.mark.parametrize(
    ("line", "files"), [(f"0::/{GROUP}\n", V2), (f"5:memory:/{GROUP}\n", below("memory", V1))], ids=["v2", "v1"]
)
def test_in_a_container_the_group_is_the_root_of_what_is_mounted(
    tmp_path: Path, line: str, files: dict[str, str]
) -> None:
    found = memory_group(root=kernel(tmp_path, line, files))
    assert found is not None and found.oom_kills in (2, 3)


def test_no_limit_is_none_in_both_versions(tmp_path: Path) -> None:
    second = memory_group(root=kernel(tmp_path / "2", "0::/\n", {**V2, "memory.max": "max\n"}))
    first = memory_group(
        root=kernel(tmp_path / "1", "5:memory:/\n", below("memory", {**V1, "memory.limit_in_bytes": f"{V1_NO_LIMIT}"}))
    )
    assert second is not None and second.limit_bytes is None
    assert first is not None and first.limit_bytes is None


def test_a_hybrid_machine_is_read_where_the_memory_controller_is(tmp_path: Path) -> None:
    lines = f"5:memory:/{GROUP}\n0::/user.slice\n"
    found = memory_group(root=kernel(tmp_path, lines, below(f"memory/{GROUP}", V1)))
    assert found is not None and found.oom_kills == 3


@pytest.mark.parametrize(
    ("cgroup", "files"),
    [
        ("0::/\n", {}),
        ("", V2),
        ("0::/\n", {"memory.events": "low 0\n"}),
        ("0::/\n", {"memory.events": "oom_kill many\n"}),
    ],
    ids=["no files", "no group", "no count", "no number"],
)
def test_where_there_is_nothing_to_read_it_is_none(tmp_path: Path, cgroup: str, files: dict[str, str]) -> None:
    assert memory_group(root=kernel(tmp_path, cgroup, files)) is None


def test_a_process_that_is_gone_has_none(tmp_path: Path) -> None:
    assert memory_group(4242, root=tmp_path) is None


def test_a_figure_that_cannot_be_read_is_none_and_the_rest_counts(tmp_path: Path) -> None:
    found = memory_group(root=kernel(tmp_path, "0::/\n", {"memory.events": "oom_kill 1\n"}))
    assert found is not None
    assert (found.oom_kills, found.limit_bytes, found.used_bytes) == (1, None, None)


def test_a_path_with_colons_is_read_whole(tmp_path: Path) -> None:
    found = memory_group(root=kernel(tmp_path, "0::/a:b\n", below("a:b", V2)))
    assert found is not None and "a:b" in found.source
