"""Promise 1 and 2 under kill -9: after a kill at any moment resume finds a verifying checkpoint, and no debris stays.

The driver saves, lightens, prunes and seals again on volumes too small for it, without torch, so that hundreds of kills
take minutes. A chain of kills is replayed by its seed: ``pytest tests/torture/test_kills.py -k seed17``.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import child_environment, share
from .scripts import looks, tracing

KILLS_A_CHAIN = 10
FULL = share(100) == 100
SEED = int(os.environ.get("OUTLAST_TORTURE_SEED", "3"))
ROOMS = (
    ("2500k", "tmpfs", ()),  # less than two full states: the way back is light for the length of a save
    ("4m", "tmpfs", ()),
    ("2500k", "tmpfs", ("--keep-exact",)),
    ("12m", "tmpfs", ("--keep", "last=2,every=40")),
    ("8m", "ext4", ()),
)
Volume = Callable[..., Path]


def _drive(root: Path, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        looks.python(looks.DRIVER, root, *arguments), stdout=subprocess.PIPE, text=True, env=child_environment()
    )


def _check_after_a_kill(root: Path, seed: int, sealed: int, *, keeps_exact: bool = False) -> None:
    looks.assert_only_whole_are_offered(root)
    if keeps_exact:
        # Exactness before progress: on so little room the newest light one gives way to the next, the full one stays.
        looks.start_again(root, min(sealed, 10))
        assert not sealed or "full" in looks.verifying(root).values()
    else:
        looks.start_again(root, sealed)
    looks.assert_content(root, seed)
    looks.events(root)


@pytest.mark.parametrize("seed", range(share(200) // KILLS_A_CHAIN), ids="seed{}".format)
def test_after_a_kill_at_any_moment_resume_finds_the_newest_seal_and_no_debris_stays(volume: Volume, seed: int) -> None:
    """Attacks: a partial save is never offered, there is always a way back, a start cleans up."""
    dice = random.Random(seed)
    size, kind, options = ROOMS[seed % len(ROOMS)]
    root = volume(size, kind) / "out"
    sealed = 0
    for kill in range(KILLS_A_CHAIN):
        child = _drive(root, "--seed", seed, *options)
        assert child.stdout is not None
        first = child.stdout.readline()
        moment = dice.uniform(0, 0.25)
        time.sleep(moment)  # the moment itself is what is drawn; there is no event to wait for
        child.kill()
        output = first + child.stdout.read()
        child.stdout.close()
        assert child.wait() == -signal.SIGKILL, f"seed {seed}: the driver ended by itself: {output[-500:]}"
        sealed = max([sealed, *looks.steps_said(output, "sealed")])
        try:
            _check_after_a_kill(root, seed, sealed, keeps_exact="--keep-exact" in options)
        except AssertionError as error:
            error.add_note(f"seed {seed}, kill {kill} after {moment:.4f} s on {kind} of {size}, {options}")
            raise
    assert sealed > 0, f"seed {seed}: not one save was sealed in {KILLS_A_CHAIN} lives"


# At the granularity of system calls: the kill comes as the n-th call of a kind begins.

CALLS = ("rename", "unlink", "rmdir", "mkdir", "fsync", "write", "ftruncate", "fallocate", "openat", "close", "flock")
CYCLE = ("--saves", "3", "--keep", "last=1", "--weights", "300", "--optimizer", "1500")


def test_after_a_kill_at_each_system_call_of_save_seal_and_prune_there_is_a_way_back(
    volume: Volume, tmp_path: Path
) -> None:
    """Attacks: the order of fsync, rename and unlink. One kill at each call of three saves, lightenings and prunes."""
    points = tracing.calls_of_the_loop(volume("4600k") / "out", tmp_path / "trace", CALLS, *CYCLE)
    assert len(points) > 100, points
    chosen = sorted(random.Random(SEED).sample(points, share(len(points)) if FULL else 40))
    place = volume("4600k")
    for number, call in enumerate(chosen):
        root = place / f"out{number}"
        done = tracing.drive_with("signal=KILL", call, root, *CYCLE)
        sealed = max([0, *looks.steps_said(done.stdout, "sealed")])
        try:
            _check_after_a_kill(root, 0, sealed)
            again = subprocess.run(
                looks.python(looks.DRIVER, root, "--saves", 1, *CYCLE[2:]),
                capture_output=True, text=True, env=child_environment(), timeout=60,
            )  # fmt: skip
            assert again.returncode == 0, again.stderr
            looks.assert_only_whole_are_offered(root)
            assert looks.debris(root) == []
        except AssertionError as error:
            error.add_note(f"seed {SEED}, kill at {call}; {done.stdout[-300:]}")
            raise
        finally:
            subprocess.run(["rm", "-rf", root], check=True)


# With the real Trainer.


@pytest.mark.parametrize("seed", range(max(1, share(20) // 5)), ids="seed{}".format)
def test_a_trainer_killed_three_times_finishes_from_its_newest_seal(volume: Volume, tmp_path: Path, seed: int) -> None:
    """Attacks: resume of the unmodified script takes the newest sealed checkpoint after each kill -9."""
    dice = random.Random(seed)
    root = volume("30m") / "out"
    command = looks.python(looks.TRAINER, root, "--steps", 60)
    sealed = 0
    for kill in range(3):
        with subprocess.Popen(
            command,
            env=looks.hooked(tmp_path, OUTLAST_RESUME="1"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as child:
            _wait_for_a_seal(tmp_path, child, beyond=sealed)
            time.sleep(dice.uniform(0, 0.5))  # into the next steps, saves and prunes
            child.kill()
        sealed = max([sealed, *(event["step"] for event in looks.named(tmp_path, "sealed"))])
        try:
            looks.assert_only_whole_are_offered(root)
        except AssertionError as error:
            error.add_note(f"seed {seed}, kill {kill} after the seal of step {sealed}")
            raise
        if sealed == 60:
            break
    done = subprocess.run(command, env=looks.hooked(tmp_path, OUTLAST_RESUME="1"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    resumed = looks.named(tmp_path, "resumed")
    assert resumed and resumed[-1]["step"] == sealed, f"seed {seed}"
    assert "checkpoint-60" in looks.verifying(root)
    assert looks.debris(root) == []


def _wait_for_a_seal(home: Path, child: subprocess.Popen[bytes], *, beyond: int) -> None:
    until = time.monotonic() + 120
    while not any(event["step"] > beyond for event in looks.named(home, "sealed")):
        assert child.poll() is None, "the trainer ended before it sealed anything new"
        assert time.monotonic() < until
        time.sleep(0.02)
