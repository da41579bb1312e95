"""Promise 6: running out of memory loses no step. An unmodified Trainer on a machine that gets small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from outlast import journal
from outlast.checkpoints import seal

from .conftest import SCRIPTS, child_environment, outlast, share

ROOM_MIB = 110


def _command(folder: Path, room_mib: int, *more: str) -> list[str]:
    words = [sys.executable, SCRIPTS / "small_memory.py", folder, folder.with_suffix(".txt"), room_mib, *more]
    return [str(word) for word in words]


def _losses(folder: Path) -> list[tuple[int, float, float]]:
    lines = folder.with_suffix(".txt").read_text().splitlines()
    return [tuple(json.loads(line)) for line in lines]


def test_a_trainer_that_runs_out_of_memory_goes_on_with_the_losses_of_one_that_had_enough(tmp_path: Path) -> None:
    """The allocator's own failure, not a fake; without Outlast the same script dies of it."""
    enough, dead, split = tmp_path / "enough", tmp_path / "dead", tmp_path / "split"
    subprocess.run(_command(enough, 0), env=child_environment(), capture_output=True, check=True)
    plain = subprocess.run(_command(dead, ROOM_MIB), env=child_environment(), capture_output=True, text=True)
    assert plain.returncode == 1 and "DefaultCPUAllocator: can't allocate memory" in plain.stderr

    guarded = outlast("run", "--dir", tmp_path, "--", *_command(split, ROOM_MIB))
    assert guarded.returncode == 0, guarded.stderr
    assert "finished at step 8 with batches of 16" in guarded.stdout
    for (step, loss, norm), (_, expected, expected_norm) in zip(_losses(split), _losses(enough), strict=True):
        assert loss == pytest.approx(expected, rel=1e-5), step
        assert norm == pytest.approx(expected_norm, rel=1e-4), step

    run = journal.runs(tmp_path)[-1]
    splits = [event for event in journal.read(tmp_path, run) if event.name == "batch_split"]
    assert splits and splits[0].get("step") == 3 and splits[0].get("effective_batch") == 16
    assert all(sum(event.get("pieces")) == 16 for event in splits)
    assert len(splits) <= 3, "the size that worked is remembered"
    assert seal.read(split / "checkpoint-8").notes["memory"]["fits"] > 0
    assert not any(event.name == "exception" for event in journal.read(tmp_path, run))


@pytest.mark.sampled(1)
@pytest.mark.parametrize("seed", range(share(20)))
def test_fifty_steps_with_memory_running_out_at_ten_random_points_are_those_of_a_run_with_enough(
    tmp_path: Path, seed: int
) -> None:
    """In forward and backward; bare, the script dies at the first of them."""
    words = [sys.executable, SCRIPTS / "shortages.py", "--seed", seed]

    def steps(name: str) -> list[dict[str, Any]]:
        lines = (tmp_path / f"{name}.txt").read_text().splitlines()
        return [found for line in lines if "step" in (found := json.loads(line))]

    def command(name: str, *more: str) -> list[str]:
        return [*map(str, words), str(tmp_path / name), str(tmp_path / f"{name}.txt"), *more]

    subprocess.run(command("enough", "--enough"), env=child_environment(), capture_output=True, check=True)
    bare = subprocess.run(command("bare"), env=child_environment(), capture_output=True, text=True)
    guarded = outlast("run", "--dir", tmp_path, "--", *command("split"))
    assert guarded.returncode == 0 and "finished at step 50 with batches of 32" in guarded.stdout, guarded.stderr
    enough, split = steps("enough"), steps("split")
    points = [step for step in split if step["room"] is not None]
    assert len(points) == 10 and all(step["most"] <= step["room"] for step in points)
    assert split[-1]["failures"] >= 2, "memory really ran out"
    assert bare.returncode == 1 and "OutOfMemoryError" in bare.stderr and len(steps("bare")) == points[0]["step"] - 1
    assert [step["step"] for step in split] == [step["step"] for step in enough] == list(range(1, 51))
    for ours, theirs in zip(split, enough, strict=True):
        assert ours["rows"] == theirs["rows"], "each step is made of the same samples"
        # The weights are double, what the Trainer adds losses up in is single.
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=3e-6), ours["step"]
        assert ours["norm"] == pytest.approx(theirs["norm"], rel=1e-9), ours["step"]


@pytest.mark.sampled(0)
def test_the_trainers_own_way_changes_the_effective_batch_and_ours_does_not(tmp_path: Path) -> None:
    """What auto_find_batch_size does on the same script: it starts again, with smaller batches, on trained weights."""
    plain, split = tmp_path / "plain", tmp_path / "split"
    theirs = subprocess.run(
        _command(plain, ROOM_MIB, "--auto"), env=child_environment(), capture_output=True, text=True
    )
    ours = outlast("run", "--dir", tmp_path, "--", *_command(split, ROOM_MIB, "--auto"))
    assert "with batches of 16" in ours.stdout and [step for step, *_ in _losses(split)] == list(range(1, 9))
    assert "with batches of 16" not in theirs.stdout
    steps = [step for step, *_ in _losses(plain)]
    assert steps[:3] == [1, 2, 1], "its steps count from the beginning again"
