"""Promise 5 against the clock: a session that ends seals its last step in time, and the next goes on to the bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from outlast import journal

from .conftest import SCRIPTS, child_environment, outlast
from .scripts import looks

FULL = os.environ.get("OUTLAST_TORTURE") == "full"
SESSION, PAUSE = 40, 1.0
"""Seconds of a session at least, and a pause in each step."""
STEPS, LEAST = (84, 3) if FULL else (40, 2)
"""Steps, more than so many sessions less one can hold: about two minutes in full."""


def _session(command: list[str]) -> int:
    """Seconds of a session: forty, or more where the imports alone take that long beside other tests."""
    began = time.monotonic()
    subprocess.run(command, env=child_environment(), capture_output=True, check=True)
    return max(SESSION, int(20 + 1.5 * (time.monotonic() - began)))


def _sessions(home: Path, command: list[str], session: int) -> list[subprocess.CompletedProcess[str]]:
    """Guarded sessions of one command until it has finished; each must end in time with exit code 0."""
    most = 6
    done: list[subprocess.CompletedProcess[str]] = []
    while len(done) < most:
        done.append(outlast("run", "--dir", home, "--deadline", f"{session}s", "--", *command))
        assert done[-1].returncode == 0, done[-1].stderr[-3000:]
        assert _seconds_to_spare(home) >= 0, "it has to have ended by then; the imports of other tests slow an end down"
        if "the command finished" in done[-1].stderr:
            return done
        assert "left in time" in done[-1].stderr and "start the same command again" in done[-1].stderr
    raise AssertionError(done[-1].stderr[-3000:])


def test_a_trainer_of_two_minutes_in_sessions_of_forty_seconds_is_the_straight_run_to_the_bit(tmp_path: Path) -> None:
    """Dropout, shuffled data and a warm-up are the Trainer's defaults in the script; saves are due every 30 steps."""
    script = [sys.executable, str(SCRIPTS / "trainer.py")]
    arguments = ["--steps", str(STEPS), "--save", "30"]
    straight = [*script, str(tmp_path / "a"), *arguments, "--log", str(tmp_path / "a.txt")]
    session = _session(straight)
    pauses = ["--pause", str(PAUSE), "--log", str(tmp_path / "b.txt")]
    done = _sessions(tmp_path / "run", [*script, str(tmp_path / "b"), *arguments, *pauses], session)
    assert len(done) >= LEAST or session > SESSION
    assert (tmp_path / "b.txt").read_text() == (tmp_path / "a.txt").read_text(), "no step twice, no other loss"
    one, other = (load_file(tmp_path / name / f"checkpoint-{STEPS}" / "model.safetensors") for name in "ab")
    assert all(one[key].equal(other[key]) for key in one)
    assert "steps need" in done[0].stderr and "sessions" in done[0].stderr


def test_a_loop_with_a_deadline_of_its_own_is_the_straight_run_to_the_bit(tmp_path: Path) -> None:
    """No supervisor: `outlast.Run(deadline=...)` in sessions of twelve seconds."""

    def command(name: str, *more: str) -> list[str]:
        return [
            sys.executable,
            str(SCRIPTS / "own_loop.py"),
            str(tmp_path / name),
            str(tmp_path / f"{name}.txt"),
            *more,
        ]

    straight = subprocess.run(command("a"), env=child_environment(), capture_output=True, text=True, check=True)
    told = []
    for _ in range(9):
        done = subprocess.run(
            command("b", "--deadline", "12s", "--pause", "0.25"),
            env=child_environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        if done.stdout:
            break
        told.append(done.stderr)
    assert told and all("which is sealed: the deadline of 12s" in text for text in told)
    assert done.stdout == straight.stdout
    assert (tmp_path / "b.txt").read_text() == (tmp_path / "a.txt").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1], ids=lambda number: number.name)
def test_a_signal_to_the_supervisor_seals_the_step_and_ends_with_zero(tmp_path: Path, number: signal.Signals) -> None:
    """What Slurm, Kubernetes and spot pods send; the program itself knows of no signal."""
    log = tmp_path / "log.txt"
    command = [sys.executable, str(SCRIPTS / "trainer.py"), str(tmp_path / "out"), "--save", "1000", "--steps", "2000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "outlast", "run", "--dir", tmp_path / "run", "--", "bash", "-c", '"$@"; exit $?', "-",
         *command, "--log", str(log)],
        env=child_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    _wait_for_lines(log, 5, process)
    process.send_signal(number)
    told = process.communicate(timeout=120)[1]
    assert process.returncode == 0, told[-2000:]
    steps = len(log.read_text().splitlines())
    assert f"it resumes from step {steps}" in told and number.name in _why(tmp_path / "run")
    assert [event["step"] for event in _events(tmp_path / "run", "sealed")] == [steps]


