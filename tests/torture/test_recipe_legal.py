"""Promises 4, 5 and 6 in recipes/legal as a user runs it: full disk, kill -9, sessions that end, too little memory."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from legal import licences
from outlast import journal

from .conftest import SCRIPTS, child_environment, outlast

FULL = os.environ.get("OUTLAST_TORTURE") == "full"
KILLS = 20 if FULL else 1
SESSION, PAUSE, SLOW = (40, 2.5, 4) if FULL else (10, 0.5, 1)
"""Seconds of a session, by how much each step is slowed down, and in how many sessions."""
Volume = Callable[..., Path]


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("legal") / "documents"
    licences.write(place, licences=("Apache-2.0", "MPL-2.0", "GFDL-1.3"))
    return place


@pytest.fixture(scope="module")
def straight(documents: Path) -> Path:
    """The run that nothing happens to."""
    done = _train(documents, documents.parent / "straight")
    assert done.returncode == 0, done.stderr
    return documents.parent / "straight"


def _command(documents: Path, out: Path, *more: object, slow: tuple[object, ...] = ()) -> list[str]:
    words = [sys.executable, SCRIPTS / "legal_train.py", *slow, "--", "--data", documents, "--out", out,
             "--model", "small", "--num-epochs", 3, "--learning-rate", 2e-3, "--max-length", 64, "--validation", 0.25,
             "--save-frequency", 5, "--keep-n-checkpoints", 2, "--log-every", 1, *more]  # fmt: skip
    return [str(word) for word in words]


def _train(*arguments: Any, variables: dict[str, str] | None = None, **more: Any) -> subprocess.CompletedProcess[str]:
    environment = child_environment(**(variables or {}))
    return subprocess.run(_command(*arguments, **more), env=environment, capture_output=True, text=True, timeout=500)


def _log(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def _scores(out: Path) -> dict[str, Any]:
    return json.loads((out / "report.json").read_text())["scores"]


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_killed_at_random_steps_it_has_the_losses_and_scores_of_the_run_that_was_not(
    documents: Path, straight: Path, tmp_path: Path
) -> None:
    """kill -9 to the training itself, also in saves; the last process is left alone."""
    draw, out = random.Random(6), tmp_path / "out"
    for _ in range(KILLS):
        with subprocess.Popen(
            _command(documents, out, slow=("--pause", 0.05)),
            env=child_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as child:  # fmt: skip
            before = _lines(out / "log.jsonl")
            while child.poll() is None and _lines(out / "log.jsonl") in (0, before):
                time.sleep(0.02)
            time.sleep(draw.uniform(0, 2))
            child.kill()
    done = _train(documents, out)
    assert done.returncode == 0, done.stderr
    assert "goes on from step" in done.stdout
    assert _log(out) == _log(straight) and _scores(out) == _scores(straight)
    found = outlast("checkpoints", "verify", "--dir", out / "checkpoints")
    assert found.returncode == 0, found.stdout


def test_in_sessions_that_end_it_is_the_run_without_an_end_to_the_bit(
    documents: Path, straight: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    told: list[str] = []
    while not (out / "report.json").exists() and len(told) < 12:
        done = _train(documents, out, "--deadline", f"{SESSION}s", slow=("--pause", PAUSE if len(told) < SLOW else 0))
        assert done.returncode == 0, done.stderr
        told.append(done.stdout)
    assert len(told) >= (3 if FULL else 2) and "the same command goes on from there" in told[0]
    assert "goes on from step" in told[-1]
    assert _log(out) == _log(straight) and _scores(out) == _scores(straight)


def test_on_a_volume_for_one_and_a_half_checkpoints_it_finishes_with_report_and_best_model(
    documents: Path, straight: Path, tmp_path: Path, volume: Volume
) -> None:
    """Its checkpoints take 2 MB each; every fifth step saves one, and three are wanted."""
    sizes = [sum(f.stat().st_size for f in one.rglob("*")) for one in (straight / "checkpoints").glob("step-*")]
    rest = sum(f.stat().st_size for f in (straight / "start").iterdir())
    place = volume(f"{int(1.5 * max(sizes) + 2 * rest) // 1024}k")
    done = _train(documents, place / "out")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert _log(place / "out") == _log(straight), "the losses are those of a run with room"
    assert (place / "out/best/model.safetensors").stat().st_size > 500_000 and (place / "out/report.md").exists()
    root = place / "out" / "checkpoints"
    rungs = [e for run in journal.runs(root) for e in journal.read(root, run) if e.name == "rung"]
    assert rungs, "it was really short of room"
    assert outlast("checkpoints", "verify", "--dir", root).returncode == 0


def test_when_memory_runs_out_every_step_is_made_of_the_same_sentences(documents: Path, tmp_path: Path) -> None:
    """The allocator's own failure, from step 3 on; a batch is 32 sentences before and after."""
    wide = ("--batch-size", 32, "--context", 8, "--max-length", 256, "--num-epochs", 1, "--save-frequency", "epoch",
            "--subset-ratio", 0.8)  # fmt: skip
    enough, split = tmp_path / "enough", tmp_path / "split"
    # What a tensor took is given back to the kernel, so that what the process has is what it needs.
    give_back = {"MALLOC_MMAP_THRESHOLD_": "500000"}
    assert _train(documents, enough, *wide, variables=give_back).returncode == 0
    done = _train(documents, split, *wide, variables=give_back, slow=("--room", 25))
    assert done.returncode == 0, done.stderr[-2000:]
    root = split / "checkpoints"
    found = [e for run in journal.runs(root) for e in journal.read(root, run) if e.name == "batch_split"]
    assert found and all(sum(e.get("pieces")) == e.get("samples") <= 32 for e in found)
    ours, theirs = ([one["loss"] for one in _log(out) if "loss" in one] for out in (split, enough))
    assert ours[:2] == theirs[:2] and len(ours) == len(theirs)
    # Dropout draws its masks for each piece, so the losses stray, and by no more than masks make them.
    assert ours == pytest.approx(theirs, abs=0.25)
