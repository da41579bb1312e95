"""GPUs as their drivers see them: NVIDIA's through NVML, AMD's through sysfs. No package for either.

NVML is called through ctypes and not by way of ``nvidia-smi``: the library comes with the driver wherever CUDA works,
also in containers that lack the program; it answers in milliseconds where the program takes half a second and more;
and it has the memory of each process in numbers. A wedged driver hangs every call into it, so the question is asked in
a thread that may be left behind.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outlast.host.procfs import number, read_all

_LIBRARY = "libnvidia-ml.so.1"
_NO_GPUS = 6  # NVML_ERROR_NOT_FOUND
_TOO_SMALL = 7  # NVML_ERROR_INSUFFICIENT_SIZE
_NOT_AVAILABLE = 2**64 - 1
_MOST_PROCESSES = 4096
_HANGS = 5.0
_ERRORS = {
    4: "the driver denies access: NVML says no permission",
    9: "the driver's kernel module is not loaded",
    15: "a GPU is lost: it has fallen off the bus, or needs a reset",
    18: "the driver's library and its kernel module are of different versions",
}
"""NVML return codes (nvml.h) that people meet."""


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that holds memory of a GPU."""

    pid: int
    """As the driver counts: the host's number, which a container may not know."""
    used_bytes: int | None
    """What it holds; None when the driver does not say."""


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """One GPU's memory. What the driver does not tell is None."""

    index: int
    """As ``nvidia-smi`` counts."""
    name: str
    """As its driver calls it."""
    uuid: str | None
    """``GPU-...``."""
    capability: tuple[int, int] | None
    """CUDA compute capability."""
    total_bytes: int | None
    """Memory in all."""
    used_bytes: int | None
    """Taken, by everyone and by the driver itself."""
    processes: tuple[GpuProcess, ...] | None
    """Who holds it; empty also where the driver does not see into or out of a container."""


@dataclass(frozen=True, slots=True)
class Gpus:
    """What the drivers answered."""

    gpus: tuple[GpuMemory, ...] | None = ()
    """The GPUs; None when the driver did not say."""
    driver: str | None = None
    """Version of NVIDIA's driver."""
    problem: str | None = None
    """Why it did not say; None when there is no driver either."""


class GpuQuestion:
    """A question under way: begun at once, answered later, so that other looks go on meanwhile.

    Args:
        root: root of the file system; for tests.
        library: name or path of NVML.
    """

    def __init__(self, root: Path = Path("/"), library: str = _LIBRARY) -> None:
        self._root, self._library = root, library
        self._answer: Gpus | None = None
        self._thread = threading.Thread(target=self._run, name="outlast-nvml", daemon=True)
        self._thread.start()

    def answer(self, seconds: float) -> Gpus:
        """What the driver said, or that it did not within so many seconds."""
        self._thread.join(seconds)
        return self._answer or Gpus(
            None, problem=None if seconds < _HANGS else f"the driver hangs: no word in {seconds:g} s"
        )

    def _run(self) -> None:
        try:
            self._answer = _nvidia(self._library, self._root)
        except Exception as error:  # a library that is not what it says it is
            self._answer = Gpus(None, problem=f"{self._library}: {error}")


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _Process(ctypes.Structure):
    # nvmlProcessInfo_t, the same in versions 2 and 3 of the call
    _fields_ = (
        ("pid", ctypes.c_uint),
        ("used", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


def _nvidia(library: str, root: Path) -> Gpus:
    is_device = any((root / "dev").glob("nvidia[0-9]*")) or (root / "proc/driver/nvidia/version").exists()
    try:
        nvml = ctypes.CDLL(library)
    except OSError:
        problem = f"there is a GPU, and no {library}: the container was started without NVIDIA's runtime"
        return Gpus(None, problem=problem) if is_device else Gpus()
    code = nvml.nvmlInit_v2()
    if code:
        # Images carry the library to machines without a GPU.
        return Gpus(None, problem=_words(code)) if is_device else Gpus()
    try:
        count = ctypes.c_uint()
        code = nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        if code not in (0, _NO_GPUS):
            return Gpus(None, problem=_words(code))
        version = _text(lambda text, size: nvml.nvmlSystemGetDriverVersion(text, size))
        found = (_gpu(nvml, index) for index in range(count.value))
        return Gpus(tuple(gpu for gpu in found if gpu), version)
    finally:
        nvml.nvmlShutdown()


def _words(code: int) -> str:
    return _ERRORS.get(code, f"NVML error {code}")


def _gpu(nvml: Any, index: int) -> GpuMemory | None:
    handle = ctypes.c_void_p()
    if nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(handle)):
        return None
    memory, major, minor = _Memory(), ctypes.c_int(), ctypes.c_int()
    has_memory = nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) == 0
    has_capability = not nvml.nvmlDeviceGetCudaComputeCapability(handle, ctypes.byref(major), ctypes.byref(minor))
    return GpuMemory(
        index=index,
        name=_text(lambda text, size: nvml.nvmlDeviceGetName(handle, text, size)) or "NVIDIA GPU",
        uuid=_text(lambda text, size: nvml.nvmlDeviceGetUUID(handle, text, size)),
        capability=(major.value, minor.value) if has_capability else None,
        total_bytes=memory.total if has_memory else None,
        used_bytes=memory.used if has_memory else None,
        processes=_processes(nvml, handle),
    )


def _text(ask: Callable[[Any, int], int]) -> str | None:
    text = ctypes.create_string_buffer(96)
    try:
        return None if ask(text, 96) else text.value.decode(errors="replace")
    except AttributeError:  # an old library without this call
        return None


def _processes(nvml: Any, handle: Any) -> tuple[GpuProcess, ...] | None:
    """Those that compute and those that draw; one that does both is told twice, with the same figure."""
    found: dict[int, GpuProcess] = {}
    answers = [_running(nvml, handle, kind) for kind in ("Compute", "Graphics")]
    for process in (one for answer in answers if answer is not None for one in answer):
        found.setdefault(process.pid, process)
    return tuple(found.values()) if any(answer is not None for answer in answers) else None


def _running(nvml: Any, handle: Any, kind: str) -> list[GpuProcess] | None:
    names = (f"nvmlDeviceGet{kind}RunningProcesses_v{version}" for version in (3, 2))
    ask = next((call for name in names if (call := getattr(nvml, name, None))), None)
    code, room = _TOO_SMALL, 16
    while ask and code == _TOO_SMALL and room < _MOST_PROCESSES:
        room *= 4
        count, rows = ctypes.c_uint(room), (_Process * room)()
        code = ask(handle, ctypes.byref(count), rows)
    if code:
        return None
    held = ((row.pid, row.used) for row in rows[: count.value])
    return [GpuProcess(pid, None if used == _NOT_AVAILABLE else used) for pid, used in held]


def amd_gpus(*, root: Path = Path("/")) -> tuple[GpuMemory, ...]:
    """AMD's GPUs, from the files that their kernel module keeps; who holds the memory is not among them."""
    found: list[GpuMemory] = []
    for place in sorted(root.glob("sys/class/drm/card[0-9]*/device/mem_info_vram_total")):
        device = place.parent
        name = read_all(device / "product_name").strip() or f"AMD GPU {read_all(device / 'device').strip()}".strip()
        used = number(device / "mem_info_vram_used")
        found.append(GpuMemory(len(found), name, None, None, number(place), used, None))
    return tuple(found)