@pytest.mark.parametrize("workers", [0, 2])
def test_sigterm_to_the_whole_group_seals_the_step_though_it_ends_the_workers(tmp_path: Path, workers: int) -> None:
    """What scancel, systemd and `timeout` do: supervisor, training and workers get it; twice here."""
    log = tmp_path / "log.txt"
    script = [sys.executable, str(SCRIPTS / "own_loop.py"), str(tmp_path / "out"), str(log)]
    process = subprocess.Popen(
        [sys.executable, "-m", "outlast", "run", "--dir", tmp_path / "run", "--", *script, "--steps", "5000", "--every",
         "4000", "--pause", "0.05", "--workers", str(workers)],
        env=child_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    _wait_for_lines(log, 30, process)
    os.killpg(process.pid, signal.SIGTERM)
    os.killpg(process.pid, signal.SIGTERM)
    told = process.communicate(timeout=120)[1]
    assert process.returncode == 0, told[-2000:]
    steps = int(log.read_text().splitlines()[-1].split()[0])
    assert [event["step"] for event in _events(tmp_path / "run", "sealed")] == [steps]


def test_sigterm_in_the_middle_of_a_save_leaves_it_whole_or_undone(tmp_path: Path) -> None:
    """Sent to the training itself while the stage is there, so that the save is under way; ten times."""
    whole = undone = 0
    for round_ in range(10 if FULL else 3):
        root = tmp_path / f"out{round_}"
        command = [
            sys.executable,
            str(SCRIPTS / "trainer.py"),
            str(root),
            "--steps",
            "300",
            "--save",
            "3",
            "--limit",
            "2",
        ]
        with subprocess.Popen(
            command, env=looks.hooked(tmp_path / f"run{round_}"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as child:
            stage = root / ".outlast" / "stage"
            while child.poll() is None and not (stage.is_dir() and any(stage.iterdir())):
                pass
            child.terminate()
            assert child.wait(timeout=120) == 0
        found = outlast("checkpoints", "verify", "--dir", root)
        assert found.returncode == 0, found.stdout + found.stderr
        assert looks.debris(root) == []
        sealed = _events(tmp_path / f"run{round_}", "sealed")
        left = _events(tmp_path / f"run{round_}", "stopped")
        assert left[-1]["step"] == sealed[-1]["step"]
        whole, undone = whole + (left[-1]["step"] % 3 == 0), undone + (left[-1]["step"] % 3 != 0)
    assert whole + undone == (10 if FULL else 3)


@pytest.mark.sampled(0)
def test_two_ranks_under_torchrun_leave_at_the_same_step(tmp_path: Path) -> None:
    """Attacks: one rank that leaves alone would keep the other in its all-reduce for ever."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
               str(SCRIPTS / "trainer.py"), str(tmp_path / "out"), "--steps", "5000", "--save", "1000"]  # fmt: skip
    session = _session([*command[:-4], "--steps", "1"])
    done = outlast("run", "--dir", tmp_path / "run", "--deadline", f"{session}s", "--", *command)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "left in time" in done.stderr
    left = _events(tmp_path / "run", "stopped")
    assert len(left) == 2 and len({event["step"] for event in left}) == 1
    assert [event["step"] for event in _events(tmp_path / "run", "sealed")] == [left[0]["step"]]


@pytest.mark.sampled(0)
def test_lightning_saves_its_last_step_and_goes_on_from_it(tmp_path: Path) -> None:
    """The file is dropped once ModelCheckpoint has sealed a newer one."""
    command = [sys.executable, str(SCRIPTS / "lightning_script.py"), str(tmp_path / "out"), "--steps", "45",
               "--save", "30", "--top", "1", "--pause", str(PAUSE)]  # fmt: skip
    session = _session([*command[:2], str(tmp_path / "first"), "--steps", "1"])
    done = _sessions(tmp_path / "run", command, session)
    assert len(done) >= 2 or session > SESSION
    steps = [event["step"] for event in _events(tmp_path / "run", "stopped")]
    assert steps or session > SESSION
    resumed = [event["step"] for event in _events(tmp_path / "run", "resumed")]
    assert resumed == steps == sorted(steps)
    assert not (tmp_path / "out" / "outlast-last-step.ckpt").exists() or steps[-1] > 30, (
        "ModelCheckpoint has sealed step 30, which is newer"
    )


def _seconds_to_spare(home: Path) -> float:
    """Between the end of the last session, 5 s of patience with a busy machine included, and its deadline."""
    events = journal.read(home, journal.runs(home)[-1])
    ended = next(event.time for event in events if event.name == "ended")
    left = [event.get("by") for event in events if event.name == "stopped"]
    return left[0] - ended + 5 if left else 0.0


def _wait_for_lines(path: Path, lines: int, process: subprocess.Popen[str]) -> None:
    while not path.exists() or len(path.read_text().splitlines()) < lines:
        assert process.poll() is None
        time.sleep(0.02)


def _events(home: Path, name: str) -> list[dict[str, object]]:
    """Events of all runs under a folder, oldest first."""
    return [dict(event.facts) for run in journal.runs(home) for event in journal.read(home, run) if event.name == name]


def _why(home: Path) -> str:
    return outlast("why", "--dir", home).stdout
