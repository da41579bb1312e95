"""Trees of /proc and /sys/fs/cgroup as they were recorded on machines, as far as they are read."""

from __future__ import annotations

from pathlib import Path

MIB = 1 << 20
NO_LIMIT = 9223372036854771712
"""What version 1 writes for none."""

MEMINFO = (
    "MemTotal:       24684096 kB\nMemFree:        21186128 kB\nMemAvailable:   23137148 kB\n"
    "SwapTotal:       {swap} kB\nSwapFree:        {swap} kB\nHugePages_Total:       0\n"
)
PRESSURE = (
    "some avg10={some} avg60=0.00 avg300=0.00 total=1351771\nfull avg10={full} avg60=0.00 avg300=0.00 total=713470\n"
)


def write(path: Path, text: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n" if not isinstance(text, str) or not text.endswith("\n") else text)


def machine(root: Path, cgroup: str = "", *, swap: int = 0, pid: int | str = "self") -> Path:
    """A machine with 24 GiB; what it says of the process is given."""
    write(root / "proc/meminfo", MEMINFO.format(swap=swap // 1024))
    write(root / "proc/pressure/memory", PRESSURE.format(some="2.50", full="1.25"))
    if cgroup:
        write(root / "proc" / str(pid) / "cgroup", cgroup)
    return root


def second(folder: Path, *, current: int, limit: object = "max", **more: int | str) -> None:
    """A group of version 2; sizes in bytes."""
    write(folder / "memory.current", current)
    write(folder / "memory.max", limit)
    write(folder / "memory.high", more.get("high", "max"))
    write(folder / "memory.swap.current", more.get("swap", 0))
    write(folder / "memory.swap.max", more.get("swap_limit", "max"))
    write(folder / "memory.events", f"low 0\nhigh 0\nmax 4\noom 1\noom_kill {more.get('kills', 0)}\noom_group_kill 0\n")
    write(folder / "memory.pressure", PRESSURE.format(some="9.00", full=more.get("full", "0.00")))
    names = ("inactive_file", "active_file", "slab_reclaimable", "shmem")
    write(folder / "memory.stat", "".join(f"{name} {more.get(name, 0)}\n" for name in ("anon", *names)))


def first(folder: Path, *, usage: int, limit: int = NO_LIMIT, **more: int) -> None:
    """A group of version 1; sizes in bytes."""
    write(folder / "memory.usage_in_bytes", usage)
    write(folder / "memory.limit_in_bytes", limit)
    if "with_swap_limit" in more:
        write(folder / "memory.memsw.limit_in_bytes", more["with_swap_limit"])
        write(folder / "memory.memsw.usage_in_bytes", usage + more.get("swap", 0))
    write(folder / "memory.oom_control", f"oom_kill_disable 0\nunder_oom 0\noom_kill {more.get('kills', 0)}\n")
    lines = [f"inactive_file 1\nactive_file 1\nshmem 1\nhierarchical_memory_limit {more.get('above', limit)}\n"]
    lines += [f"total_{name} {more.get(name, 0)}\n" for name in ("inactive_file", "active_file", "shmem")]
    write(folder / "memory.stat", "".join(lines))


def docker_second(root: Path) -> Path:
    """Docker on a machine with version 2, in its own cgroup namespace: the group is the root of what is mounted."""
    machine(root, "0::/\n")
    second(
        root / "sys/fs/cgroup", current=900 * MIB, limit=1000 * MIB, inactive_file=200 * MIB, active_file=100 * MIB,
        shmem=64 * MIB, swap_limit=0, full="33.00", kills=2,
    )  # fmt: skip
    return root


def docker_first(root: Path) -> Path:
    """Docker on a machine with version 1: the path is the host's, and not there."""
    machine(root, "11:cpuset:/docker/4ee\n6:memory:/docker/4ee\n1:name=systemd:/docker/4ee\n0::/system.slice\n")
    first(root / "sys/fs/cgroup/memory", usage=700 * MIB, limit=800 * MIB, inactive_file=300 * MIB, kills=1)
    return root


def slurm_first(root: Path) -> Path:
    """A Slurm step of version 1: the job's group holds the limit, three above the task's."""
    path = "slurm/uid_1000/job_42/step_0/task_0"
    machine(root, f"4:memory:/{path}\n")
    top = root / "sys/fs/cgroup/memory"
    first(top, usage=9000 * MIB)
    first(top / "slurm", usage=2000 * MIB)
    first(top / "slurm/uid_1000", usage=2000 * MIB)
    first(top / "slurm/uid_1000/job_42", usage=1500 * MIB, limit=2000 * MIB)
    first(top / "slurm/uid_1000/job_42/step_0", usage=1400 * MIB, limit=2000 * MIB)
    first(top / path, usage=1300 * MIB, above=2000 * MIB)
    return root


def process(root: Path, pid: int, *, parent: int, rss: int, shared: int = 0, name: str = "python") -> None:
    """A process in the table; sizes in bytes."""
    page = 4096
    write(root / "proc" / str(pid) / "stat", f"{pid} ({name} (x) y) S {parent} 1 1 0\n")
    write(root / "proc" / str(pid) / "statm", f"99999 {rss // page} {shared // page} 1 0 1 0\n")
    write(root / "proc" / str(pid) / "comm", name)
