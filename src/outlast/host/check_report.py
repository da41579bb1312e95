"""`outlast.check_memory()`: the check of memory as text and as plain data, in a notebook or a script."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from outlast.host.cgroups import GroupMemory
from outlast.host.check import GpuUse, Light, MemoryCheck, check
from outlast.host.memory import MemoryLimit, ProcessMemory, own_bytes
from outlast.host.units import show_bytes

_ADVICE = {
    "ram": {
        Light.GREEN: "good to start",
        Light.YELLOW: "enough, if nothing grows: watch it in the first minutes",
        Light.RED: "use less: fewer DataLoader workers, smaller prefetch, stream the data set",
    },
    "gpu": {
        Light.GREEN: "good to start",
        Light.YELLOW: "enough, if nothing grows: watch it in the first minutes",
        Light.RED: "reduce the batch size, and accumulate gradients to keep the effective batch",
    },
}
_MUCH_IDLE = 0.1
_LABEL = 14


def check_memory(*, quiet: bool = False) -> dict[str, Any]:
    """Check main memory and GPUs before or during training, and print it.

    Main memory is measured against the limit that the kernel holds this process to, which in a container is not the
    machine's. torch is asked only if this process has imported it and has used a GPU.

    Args:
        quiet: print nothing.

    Returns:
        The figures as plain data, sizes in bytes, what is unknown as None; lights are ``green``, ``yellow``, ``red``.
    """
    found = check(os.getpid())
    if not quiet:
        print("\n".join(lines(found)))  # noqa: T201 (a cell of a notebook)
    return document(found)


def document(found: MemoryCheck) -> dict[str, Any]:
    """The check as plain data."""
    groups = [
        {**asdict(group), "working_set_bytes": group.working_set_bytes, "held_bytes": group.held_bytes}
        for group in found.groups
    ]
    limit = found.limit
    return {
        "ram": None if limit is None else {**asdict(limit), **_rated(limit.fraction, found.light)},
        "processes": [asdict(one) for one in found.tree],
        "processes_bytes": own_bytes(found.tree) if found.tree else None,
        "largest": [asdict(one) for one in found.largest],
        "groups": groups,
        "host": asdict(found.host),
        "gpus": None if found.gpus is None else [_gpu_document(use) for use in found.gpus],
        "gpu_problem": found.gpu_problem,
    }


def _rated(fraction: float | None, light: Light | None) -> dict[str, Any]:
    return {"fraction": None if fraction is None else round(fraction, 4), "light": light.value if light else None}


def _gpu_document(use: GpuUse) -> dict[str, Any]:
    return {**asdict(use), "idle_bytes": use.idle_bytes, **_rated(use.fraction, use.light)}


def lines(found: MemoryCheck, names: Mapping[int, str] | None = None) -> list[str]:
    """The check for people.

    Args:
        found: what was read.
        names: what processes are called; None looks among those that were read.
    """
    known = {one.pid: one.name for one in (*found.tree, *found.largest)} if names is None else names
    said = [*_processes(found), *_ram(found)]
    for use in found.gpus or ():
        said += _gpu(use, known)
    if found.gpus is None:
        said += _row("GPU", found.gpu_problem or "the driver did not answer in time")
    elif not found.gpus:
        said += _row("GPU", "none")
    return said


def _row(label: str, *texts: str) -> list[str]:
    shown = [text for text in texts if text]
    return [f"{label if not at else '':<{_LABEL}}{text}" for at, text in enumerate(shown)]


def _processes(found: MemoryCheck) -> list[str]:
    if found.largest:
        return _row("largest", *(f"{show_bytes(one.rss_bytes)} {_named(one)}" for one in found.largest))
    if not found.tree:
        return []
    first, *below = found.tree
    more = f"; with {len(below)} below it {show_bytes(own_bytes(found.tree))}" if below else ""
    return _row("process", f"{show_bytes(first.rss_bytes)} {_named(first)}{more}")


def _named(process: ProcessMemory) -> str:
    return f"process {process.pid} ({process.name})"


def _ram(found: MemoryCheck) -> list[str]:
    limit = found.limit
    if limit is None:
        return _row("RAM", "unknown: neither a memory group nor /proc/meminfo can be read")
    used = _used("held", limit.held_bytes, limit.limit_bytes, limit.fraction)
    return _row(
        "RAM",
        f"{used}, {show_bytes(limit.free_bytes)} free: {_advice('ram', found.light)}",
        _whose(limit, found.host.total_bytes),
        *(text for group in found.groups if group.folder == limit.folder for text in _inside(group)),
        f"swap: {show_bytes(limit.swap_left_bytes)} left" if limit.swap_left_bytes else "",
        f"waiting for memory: {limit.stall.full_percent:g} % of the last 10 s" if limit.stall else "",
    )


def _inside(group: GroupMemory) -> list[str]:
    """What a group's figures mean; an empty text for what is not worth a line."""
    cache, kills = group.cache_bytes, group.events.get("oom_kill", 0)
    return [
        f"{show_bytes(cache)} of cache do not count: the kernel takes them back" if cache else "",
        f"{show_bytes(group.shmem_bytes)} of it in /dev/shm or other files in memory" if group.shmem_bytes else "",
        f"the kernel has killed {kills} of its processes for want of memory so far" if kills else "",
    ]


def _used(verb: str, used: int | None, total: int | None, fraction: float | None) -> str:
    percent = "" if fraction is None else f" ({100 * fraction:.0f} %)"
    return f"{show_bytes(used)} {verb} of {show_bytes(total)}{percent}"


def _advice(kind: str, light: Light | None) -> str:
    return f"{light.value}, {_ADVICE[kind][light]}" if light else "unknown"


def _whose(limit: MemoryLimit, host_bytes: int | None) -> str:
    if limit.folder is None:
        return "the limit is the machine's: no memory group holds it to less"
    whose = "memory.high, above which the kernel slows it down," if limit.is_slowed else "the limit"
    return f"{whose} is its memory group's ({limit.folder}), not the machine's {show_bytes(host_bytes)}"


def _gpu(use: GpuUse, names: Mapping[int, str]) -> list[str]:
    gpu, torch = use.gpu, use.torch
    verb = "needed" if torch else "used"
    label = f"GPU {gpu.index}"
    said = [f"{gpu.name}: {_used(verb, use.needed_bytes, gpu.total_bytes, use.fraction)}: {_advice('gpu', use.light)}"]
    if torch:
        said.append(
            f"torch here: {show_bytes(torch.allocated_bytes)} in tensors ({show_bytes(torch.peak_bytes)} at the peak), "
            f"{show_bytes(torch.reserved_bytes)} taken from the driver"
        )
        if (use.idle_bytes or 0) > _MUCH_IDLE * (gpu.total_bytes or torch.reserved_bytes):
            said.append(
                f"{show_bytes(use.idle_bytes)} torch holds but does not use now: cache, or too fragmented; "
                "torch.cuda.empty_cache() gives back what is whole"
            )
    doubt = f" ({use.doubt})" if use.doubt else ""
    said.append(f"others: {show_bytes(use.others_bytes)}{doubt}" if use.others_bytes or use.doubt else "others: none")
    said += [f"  {_other(one.pid, one.used_bytes, names)}" for one in _largest(use)]
    return _row(label, *said)


def _largest(use: GpuUse) -> Iterable[Any]:
    return sorted(use.others, key=lambda one: -(one.used_bytes or 0))[:5]


def _other(pid: int, used: int | None, names: Mapping[int, str]) -> str:
    name = f" ({names[pid]})" if pid in names else ""
    return f"{show_bytes(used)} process {pid}{name}"
