"""Shared memory that dead processes left: only what is provably ours goes."""

import os
import subprocess
from pathlib import Path

from outlast.launch.shm import SharedMemory

DEAD = 2**22 + 7  # above the kernel's largest process id


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).write_bytes(b"x" * 4096)


def test_a_torch_file_of_a_dead_process_of_this_run_goes(tmp_path: Path):
    shm = SharedMemory(tmp_path)
    make(tmp_path, f"torch_{DEAD}_1_0")
    shm.observe([DEAD])
    assert [path.name for path, _ in shm.remove_dead()] == [f"torch_{DEAD}_1_0"]
    assert os.listdir(tmp_path) == []


def test_a_torch_file_of_a_process_that_is_not_of_this_run_stays(tmp_path: Path):
    shm = SharedMemory(tmp_path)
    make(tmp_path, f"torch_{DEAD}_1_0")
    shm.observe([DEAD + 1])
    assert shm.remove_dead() == []


def test_what_was_there_before_the_run_stays(tmp_path: Path):
    make(tmp_path, f"torch_{DEAD}_1_0")
    shm = SharedMemory(tmp_path)
    shm.observe([DEAD])
    assert shm.remove_dead() == []


def test_a_living_processs_file_stays(tmp_path: Path):
    shm = SharedMemory(tmp_path)
    make(tmp_path, f"torch_{os.getpid()}_1_0")
    shm.observe([os.getpid()])
    assert shm.remove_dead() == []


def test_a_python_file_goes_once_its_user_was_seen_and_is_dead(tmp_path: Path):
    shm = SharedMemory(tmp_path)
    make(tmp_path, "psm_1234", "psm_foreign")
    with subprocess.Popen(
        ["sh", "-c", "exec 3< psm_1234; echo; cat"], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as user:
        user.stdout.readline()
        shm.observe([user.pid])
        assert shm.remove_dead() == []
        user.stdin.close()
        user.wait()
    assert [path.name for path, _ in shm.remove_dead()] == ["psm_1234"]
    assert os.listdir(tmp_path) == ["psm_foreign"]


def test_another_users_file_stays(tmp_path: Path):
    shm = SharedMemory(tmp_path, uid=os.getuid() + 1)
    make(tmp_path, f"torch_{DEAD}_1_0")
    shm.observe([DEAD])
    assert shm.remove_dead() == []


def test_other_names_are_never_touched(tmp_path: Path):
    shm = SharedMemory(tmp_path)
    make(tmp_path, "sem.mp-x", "nccl-abc", "mydata")
    shm.observe([os.getpid()])
    assert shm.remove_dead() == []
