"""Asking the NVIDIA driver through its own library (NVML), without a package for it and without waiting for ever.

A wedged driver hangs every call into it, so the question is asked in a thread that may be left behind.
"""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path
from typing import Any

from outlast.doctor.facts import Driver, Gpu

_LIBRARY = "libnvidia-ml.so.1"
_HANGS = 5.0
_NO_GPUS = 6  # NVML_ERROR_NOT_FOUND
_ERRORS = {
    4: "the driver denies access: NVML says no permission",
    9: "the driver's kernel module is not loaded",
    15: "a GPU is lost: it has fallen off the bus, or needs a reset",
    18: "the driver's library and its kernel module are of different versions",
}
"""NVML return codes (nvml.h) that people meet."""


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class DriverQuestion:
    """A question under way: begun at once, answered later, so that other looks go on meanwhile.

    Args:
        root: root of the file system; for tests.
        library: name or path of NVML.
    """

    def __init__(self, root: Path = Path("/"), library: str = _LIBRARY) -> None:
        self._root, self._library = root, library
        self._answer: Driver | None = None
        self._thread = threading.Thread(target=self._run, name="outlast-nvml", daemon=True)
        self._thread.start()

    def answer(self, seconds: float) -> Driver:
        """What the driver said, or that it did not within so many seconds."""
        self._thread.join(seconds)
        return self._answer or Driver(
            None, problem=None if seconds < 5 else f"the driver hangs: no word in {seconds:g} s"
        )

    def _run(self) -> None:
        try:
            self._answer = _ask(self._library, self._root)
        except Exception as error:  # a library that is not what it says it is
            self._answer = Driver(None, problem=f"{self._library}: {error}")


def _ask(library: str, root: Path) -> Driver:
    is_device = any((root / "dev").glob("nvidia[0-9]*")) or (root / "proc/driver/nvidia/version").exists()
    try:
        nvml = ctypes.CDLL(library)
    except OSError:
        problem = f"there is a GPU, and no {library}: the container was started without NVIDIA's runtime"
        return Driver(None, problem=problem) if is_device else Driver()
    code = nvml.nvmlInit_v2()
    if code:
        # Images carry the library to machines without a GPU.
        return Driver(None, problem=_ERRORS.get(code, f"NVML error {code}")) if is_device else Driver()
    try:
        count = ctypes.c_uint()
        code = nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        if code not in (0, _NO_GPUS):
            return Driver(None, problem=_ERRORS.get(code, f"NVML error {code}"))
        version = ctypes.create_string_buffer(96)
        nvml.nvmlSystemGetDriverVersion(version, 96)
        gpus = (_gpu(nvml, number) for number in range(count.value))
        return Driver(tuple(gpu for gpu in gpus if gpu), version.value.decode(errors="replace"))
    finally:
        nvml.nvmlShutdown()


def _gpu(nvml: Any, number: int) -> Gpu | None:
    handle = ctypes.c_void_p()
    if nvml.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(handle)):
        return None
    name, memory = ctypes.create_string_buffer(96), _Memory()
    major, minor = ctypes.c_int(), ctypes.c_int()
    nvml.nvmlDeviceGetName(handle, name, 96)
    nvml.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory))
    if nvml.nvmlDeviceGetCudaComputeCapability(handle, ctypes.byref(major), ctypes.byref(minor)):
        return None
    return Gpu(name.value.decode(errors="replace"), (major.value, minor.value), memory.total)
