"""Promise 5, for data: after any kill every row comes once an epoch, in the order of a run that was never killed."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from outlast import data
from tests.data.parquets import make_rows
from tests.torture.conftest import SCRIPTS, child_environment, share

ROWS, BATCH, EPOCHS = 5000, 32, 2
STEPS = -(-ROWS // BATCH)


def start(folder: Path, root: Path, log: Path, workers: int) -> subprocess.Popen[bytes]:
    words = [SCRIPTS / "reading_loop.py", folder, root, log, workers, EPOCHS]
    return subprocess.Popen([sys.executable, *map(str, words)], env=child_environment())


def lines(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def kill_at(process: subprocess.Popen[bytes], log: Path, step: int) -> None:
    """SIGKILL as soon as the log shows the step; a run that is over sooner is left to be."""
    while process.poll() is None:
        if any(line.get("step", 0) >= step for line in lines(log)[-1:]):  # type: ignore[operator]
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    process.wait(60)


def effective(log: Path) -> dict[int, list[int]]:
    """Rows of each step, as the last life that did it saw them."""
    return {line["step"]: line["rows"] for line in lines(log) if "step" in line}  # type: ignore[misc]


def expected(folder: Path) -> dict[int, list[int]]:
    rows = data.open(folder, shuffle=True, seed=11, window="64KB", columns=["id"])
    assert rows.order.width < len(rows.order.groups)
    every = [row["id"] for epoch in range(EPOCHS) for row in rows.epoch(epoch)]
    cuts = [(epoch * ROWS + at, min((epoch + 1) * ROWS, epoch * ROWS + at + BATCH))
            for epoch in range(EPOCHS) for at in range(0, ROWS, BATCH)]  # fmt: skip
    return {step: every[start:stop] for step, (start, stop) in enumerate(cuts, 1)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rows(tmp_path_factory.mktemp("rows"), ROWS, per_file=1000, per_group=100)


@pytest.mark.parametrize("seed", range(share(20)))
def test_killed_and_resumed_twice_every_row_comes_once_in_the_same_order(
    volume: Callable[..., Path], folder: Path, seed: int
) -> None:
    chance = random.Random(seed)
    first, second = sorted(chance.sample(range(27, EPOCHS * STEPS), 2))
    place = volume("32m")
    log = place / "log"
    # The second life has another number of workers: the position holds for any.
    for step, workers in ((first, 4), (second, chance.choice([0, 1, 3, 4])), (10**9, 4)):
        process = start(folder, place / "run", log, workers)
        kill_at(process, log, step)
    assert process.returncode == 0
    seen = effective(log)
    assert seen == expected(folder)
    for epoch in range(EPOCHS):
        flat = [row for step in range(epoch * STEPS + 1, (epoch + 1) * STEPS + 1) for row in seen[step]]
        assert sorted(flat) == list(range(ROWS))
    began = [line["began"] for line in lines(log) if "began" in line]
    assert began[0] == 0 and len(began) == 3 and 0 < began[1] <= began[2]  # type: ignore[operator]
