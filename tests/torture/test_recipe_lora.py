"""recipes/lora, as its README says it is used: a volume that is too small, kills, a damaged checkpoint, a deadline."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from outlast.checkpoints import Vault
from tests.builders import flip_bit

from .conftest import child_environment, outlast, share
from .scripts import looks

TRAIN = Path(__file__).parents[2] / "recipes/lora/train.py"
TOY = (
    "--preset toy --limit 300 --max-steps 28 --save-steps 1 --per-device-train-batch-size 2 --max-length 48 "
    "--lora-dropout 0.1 --validation 0 --logging-steps 1"
)
SAVES = 28
SEED = 20261121
Losses = list[tuple[Any, ...]]


def _command(out: Path, *more: str) -> list[str]:
    return [sys.executable, str(TRAIN), *TOY.split(), "--output-dir", str(out), *more]


def _losses(out: Path) -> Losses:
    """Step, loss, norm of the gradient and learning rate of all steps."""
    log = json.loads((out / "checkpoint-28/trainer_state.json").read_text())["log_history"]
    return [(e["step"], e["loss"], e["grad_norm"], e["learning_rate"]) for e in log if "loss" in e]


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*"))


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbs, guarded by itself alone, with room for everything."""
    out = tmp_path_factory.mktemp("straight") / "out"
    subprocess.run(_command(out), env=child_environment(), check=True, capture_output=True, timeout=300)
    return out


def test_28_saves_end_well_with_room_for_one_and_a_half_checkpoints_and_the_losses_are_those_with_all_room(
    straight: Path, volume: Callable[..., Path], tmp_path: Path
) -> None:
    """Attacks: promise 4, as seed 001 asks for it, and that being guarded twice is being guarded once."""
    size = _bytes(straight / "base") + 3 * _bytes(straight / "checkpoint-28") // 2
    place = volume(str(size))
    done = outlast("run", "--dir", tmp_path, "--", *_command(place / "out"))
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    assert "finished at step 28" in done.stdout
    sealed = [event["step"] for event in looks.named(tmp_path, "sealed")]
    # Once each: the script's own callback and the hooks of `outlast run` are one guard.
    assert sealed == list(range(1, SAVES + 1))
    assert _losses(place / "out") == _losses(straight)
    assert "checkpoint-28" in looks.verifying(place / "out")  # perhaps light: it gave way for the final adapter
    assert looks.debris(place / "out") == []
    ours, theirs = (root / "final/adapter_model.safetensors" for root in (place / "out", straight))
    assert ours.read_bytes() == theirs.read_bytes()
    assert Counter(event["number"] for event in looks.named(tmp_path, "rung"))[5] > 0


def _killed_after(step: int, out: Path) -> None:
    """Start the training, and kill -9 it a moment after it has a checkpoint of that step or a later one."""
    child = subprocess.Popen(_command(out), env=child_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while child.poll() is None and not _has(out, step):
        time.sleep(0.005)
    time.sleep(random.Random(SEED + step).random() * 0.3)
    child.send_signal(signal.SIGKILL)
    _, said = child.communicate()
    assert child.returncode == -signal.SIGKILL, said.decode()[-2000:]


def _has(out: Path, step: int) -> bool:
    return any(int(path.name.partition("-")[2]) >= step for path in out.glob("checkpoint-*") if path.is_dir())


@pytest.mark.parametrize("case", range(max(1, share(10) // 3)))
def test_killed_twice_damaged_in_between_and_stopped_by_a_deadline_the_losses_are_those_of_an_undisturbed_run(
    straight: Path, tmp_path: Path, case: int
) -> None:
    """Attacks: promises 1, 2 and 5, in a script that guards itself. The same command four times."""
    first, second = sorted(random.Random(SEED + case).sample(range(3, 24), 2))
    out = tmp_path / "out"
    _killed_after(first, out)
    newest = max(Vault(out).checkpoints(), key=lambda checkpoint: checkpoint.step)
    flip_bit(newest.path / "optimizer.pt")
    flip_bit(newest.path / "adapter_model.safetensors")
    _killed_after(max(second, newest.step + 1), out)
    session = subprocess.run(
        _command(out, "--deadline", "7s"), env=child_environment(), capture_output=True, text=True, timeout=300
    )
    assert session.returncode == 0, session.stderr[-2000:]
    assert (out / "final").exists() == ("finished at step 28" in session.stdout), "no adapter before the end"
    subprocess.run(_command(out), env=child_environment(), check=True, capture_output=True, timeout=300)
    assert _losses(out) == _losses(straight), f"killed after steps {first} and {second}"
    passed = [event["name"] for event in looks.named(out, "passed_over")]
    assert newest.name in passed
    assert (out / "final/adapter_model.safetensors").read_bytes() == (
        straight / "final/adapter_model.safetensors"
    ).read_bytes()
