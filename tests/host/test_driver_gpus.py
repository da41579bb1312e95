"""GPUs as a driver tells: a compiled stand-in for NVML with NVIDIA's own structures, and AMD's files."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from trees import MIB, write

from outlast.host import GpuMemory, GpuProcess, GpuQuestion, Gpus, amd_gpus
from outlast.host.check import gpus_here

NVML = r"""
#include <stdio.h>
#include <string.h>
typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } process;
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { snprintf(text, size, "570.1"); return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned number, void **handle) { *handle = (void *)(long)(number + 1); return 0; }
int nvmlDeviceGetName(void *h, char *text, unsigned size) { snprintf(text, size, "Fake %ld", (long)h); return 0; }
#ifndef OLD
int nvmlDeviceGetUUID(void *h, char *text, unsigned size) { snprintf(text, size, "GPU-%ld", (long)h); return 0; }
int nvmlDeviceGetComputeRunningProcesses_v3(void *h, unsigned *count, process *rows) {
  if ((long)h == 2) return 3; /* not supported */
  unsigned room = *count;
  *count = 70;
  if (room < 70) return 7;
  for (unsigned i = 0; i < 70; i++) rows[i] = (process){1000 + i, i ? 1ull << 20 : ~0ull, 0, 0};
  return 0;
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *h, unsigned *count, process *rows) {
  if ((long)h == 2) return 3;
  rows[0] = (process){1001, 1ull << 20, 0, 0};
  rows[1] = (process){5, 3ull << 20, 0, 0};
  *count = 2;
  return 0;
}
#endif
int nvmlDeviceGetMemoryInfo(void *h, unsigned long long *m) {
  if ((long)h == 2) return 15;
  m[0] = 16ull << 30; m[1] = 15ull << 30; m[2] = 1ull << 30; return 0;
}
int nvmlDeviceGetCudaComputeCapability(void *h, int *major, int *minor) { *major = 7; *minor = 5; return 0; }
"""


def library(folder: Path, *flags: str) -> str:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    path = folder / "nvml.so"
    subprocess.run([compiler, "-shared", "-fPIC", *flags, "-x", "c", "-", "-o", path], input=NVML.encode(), check=True)
    return str(path)


def test_each_gpu_is_told_with_its_memory_and_who_holds_it(tmp_path: Path) -> None:
    found = GpuQuestion(tmp_path, library(tmp_path)).answer(10)
    assert found.driver == "570.1" and found.gpus is not None
    first, second = found.gpus
    assert (first.index, first.name, first.uuid, first.capability) == (0, "Fake 1", "GPU-1", (7, 5))
    assert (first.total_bytes, first.used_bytes) == (16 << 30, 1 << 30)
    assert first.processes is not None and len(first.processes) == 71, "more than the first room, and none twice"
    assert first.processes[0] == GpuProcess(1000, None), "what the driver does not say is unknown, not 0"
    assert first.processes[-1] == GpuProcess(5, 3 << 20)
    assert second == GpuMemory(1, "Fake 2", "GPU-2", (7, 5), None, None, None), "a lost GPU has no figures"


def test_an_old_driver_that_lacks_calls_leaves_them_unknown(tmp_path: Path) -> None:
    found = GpuQuestion(tmp_path, library(tmp_path, "-DOLD")).answer(10)
    assert found.gpus is not None
    assert (found.gpus[0].uuid, found.gpus[0].processes, found.gpus[0].used_bytes) == (None, None, 1 << 30)


def test_amd_is_read_from_the_files_of_its_kernel_module(tmp_path: Path) -> None:
    for number, name in ((0, "Radeon Pro W7900"), (1, "")):
        device = tmp_path / f"sys/class/drm/card{number}/device"
        write(device / "mem_info_vram_total", 48 * 1024 * MIB)
        write(device / "mem_info_vram_used", 5 * MIB)
        write(device / "device", "0x740f")
        if name:
            write(device / "product_name", name)
    write(tmp_path / "sys/class/drm/card2/device/vendor", "0x8086")
    first, second = amd_gpus(root=tmp_path)
    assert (first.name, first.total_bytes, first.used_bytes) == ("Radeon Pro W7900", 48 * 1024 * MIB, 5 * MIB)
    assert (second.index, second.name, second.processes) == (1, "AMD GPU 0x740f", None)


def test_a_machine_without_any_has_none(tmp_path: Path) -> None:
    assert gpus_here(root=tmp_path) == Gpus()
