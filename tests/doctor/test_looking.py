"""Looks at a machine, and the driver's library, made for the test."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from outlast.doctor import looking
from outlast.doctor.facts import Driver, Gpu
from outlast.doctor.gpu import DriverQuestion

NVML = r"""
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int nvmlInit_v2(void) { sleep(SLEEP); return INIT; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { snprintf(text, size, "570.1"); return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned number, void **handle) { *handle = (void *)(long)(number + 1); return 0; }
int nvmlDeviceGetName(void *h, char *text, unsigned size) { snprintf(text, size, "Fake %ld", (long)h); return 0; }
int nvmlDeviceGetMemoryInfo(void *handle, unsigned long long *m) { m[0] = 16ull << 30; m[1] = m[2] = 0; return 0; }
int nvmlDeviceGetCudaComputeCapability(void *h, int *major, int *minor) { *major = 7; *minor = 5; return 0; }
"""
Library = Callable[..., str]


@pytest.fixture
def library(tmp_path: Path) -> Library:
    """A library with NVML's functions."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")

    def make(init: int = 0, sleep: int = 0) -> str:
        path = tmp_path / f"nvml{init}.so"
        command = [compiler, "-shared", "-fPIC", f"-DINIT={init}", f"-DSLEEP={sleep}", "-x", "c", "-", "-o", path]
        subprocess.run(command, input=NVML.encode(), check=True)
        return str(path)

    return make


@pytest.fixture
def with_a_device(tmp_path: Path) -> Path:
    (tmp_path / "root" / "dev").mkdir(parents=True)
    (tmp_path / "root" / "dev" / "nvidia0").touch()
    return tmp_path / "root"


def test_the_driver_is_asked_through_its_own_library(library: Library, tmp_path: Path) -> None:
    answer = DriverQuestion(tmp_path, library()).answer(10)
    assert answer == Driver((Gpu("Fake 1", (7, 5), 16 << 30), Gpu("Fake 2", (7, 5), 16 << 30)), "570.1")


def test_a_driver_that_does_not_match_its_library_is_a_problem_only_where_there_is_a_gpu(
    library: Library, tmp_path: Path, with_a_device: Path
) -> None:
    mismatch = library(init=18)
    assert "different versions" in str(DriverQuestion(with_a_device, mismatch).answer(10).problem)
    assert DriverQuestion(tmp_path, mismatch).answer(10) == Driver()


def test_a_driver_that_hangs_is_not_waited_for(library: Library, tmp_path: Path) -> None:
    begun = time.monotonic()
    answer = DriverQuestion(tmp_path, library(sleep=3)).answer(0.2)
    assert time.monotonic() - begun < 1 and answer == Driver(None)


def test_a_gpu_without_the_library_is_a_container_without_its_runtime(tmp_path: Path, with_a_device: Path) -> None:
    assert "without NVIDIA's runtime" in str(DriverQuestion(with_a_device, "libno.so").answer(10).problem)
    assert DriverQuestion(tmp_path, "libno.so").answer(10) == Driver()


def test_a_library_that_is_another_is_no_crash(tmp_path: Path) -> None:
    answer = DriverQuestion(tmp_path, "libc.so.6").answer(10)
    assert answer.gpus is None and "nvmlInit_v2" in str(answer.problem)


def test_an_offline_run_is_unsynced_until_the_mark_of_an_upload_is_beside_it(tmp_path: Path) -> None:
    for name in ("offline-run-1", "offline-run-2", "run-3", "offline-run-4"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run-x.wandb").touch() if name != "offline-run-4" else None
    (tmp_path / "offline-run-2" / "run-x.wandb.synced").touch()
    assert looking.unsynced(tmp_path) == (tmp_path / "offline-run-1",)


def test_the_precision_is_the_variables_else_the_settings(tmp_path: Path) -> None:
    (tmp_path / "default_config.yaml").write_text("compute_environment: LOCAL\nmixed_precision: 'bf16'\n")
    assert looking.precision({}, tmp_path) == ("bf16", str(tmp_path / "default_config.yaml"))
    assert looking.precision({"ACCELERATE_MIXED_PRECISION": "no"}, tmp_path) == ("no", "ACCELERATE_MIXED_PRECISION")
    assert looking.precision({}, tmp_path / "none") is None


def test_a_shim_is_started_only_when_that_is_allowed(tmp_path: Path) -> None:
    import sys

    (tmp_path / "bin").mkdir()
    shim = tmp_path / "bin" / "python"
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    shim.chmod(0o755)
    assert looking.interpreter(shim).packages is None
    assert looking.interpreter(shim, may_start=True).prefix == Path(sys.prefix)


def test_an_interpreter_that_cannot_be_started_is_not_known(tmp_path: Path) -> None:
    assert looking.interpreter(tmp_path / "bin" / "python", may_start=True).packages is None


def test_a_young_or_open_download_goes_on(tmp_path: Path) -> None:
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "x.incomplete").write_bytes(bytes(9000))
    now = os.stat(blobs / "x.incomplete").st_mtime
    young, idle = (looking.hub(tmp_path, 1, now=now + age).partials[0].is_idle for age in (60, 3600))
    assert (young, idle) == (False, True)
    with (blobs / "x.incomplete").open():
        assert not looking.hub(tmp_path, 1, now=now + 3600).partials[0].is_idle


def test_a_broken_repository_is_found_by_its_first_dangling_link_only(tmp_path: Path) -> None:
    for name in ("models--a--whole", "models--a--broken", "not-a-repo"):
        folder = tmp_path / name / "snapshots" / "1" / "deep"
        folder.mkdir(parents=True)
        (folder / "w").symlink_to("nothing" if name != "models--a--whole" else "/")
    found = looking.hub(tmp_path, 1)
    assert [repo.name for repo, _ in found.broken] == ["models--a--broken"] and found.repos == found.all_repos == 2
