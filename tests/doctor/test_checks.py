"""The checks, from facts made by hand."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.caches import places
from outlast.doctor import CHECKS, Facts, Finding, Status, diagnose, exit_code
from outlast.doctor.facts import (
    Access,
    CacheFact,
    Driver,
    Gpu,
    Hub,
    Interpreter,
    Lock,
    Probed,
    Saves,
    Volume,
)
from outlast.doctor.machine import GENERATIONS, generation
from outlast.host import BUDGETS_VARIABLE, Budget, Limit, Mount, Room, declared_budgets

HOME = Path("/home/me")
LOCAL = Mount(1, (8, 1), "/", "/", "ext4", "/dev/sda1")
CLUSTER = Mount(2, (0, 50), "/", "/workspace", "fuse", "mfs#euro.runpod.net:9421")


def volume(free: int | None = 10**11, total: int | None = 10**12, **more: object) -> Volume:
    limits = (Limit(str(more.pop("source", "statvfs")), free, total),)
    inodes = more.pop("inodes", None)
    mount = more.pop("mount", LOCAL)
    room = Room(Path("/data"), 1, limits, inodes, mount)  # type: ignore[arg-type]
    return replace(Volume("data", Path("/data"), True, room, Access(True)), **more)  # type: ignore[arg-type]


def facts(**more: object) -> Facts:
    shm = replace(volume(), name="shared memory", path=Path("/dev/shm"))
    return replace(Facts(HOME, {"HOME": str(HOME)}, shm=shm), **more)  # type: ignore[arg-type]


def found(check: str, *, all_of_it: bool = False, **more: object) -> list[Finding]:
    answers = [finding for finding in diagnose(facts(**more)) if finding.id == check]
    return answers if all_of_it else [one for one in answers if one.status in (Status.WARNING, Status.ERROR)]


def cache(name: str, environment: dict[str, str], **more: object) -> dict[str, CacheFact]:
    return {name: replace(CacheFact(places(environment)[name], True, Access(True)), **more)}  # type: ignore[arg-type]


def test_ids_are_unique_and_every_check_answers_where_nothing_is_wrong() -> None:
    ids = [check.id for check in CHECKS]
    assert len(set(ids)) == len(ids)
    answers = diagnose(facts(volumes=(volume(),)))
    assert {answer.id for answer in answers} == set(ids)
    assert exit_code(answers) == 0 and all(answer.fix is None and answer.evidence for answer in answers)


@pytest.mark.parametrize(
    "free, total, status",
    [
        (10**11, 10**12, Status.OK),
        (10**9, 10**12, Status.WARNING),
        (10**6, 10**12, Status.ERROR),
        (2 * 10**6, 6 * 10**7, Status.WARNING),  # a small volume
        (-5, 10**12, Status.ERROR),
        (None, None, Status.OK),
    ],
)
def test_room_is_judged_by_what_is_left_of_the_volume(free: int | None, total: int | None, status: Status) -> None:
    (answer,) = found("disk-low", all_of_it=True, volumes=(volume(free, total),))
    assert answer.status is status and answer.figures["free_bytes"] == free


def test_one_full_volume_under_three_names_is_said_once() -> None:
    full = volume(0, 10**12, inodes=0)
    names = [replace(full, name=name) for name in ("this folder", "temporary files", "home")]
    assert len(found("disk-low", volumes=tuple(names))) == len(found("inodes-low", volumes=tuple(names))) == 1


@pytest.mark.parametrize("used, status", [(89, Status.OK), (90, Status.WARNING), (100, Status.ERROR)])
def test_a_budget_of_a_hundred_gigabytes_is_warned_of_at_ninety(used: int, status: Status) -> None:
    place = volume(10**9 * (100 - used), 10**11, source="budget /data")
    (answer,) = found("disk-low", all_of_it=True, volumes=(place,))
    assert answer.status is status


@pytest.mark.parametrize(
    "free, total, status",
    [(999, None, Status.ERROR), (5000, 10**6, Status.WARNING), (200_000, 10**6, None), (None, None, None)],
)
def test_inodes_are_counted_where_there_is_a_number_of_them(
    free: int | None, total: int | None, status: Status | None
) -> None:
    answers = found("inodes-low", volumes=(volume(inodes=free, total_inodes=total),))
    assert [answer.status for answer in answers] == ([status] if status else [])


def test_the_clusters_free_space_asks_for_a_budget_once_and_the_line_declares_one() -> None:
    place = volume(885 * 10**12, 23 * 10**14, mount=CLUSTER)
    (answer,) = found("network-volume-without-budget", volumes=(place, replace(place, name="again")))
    assert "is the cluster's, not yours" in answer.evidence and "/workspace" in answer.evidence
    done = subprocess.run(
        ["sh", "-c", f"{answer.fix}\nprintf %s ${BUDGETS_VARIABLE}"], capture_output=True, text=True, check=True
    )
    assert declared_budgets({BUDGETS_VARIABLE: done.stdout}) == (Budget(Path("/workspace"), 10**11),)
    declared = volume(10**10, 10**11, source="budget /workspace", mount=CLUSTER)
    assert found("network-volume-without-budget", volumes=(declared,)) == []


def test_dockers_64_megabytes_of_shared_memory_are_too_few() -> None:
    small = replace(volume(64 << 20, 64 << 20), path=Path("/dev/shm"))
    (answer,) = found("shm-small", shm=small)
    assert "67.1 MB" in answer.evidence and "--shm-size" in str(answer.fix)
    assert found("shm-small", shm=replace(small, room=volume(1 << 34, 1 << 34).room)) == []
    assert "there is no /dev/shm" in found("shm-small", shm=None)[0].evidence


@pytest.mark.parametrize(
    "access, words",
    [
        (Access(False, is_read_only=True), "mount -o remount,rw /"),
        (Access(False, is_immutable=True), "chattr -i /data"),
        (Access(False, mode=0o555), "chmod u+w /data"),
        (Access(False, is_ours=False), 'sudo chown "$(id -u)" /data'),
    ],
)
def test_what_stands_in_the_way_of_writing_decides_the_line(access: Access, words: str) -> None:
    (answer,) = found("not-writable", volumes=(volume(access=access),))
    assert str(answer.fix).startswith(words) and answer.status is Status.ERROR


def test_only_our_own_folder_of_a_wrong_mode_is_mended_by_itself() -> None:
    ways = [Access(False), Access(False, is_ours=False), Access(False, is_immutable=True), Access(True)]
    answers = [found("cache-not-writable", caches=cache("torch", {"HOME": "/h"}, access=way)) for way in ways]
    assert [bool(answer and answer[0].mend) for answer in answers] == [True, False, False, False]


def test_a_lock_is_stale_only_when_the_kernel_says_that_nobody_has_it() -> None:
    lock = Lock(Path("/c/torch_extensions/py311/x/lock"), 7200, None, True)
    (answer,) = found("stale-torch-lock", locks=(lock,))
    assert answer.status is Status.ERROR and answer.mend and "2.0 h" in answer.evidence
    (answer,) = found("stale-torch-lock", locks=(replace(lock, is_free=None),))
    assert answer.status is Status.WARNING and answer.mend is None, "unknown counts as in use"
    assert found("stale-torch-lock", locks=(replace(lock, is_free=False),)) == []
    assert found("stale-torch-lock", locks=(replace(lock, user="7 (ninja)"),)) == []


def test_a_folder_of_a_literal_home_is_not_made() -> None:
    for value, expected in (("$HOME/x", 0), ("/x", 1)):
        here = cache("hf-datasets", {"HOME": "/h", "HF_DATASETS_CACHE": value}, is_there=False, access=None)
        assert len(found("cache-missing", caches=here)) == expected


def trains(**packages: str) -> Interpreter:
    return Interpreter(
        Path("/venv/bin/python"), Path("/venv"), None, {k.replace("_", "-"): v for k, v in packages.items()}
    )


def test_a_variable_that_the_installed_library_still_reads_is_not_ignored() -> None:
    set_ = {"HOME": "/h", "TRANSFORMERS_CACHE": "/x", "HF_HUB_ENABLE_HF_TRANSFER": "1"}
    assert found("ignored-variable", environment=set_, interpreter=trains(transformers="4.57.1")) == []
    assert len(found("ignored-variable", environment=set_, interpreter=trains(transformers="5.23.0"))) == 1
    assert found("hf-transfer-ignored", environment=set_, interpreter=trains(huggingface_hub="0.36.0")) == []
    assert len(found("hf-transfer-ignored", environment=set_, interpreter=None)) == 1


def test_what_the_libraries_themselves_say_is_set_beside_what_is_declared() -> None:
    here = cache("hf-hub", {"HOME": "/h", "HF_HUB_CACHE": "/a"})
    probed = Probed({"hf-hub": Path("/b")})
    (answer,) = found("cache-declared-effective", caches=here, probed=probed)
    assert answer.fix == "export HF_HUB_CACHE=/a" and "looks in /b" in answer.evidence
    assert found("cache-declared-effective", caches=here, probed=Probed({"hf-hub": Path("/a")})) == []
    (answer,) = found("cache-declared-effective", all_of_it=True, probed=Probed(problem="python did not answer"))
    assert (answer.status, answer.evidence) == (Status.SKIPPED, "python did not answer")


def test_a_look_that_was_cut_short_says_so() -> None:
    (answer,) = found("hf-broken-repo", all_of_it=True, hub=Hub(3, 10))
    assert answer.status is Status.SKIPPED and "3 of 10" in answer.evidence


T4, A100, P100 = (
    Gpu("Tesla T4", (7, 5), 16 << 30),
    Gpu("NVIDIA A100", (8, 0), 80 << 30),
    Gpu("Tesla P100-PCIE-16GB", (6, 0), 16 << 30),
)


@pytest.mark.parametrize(
    "gpu, best",
    [
        (P100, "fp16"),
        (Gpu("V100", (7, 0), 1), "fp16"),
        (T4, "fp16"),
        (A100, "bf16"),
        (Gpu("RTX 3090", (8, 6), 1), "bf16"),
        (Gpu("L4", (8, 9), 1), "bf16"),
        (Gpu("H200", (9, 0), 1), "bf16"),
        (Gpu("B200", (10, 0), 1), "bf16"),
        (Gpu("P40", (6, 1), 1), "fp32"),
        (Gpu("K80", (3, 7), 1), "fp32"),
    ],
)
def test_each_gpu_is_told_what_it_does_well(gpu: Gpu, best: str) -> None:
    (answer,) = found("gpu-precision", all_of_it=True, driver=Driver((gpu,), "570"))
    assert answer.status is Status.OK and f": {best}" in answer.evidence


def test_a_p100_is_said_to_have_no_tensor_cores() -> None:
    assert "no tensor cores" in found("gpu-precision", all_of_it=True, driver=Driver((P100,)))[0].evidence


def test_bf16_on_a_t4_is_warned_of_and_the_weakest_gpu_decides() -> None:
    asked = ("bf16", "ACCELERATE_MIXED_PRECISION")
    (answer,) = found("gpu-precision", driver=Driver((A100, T4)), precision=asked)
    assert answer.fix == "export ACCELERATE_MIXED_PRECISION=fp16" and "Tesla T4" in answer.evidence
    assert found("gpu-precision", driver=Driver((A100,)), precision=asked) == []
    assert found("gpu-precision", driver=Driver((T4,)), precision=("no", "the settings")) == []


@given(st.tuples(st.integers(0, 20), st.integers(0, 9)))
def test_every_capability_has_one_row(capability: tuple[int, int]) -> None:
    row = generation(capability)
    assert row.least <= capability and row.precisions
    assert list(GENERATIONS) == sorted(GENERATIONS, key=lambda one: one.least, reverse=True)


def test_flash_attention_is_judged_by_gpu_and_by_what_is_installed() -> None:
    flash = trains(flash_attn="2.7.4")

    def said(interpreter: Interpreter | None, *gpus: Gpu) -> tuple[Status, str]:
        (answer,) = found("attention", all_of_it=True, interpreter=interpreter, driver=Driver(gpus))
        return answer.status, answer.evidence

    assert said(flash, A100) == (Status.OK, "FlashAttention 2.7.4")
    assert said(trains(torch="2.9"), A100)[1].startswith("SDPA")
    assert said(flash, T4)[0] is Status.WARNING
    assert said(replace(flash, flash_error="undefined symbol"), A100)[0] is Status.ERROR
    assert said(None)[0] is Status.SKIPPED


def test_a_machine_without_a_gpu_is_in_order_and_a_silent_driver_is_not_known() -> None:
    (answer,) = found("gpu-driver", all_of_it=True)
    assert (answer.status, answer.evidence) == (Status.OK, "no GPU")
    (answer,) = found("gpu-driver", all_of_it=True, driver=Driver(None))
    assert answer.status is Status.SKIPPED
    (answer,) = found("gpu-driver", driver=Driver(None, problem="the driver hangs"))
    assert answer.status is Status.ERROR and str(answer.fix).startswith("nvidia-smi")


def test_the_next_save_is_judged_by_what_the_last_one_took() -> None:
    saves = Saves(Path("/r"), Path("/r/.outlast"), sealed=2, need_bytes=100, free_bytes=350)
    (answer,) = found("next-save-does-not-fit", all_of_it=True, saves=(saves,))
    assert answer.status is Status.OK and answer.figures["saves_that_fit"] == 3
    (answer,) = found("next-save-does-not-fit", saves=(replace(saves, free_bytes=-5),))
    assert answer.figures["saves_that_fit"] == 0 and "prune --keep last=1" in str(answer.fix)
    (answer,) = found("next-save-does-not-fit", saves=(replace(saves, free_bytes=0, sealed=1),))
    assert str(answer.fix).startswith("outlast run --dir /home/me -- python train.py")
    assert found("next-save-does-not-fit", saves=(replace(saves, free_bytes=None),)) == []


NASTY = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(NASTY)
def test_a_fix_of_any_path_is_one_line_and_one_word_for_the_shell(name: str) -> None:
    path = Path("/c") / name.replace("/", "_")
    (answer,) = found("stale-torch-lock", locks=(Lock(path / "lock", 1, None, True),))
    assert answer.evidence.isprintable() and str(answer.fix).isprintable()
    done = subprocess.run(["sh", "-c", str(answer.fix).replace("mv", "printf '%s\\0'", 1)], capture_output=True)
    assert done.stdout.split(b"\0")[:2] == [bytes(path / "lock"), bytes(path / "lock.stale")]


def test_an_environment_is_read_without_starting_its_python() -> None:
    from outlast.doctor import looking

    seen = looking.interpreter(Path(sys.executable))
    assert seen.prefix == Path(sys.prefix) and seen.packages and "hypothesis" in seen.packages and seen.mount is None


def test_every_check_is_in_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text()
    assert [check.id for check in CHECKS if f"`{check.id}`" not in text] == []
