"""The check of memory: whose a GPU is, the light, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import MIB, docker_first, docker_second, machine, process

import outlast
from outlast.host import GpuMemory, GpuProcess, Gpus
from outlast.host.check import Light, check, gpu_use, light
from outlast.host.check_report import document, lines
from outlast.host.torch_memory import TorchMemory, of_gpu, torch_memory

GB = 10**9


def gpu(used: int | None = 4 * GB, *processes: tuple[int, int | None], index: int = 0, uuid: str | None = "GPU-a"):
    return GpuMemory(index, "Tesla T4", uuid, (7, 5), 16 * GB, used, tuple(GpuProcess(*one) for one in processes))


def torch(*, allocated: int = GB, peak: int = GB, reserved: int = 2 * GB, device: int = 0, uuid: str | None = "GPU-a"):
    return TorchMemory(device, uuid, allocated, peak, reserved)


# The light


@pytest.mark.parametrize(
    ("fraction", "expected"),
    [(0.0, "green"), (0.49, "green"), (0.5, "yellow"), (0.8, "yellow"), (0.81, "red"), (1.2, "red"), (None, None)],
)
def test_the_light_is_green_under_half_and_red_over_four_fifths(fraction: float | None, expected: str | None) -> None:
    found = light(fraction)
    assert (found.value if found else None) == expected


# Whose a GPU is


def test_what_is_not_ours_is_others_by_the_drivers_own_figures() -> None:
    use = gpu_use(gpu(4 * GB, (7, 3 * GB), (8, GB // 2)), torch(), {7})
    assert (use.others_bytes, use.others, use.doubt) == (GB, (GpuProcess(8, GB // 2),), "")


def test_in_a_container_that_the_driver_does_not_see_into_it_is_what_torch_did_not_take() -> None:
    use = gpu_use(gpu(4 * GB, (31337, 4 * GB)), torch(), {7})
    assert (use.others_bytes, use.others) == (2 * GB, ()) and "does not see its number" in use.doubt


def test_before_torch_has_used_it_all_of_it_is_others() -> None:
    use = gpu_use(gpu(4 * GB), None, {7})
    assert (use.others_bytes, use.doubt, use.idle_bytes) == (4 * GB, "", None)


@pytest.mark.parametrize("card", [gpu(None), gpu(4 * GB, (7, None))])
def test_what_the_driver_does_not_say_is_unknown_with_the_reason(card: GpuMemory) -> None:
    use = gpu_use(card, torch(), {7})
    assert use.others_bytes is None and use.doubt.startswith("the driver does not say")


def test_torchs_cache_does_not_count_as_needed_and_its_peak_does() -> None:
    full = gpu_use(gpu(15 * GB, (7, 15 * GB)), torch(allocated=GB, peak=3 * GB, reserved=14 * GB), {7})
    assert (full.needed_bytes, full.light, full.idle_bytes) == (4 * GB, Light.GREEN, 13 * GB)
    peaked = gpu_use(gpu(15 * GB, (7, 15 * GB)), torch(allocated=GB, peak=13 * GB, reserved=14 * GB), {7})
    assert peaked.light is Light.RED


@given(st.integers(0, 20 * GB), st.integers(0, 20 * GB), st.integers(0, 20 * GB), st.booleans())
def test_others_are_never_negative_nor_more_than_is_used(used: int, reserved: int, own: int, is_seen: bool) -> None:
    card = gpu(used, *([(7, own)] if is_seen else []))
    use = gpu_use(card, torch(reserved=reserved, allocated=min(reserved, own), peak=own), {7})
    assert use.others_bytes is not None and 0 <= use.others_bytes <= used
    assert use.needed_bytes is not None and use.needed_bytes >= 0


@pytest.mark.parametrize(
    ("variables", "index", "device"),
    [({}, 0, 0), ({}, 1, 1), ({"CUDA_VISIBLE_DEVICES": "1"}, 1, 0), ({"CUDA_VISIBLE_DEVICES": "1"}, 0, None),
     ({"CUDA_VISIBLE_DEVICES": "2, 0"}, 0, 1), ({"CUDA_VISIBLE_DEVICES": "GPU-b"}, 0, 0),
     ({"CUDA_VISIBLE_DEVICES": ""}, 0, None)],
)  # fmt: skip
def test_torchs_device_is_found_by_what_is_visible(variables: dict[str, str], index: int, device: int | None) -> None:
    held = [torch(device=number, uuid=None) for number in range(2)]
    found = of_gpu(gpu(index=index, uuid="GPU-bbb"), held, variables)
    assert (found.device if found else None) == device


def test_torchs_device_is_found_by_its_number_where_both_tell_it() -> None:
    held = [torch(device=0, uuid="GPU-b"), torch(device=1, uuid="GPU-a")]
    found = of_gpu(gpu(uuid="GPU-a"), held, {})
    assert found is not None and found.device == 1
    assert of_gpu(gpu(uuid="GPU-z"), held, {}) is None


def test_torch_is_asked_only_where_it_uses_a_gpu_already() -> None:
    cuda = SimpleNamespace(
        is_initialized=lambda: True, device_count=lambda: 1, memory_allocated=lambda n: 1, memory_reserved=lambda n: 3,
        max_memory_allocated=lambda n: 2, get_device_properties=lambda n: SimpleNamespace(uuid="abc"),
    )  # fmt: skip
    assert torch_memory(SimpleNamespace(cuda=cuda)) == (TorchMemory(0, "GPU-abc", 1, 2, 3),)
    cuda.is_initialized = lambda: False
    assert torch_memory(SimpleNamespace(cuda=cuda)) == ()
    assert torch_memory(SimpleNamespace()) == ()


# What is said


def said(root: Path, pid: int | None = None, gpus: Gpus | None = None, held: tuple[TorchMemory, ...] = ()) -> str:
    found = check(pid, root=root, gpus=lambda: gpus or Gpus(), held=lambda: held, environment={})
    json.dumps(document(found))
    return "\n".join(lines(found))


def test_in_a_container_the_limit_is_the_groups_and_it_says_so(tmp_path: Path) -> None:
    text = said(docker_second(tmp_path))
    assert "629.1 MB held of 1.0 GB (60 %), 419.4 MB free: yellow" in text
    assert f"the limit is its memory group's ({tmp_path}/sys/fs/cgroup), not the machine's 25.3 GB" in text
    assert "314.6 MB of cache do not count" in text and "67.1 MB of it in /dev/shm" in text
    assert "has killed 2 of its processes" in text and "waiting for memory: 33 % of the last 10 s" in text


def test_without_a_group_the_limit_is_the_machines_and_it_says_so(tmp_path: Path) -> None:
    text = said(machine(tmp_path, swap=512 * MIB))
    assert "of 25.3 GB (6 %), 23.7 GB free: green, good to start" in text
    assert "the limit is the machine's" in text and "swap: 536.9 MB left" in text


def test_a_process_is_told_with_all_below_it_and_without_one_the_largest_are(tmp_path: Path) -> None:
    docker_first(tmp_path)
    (tmp_path / "proc/10").mkdir()
    (tmp_path / "proc/10/cgroup").write_text((tmp_path / "proc/self/cgroup").read_text())
    for pid, parent in ((10, 1), (11, 10), (12, 10)):
        process(tmp_path, pid, parent=parent, rss=100 * MIB)
    assert "104.9 MB process 10 (python); with 2 below it 314.6 MB" in said(tmp_path, 10)
    assert "largest       104.9 MB process 1" in said(tmp_path)


def test_where_nothing_can_be_read_it_says_that(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    text = said(tmp_path, gpus=Gpus(None, problem="the driver hangs: no word in 5 s"))
    assert "RAM           unknown" in text and "GPU           the driver hangs: no word in 5 s" in text


def test_a_gpu_is_told_with_torchs_share_what_it_does_not_use_and_others(tmp_path: Path) -> None:
    process(tmp_path, 8, parent=1, rss=MIB, name="Xorg")
    held = (torch(allocated=GB, peak=14 * GB, reserved=14 * GB),)
    card = gpu(15 * GB, (8, GB // 2), (9, None))
    text = said(machine(tmp_path), gpus=Gpus((card,)), held=held)
    assert "GPU 0         Tesla T4: 15.0 GB needed of 16.0 GB (94 %): red, reduce the batch size" in text
    assert "1.0 GB in tensors (14.0 GB at the peak), 14.0 GB taken from the driver" in text
    assert "13.0 GB torch holds but does not use now" in text and "others: 1.0 GB (with what CUDA itself" in text
    text = said(machine(tmp_path), gpus=Gpus((card,)))
    assert "15.0 GB used of 16.0 GB" in text and "500.0 MB process 8 (Xorg)" in text and "unknown process 9" in text


def test_check_memory_prints_and_returns_plain_data(capsys: pytest.CaptureFixture[str]) -> None:
    found = outlast.check_memory()
    assert capsys.readouterr().out.startswith("process ")
    assert found["ram"]["light"] in ("green", "yellow", "red") and found["processes"][0]["rss_bytes"] > 0
    json.dumps(found)
    assert outlast.check_memory(quiet=True)["host"]["total_bytes"] == found["host"]["total_bytes"]
    assert capsys.readouterr().out == ""
