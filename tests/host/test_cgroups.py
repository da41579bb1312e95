"""Groups of both versions as the kernel writes them: which limit counts, and what counts against it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import MIB, docker_first, docker_second, first, machine, process, second, slurm_first, write

from outlast.host import memory_group, memory_limit, memory_limit_again, own_bytes, tree_memory
from outlast.host.cgroups import groups_of, stall_of
from outlast.host.memory import host_memory, largest_processes
from outlast.host.procfs import fields, picked


def test_in_docker_with_version_2_the_containers_limit_counts(tmp_path: Path) -> None:
    (group,) = groups_of(root=docker_second(tmp_path))
    assert (group.version, group.limit_bytes, group.high_bytes) == (2, 1000 * MIB, None)
    assert (group.working_set_bytes, group.held_bytes, group.shmem_bytes) == (700 * MIB, 600 * MIB, 64 * MIB)
    assert (group.events["oom_kill"], group.events["max"], group.swap_limit_bytes) == (2, 4, 0)
    limit = memory_limit(root=tmp_path)
    assert limit is not None and limit.folder == str(tmp_path / "sys/fs/cgroup")
    assert (limit.free_bytes, limit.fraction, limit.is_shared) == (400 * MIB, 0.6, False)
    assert (limit.stall_percent, limit.swap_left_bytes) == (33.0, 0)


def test_in_docker_with_version_1_the_containers_limit_counts(tmp_path: Path) -> None:
    limit = memory_limit(root=docker_first(tmp_path))
    assert limit is not None
    assert (limit.limit_bytes, limit.held_bytes, limit.is_shared) == (800 * MIB, 400 * MIB, False)
    assert limit.stall_percent is None, "version 1 has none of its own, and the machine's may be that of others"
    assert limit.stall is not None and limit.stall.full_percent == 1.25


def test_in_slurm_the_tightest_of_the_groups_above_counts(tmp_path: Path) -> None:
    limit = memory_limit(root=slurm_first(tmp_path))
    assert limit is not None and limit.folder is not None and limit.folder.endswith("job_42")
    assert (limit.limit_bytes, limit.free_bytes, limit.is_shared) == (2000 * MIB, 500 * MIB, True)
    assert [group.limit_bytes for group in groups_of(root=tmp_path)][0] == 2000 * MIB


def test_a_limit_of_a_group_that_a_container_does_not_see_counts(tmp_path: Path) -> None:
    machine(tmp_path, "4:memory:/kubepods/pod1/c1\n")
    first(tmp_path / "sys/fs/cgroup/memory", usage=100 * MIB, above=300 * MIB)
    limit = memory_limit(root=tmp_path)
    assert limit is not None and limit.limit_bytes == 300 * MIB


def test_memory_high_is_a_limit_where_it_is_the_lower_one(tmp_path: Path) -> None:
    machine(tmp_path, "0::/user.slice\n")
    second(tmp_path / "sys/fs/cgroup/user.slice", current=500 * MIB, limit=2000 * MIB, high=800 * MIB)
    limit = memory_limit(root=tmp_path)
    assert limit is not None and (limit.limit_bytes, limit.is_slowed) == (800 * MIB, True)


def test_caches_of_names_and_files_do_not_count_and_files_in_memory_do(tmp_path: Path) -> None:
    machine(tmp_path, "0::/a\n")
    second(
        tmp_path / "sys/fs/cgroup/a", current=1000 * MIB, limit=2000 * MIB, slab_reclaimable=300 * MIB,
        active_file=200 * MIB, shmem=400 * MIB,
    )  # fmt: skip
    limit = memory_limit(root=tmp_path)
    assert limit is not None and limit.held_bytes == 500 * MIB


def test_without_a_limit_the_machine_is_the_limit(tmp_path: Path) -> None:
    machine(tmp_path, "0::/a\n", swap=512 * MIB)
    second(tmp_path / "sys/fs/cgroup/a", current=500 * MIB)
    limit = memory_limit(root=tmp_path)
    assert limit is not None and limit.folder is None and limit.is_shared
    assert limit.limit_bytes == 24684096 * 1024 and limit.free_bytes == 23137148 * 1024
    assert (limit.swap_left_bytes, limit.stall_percent) == (512 * MIB, 1.25)


@pytest.mark.parametrize(("limit", "left"), [(100 * MIB, 60 * MIB), ("max", 512 * MIB)])
def test_swap_counts_as_far_as_the_group_may_take_it(tmp_path: Path, limit: object, left: int) -> None:
    machine(tmp_path, "0::/a\n", swap=512 * MIB)
    second(tmp_path / "sys/fs/cgroup/a", current=100 * MIB, limit=200 * MIB, swap=40 * MIB, swap_limit=limit)
    found = memory_limit(root=tmp_path)
    assert found is not None and found.swap_left_bytes == left


def test_swap_of_version_1_is_what_its_two_limits_leave(tmp_path: Path) -> None:
    machine(tmp_path, "4:memory:/\n", swap=512 * MIB)
    place = tmp_path / "sys/fs/cgroup/memory"
    first(place, usage=100 * MIB, limit=200 * MIB, with_swap_limit=300 * MIB, swap=30 * MIB)
    (group,) = groups_of(root=tmp_path)
    assert (group.swap_used_bytes, group.swap_limit_bytes) == (30 * MIB, 100 * MIB)


def test_the_same_limit_is_read_again_from_its_own_files(tmp_path: Path) -> None:
    before = memory_limit(root=docker_second(tmp_path))
    assert before is not None
    second(tmp_path / "sys/fs/cgroup", current=950 * MIB, limit=1000 * MIB, inactive_file=10 * MIB, full="80.00")
    after = memory_limit_again(before, root=tmp_path)
    assert (after.held_bytes, after.limit_bytes, after.stall_percent) == (940 * MIB, 1000 * MIB, 80.0)
    (tmp_path / "sys/fs/cgroup/memory.current").unlink()
    assert memory_limit_again(before, root=tmp_path).held_bytes == before.held_bytes
    whole = memory_limit(root=machine(tmp_path / "m"))
    assert whole is not None and memory_limit_again(whole, root=tmp_path / "m") == whole


def test_where_nothing_can_be_read_nothing_is_known(tmp_path: Path) -> None:
    assert memory_limit(root=tmp_path) is None
    assert groups_of(root=tmp_path) == []
    host = host_memory(root=tmp_path)
    assert (host.total_bytes, host.available_bytes, host.stall) == (None, None, None)


@given(st.text(st.characters(blacklist_categories=["Cs"]), max_size=80))
def test_no_line_of_a_cgroup_file_is_a_crash(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    root = tmp_path_factory.mktemp("any")
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_bytes(text.encode())
    assert memory_group(root=root) is None and groups_of(root=root) == []


@pytest.mark.parametrize("text", ["", "some avg10=x\n", "some\n", "full avg10=1.0\n", "some avg10\n"])
def test_a_pressure_file_that_says_nothing_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "memory").write_text(text)
    assert stall_of(str(tmp_path / "memory")) is None


@given(st.dictionaries(st.sampled_from(["a", "ab", "total_a", "b:"]), st.integers(0, 2**63)), st.text(max_size=20))
def test_picked_lines_are_those_of_the_whole_file(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, int], rest: str
) -> None:
    path = tmp_path_factory.mktemp("any") / "stat"
    path.write_bytes("".join(f"{name} {size} kB\n" for name, size in values.items()).encode() + b"x\n")
    assert fields(path) == values
    assert picked(path, ["a", "b:", rest]) == {name: size for name, size in values.items() if name in ("a", "b:", rest)}


def test_a_process_and_all_below_it_are_added_with_shared_pages_once(tmp_path: Path) -> None:
    for pid, parent, rss in ((10, 1, 100), (11, 10, 60), (12, 11, 60), (13, 1, 900)):
        process(tmp_path, pid, parent=parent, rss=rss * MIB, shared=40 * MIB, name="train")
    tree = tree_memory(10, proc=tmp_path / "proc")
    assert [one.pid for one in tree] == [10, 11, 12] and tree[0].name == "train"
    assert own_bytes(tree) == (40 + 60 + 20 + 20) * MIB
    assert [one.pid for one in largest_processes(2, proc=tmp_path / "proc")] == [13, 10]
    assert tree_memory(99, proc=tmp_path / "proc") == [] and own_bytes([]) == 0


def test_a_process_of_the_kernels_own_holds_nothing(tmp_path: Path) -> None:
    process(tmp_path, 2, parent=0, rss=0, name="kthreadd")
    write(tmp_path / "proc/3/statm", "torn")
    assert tree_memory(2, proc=tmp_path / "proc") == [] and largest_processes(5, proc=tmp_path / "proc") == []
