"""The process tree, and the kernel's out-of-memory counts."""

import os
import subprocess
from pathlib import Path

from outlast.launch import processes
from outlast.launch.processes import OomCounts


def test_descendants_are_found_to_the_last_and_parents_come_first():
    with subprocess.Popen(["sh", "-c", "sleep 300 & echo $!; wait"], stdout=subprocess.PIPE, text=True) as outer:
        inner = int(outer.stdout.readline())
        found = processes.descendants(os.getpid())
        assert found.index(outer.pid) < found.index(inner)
        processes.signal_all([inner, outer.pid], 9)


def test_a_process_is_told_from_a_later_one_with_the_same_id_by_its_start():
    assert processes.start_ticks(os.getpid()) == processes.start_ticks(os.getpid())
    assert processes.start_ticks(2**22 + 7) is None


def test_a_sender_outside_is_named_as_such():
    assert "outside" in processes.name_of(0)
    assert processes.name_of(os.getpid()).startswith(f"process {os.getpid()} (")


def test_signals_to_processes_that_are_gone_are_no_error():
    processes.signal_all([2**22 + 7], 15)


def group(root: Path, pid: str, name: str, kills: int) -> None:
    (root / "proc" / pid).mkdir(parents=True, exist_ok=True)
    (root / "proc" / pid / "cgroup").write_text(f"0::/{name}\n")
    (root / "sys/fs/cgroup" / name).mkdir(parents=True, exist_ok=True)
    (root / "sys/fs/cgroup" / name / "memory.events").write_text(f"low 0\noom 0\noom_kill {kills}\n")
    (root / "sys/fs/cgroup" / name / "memory.max").write_text("1000000000\n")
    (root / "sys/fs/cgroup" / name / "memory.current").write_text("5\n")


def test_a_rise_in_any_group_of_the_run_counts(tmp_path: Path, monkeypatch):
    reading = processes.memory_group
    monkeypatch.setattr(processes, "memory_group", lambda pid: reading(pid, root=tmp_path))
    group(tmp_path, "1", "a", 3)
    group(tmp_path, "2", "b", 0)
    now = [10.0]
    counts = OomCounts(clock=lambda: now[0])
    counts.include(["1", "2", "404"])
    counts.read()
    assert (counts.rise, counts.age_seconds, counts.limit_bytes) == (0, None, 10**9)
    group(tmp_path, "2", "b", 2)
    counts.read()
    now[0] = 15.0
    counts.include(["2"])
    assert (counts.rise, counts.age_seconds) == (2, 5.0)
    assert counts.source.endswith("b/memory.events: 0 -> 2")
