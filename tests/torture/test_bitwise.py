"""Promise 5: resume is exact. A run that was killed three times has the losses and weights of one that was not."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from .conftest import SCRIPTS, child_environment, outlast

SEED = 20261121


def _kill_when(path: Path, lines: int, command: list[str]) -> None:
    """Start a script and kill -9 it once its log of losses has that many lines."""
    child = subprocess.Popen(command, env=child_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while child.poll() is None and (not path.exists() or len(path.read_text().splitlines()) < lines):
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "the run ended before it could be killed"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loop_killed_three_times_is_the_uninterrupted_one_to_the_bit(tmp_path: Path, workers: int) -> None:
    def command(name: str) -> list[str]:
        root, log = tmp_path / name, tmp_path / f"{name}.txt"
        return [sys.executable, str(SCRIPTS / "own_loop.py"), str(root), str(log), "--workers", str(workers)]

    straight = subprocess.run(command("straight"), env=child_environment(), capture_output=True, text=True, check=True)
    moments = sorted(random.Random(SEED).sample(range(8, 55), 3))
    done = 0
    for moment in moments:
        done = max(done + 1, moment)
        _kill_when(tmp_path / "killed.txt", done, command("killed"))
        done = len((tmp_path / "killed.txt").read_text().splitlines())
    killed = subprocess.run(command("killed"), env=child_environment(), capture_output=True, text=True, check=True)
    expected = set((tmp_path / "straight.txt").read_text().splitlines())
    assert set((tmp_path / "killed.txt").read_text().splitlines()) == expected, f"kills at {moments}"
    assert len(expected) == 60
    assert killed.stdout == straight.stdout


@pytest.mark.sampled(0)
def test_a_trainer_killed_three_times_under_outlast_run_is_the_uninterrupted_one_to_the_bit(tmp_path: Path) -> None:
    """Dropout, shuffled data and a warm-up are the Trainer's defaults in the script; the supervisor restarts it."""
    arguments = ["--steps", "60", "--save", "10"]
    script = [sys.executable, str(SCRIPTS / "trainer.py")]
    straight = [*script, str(tmp_path / "a"), *arguments, "--log", str(tmp_path / "a.txt")]
    subprocess.run(straight, env=child_environment(), capture_output=True, check=True)
    log = tmp_path / "b.txt"
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "outlast", "run", "--dir", str(tmp_path / "run"), "--",
         *script, str(tmp_path / "b"), *arguments, "--log", str(log)],
        env=child_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    for step in (14, 31, 47):
        while supervisor.poll() is None and (not log.exists() or f"[{step}," not in log.read_text()):
            time.sleep(0.01)
        os.kill(_training_process(supervisor.pid), signal.SIGKILL)
    assert supervisor.wait(timeout=300) == 0
    assert set(log.read_text().splitlines()) == set((tmp_path / "a.txt").read_text().splitlines())
    ours, theirs = (load_file(tmp_path / name / "checkpoint-60/model.safetensors") for name in "ba")
    assert all(ours[name].equal(theirs[name]) for name in theirs)
    assert outlast("why", "--dir", tmp_path / "run").stdout.startswith("finished")


def _training_process(supervisor: int) -> int:
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == supervisor and any(word.endswith(b"trainer.py") for word in words):
            return int(path.name)
    raise AssertionError("the script is not running")
