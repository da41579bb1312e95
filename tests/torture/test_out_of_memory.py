"""Promise 6: running out of memory loses no step. An unmodified Trainer on a machine that gets small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from outlast import journal
from outlast.checkpoints import seal

from .conftest import SCRIPTS, child_environment, outlast

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
