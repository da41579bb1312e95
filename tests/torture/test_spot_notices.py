"""Promise 5 on a machine that is taken away: the cloud says so, and the training leaves with its last step sealed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from outlast import journal
from outlast.checkpoints import seal
from tests.metadata_server import ACTION, PREEMPTED, QUIET, Cloud, clouds

from .conftest import SCRIPTS, child_environment, outlast

LAST_RESORT_SECONDS = 300


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with clouds() as serving:
        yield serving


def _aws(cloud: Cloud, seconds: float) -> None:
    when = datetime.fromtimestamp(time.time() + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    cloud.answers[ACTION] = json.dumps({"action": "terminate", "time": when})


def _gcp(cloud: Cloud, seconds: float) -> None:
    cloud.answers[PREEMPTED] = "TRUE"


def _logged(folder: Path) -> list[int]:
    log = folder / "log.txt"
    return [json.loads(line)[0] for line in log.read_text().splitlines()] if log.exists() else []


def _session(folder: Path, variables: dict[str, str], announce: Callable[[], None]) -> tuple[int, str, float]:
    """An unmodified Trainer under `outlast run`, whose end is announced once it has made three steps.

    Returns:
        Exit code, what was said, and when it had ended.
    """
    words = [SCRIPTS / "trainer.py", folder / "out", "--steps", 20_000, "--save", 20_000, "--log", folder / "log.txt"]
    before = len(_logged(folder))
    process = subprocess.Popen(
        [sys.executable, "-m", "outlast", "run", "--dir", str(folder), "--", sys.executable, *map(str, words)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=child_environment(**variables),
    )  # fmt: skip
    while len(_logged(folder)) < before + 3:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    announce()
    _, said = process.communicate(timeout=LAST_RESORT_SECONDS)
    return process.returncode, said, time.time()


def _sealed(folder: Path) -> int:
    newest = max((folder / "out").glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    assert seal.check(newest, seal.read(newest)).is_whole
    return int(newest.name.rpartition("-")[2])


def test_a_spot_instance_that_is_taken_away_leaves_its_last_step_and_the_next_goes_on_from_it(
    tmp_path: Path, cloud: Cloud
) -> None:
    """AWS, with session tokens: two machines, one after the other, on the same folder."""
    variables = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": cloud.url}
    code, said, ended = _session(tmp_path, variables, lambda: _aws(cloud, 20))
    asked = [event for event in journal.read(tmp_path, journal.runs(tmp_path)[-1]) if event.name == "notice"]
    assert code == 0 and ended < asked[0].get("by"), said
    assert "AWS will terminate this spot instance, in " in said and "asked it to seal a checkpoint and leave" in said
    steps = _logged(tmp_path)
    assert _sealed(tmp_path) == steps[-1] == len(steps)
    assert json.loads(outlast("why", "--dir", tmp_path, "--json").stdout)["cause"] == "notice"

    cloud.answers = dict(QUIET)
    code, said, _ = _session(tmp_path, variables, lambda: _aws(cloud, 20))
    assert code == 0, said
    assert _logged(tmp_path)[len(steps)] == len(steps) + 1, "it goes on with the step after the sealed one"
    assert _sealed(tmp_path) == _logged(tmp_path)[-1]


def test_a_preempted_machine_of_google_leaves_in_its_half_minute(tmp_path: Path, cloud: Cloud) -> None:
    began: list[float] = []

    def announce() -> None:
        began.append(time.time())
        _gcp(cloud, 30)

    code, said, ended = _session(tmp_path, {"GCE_METADATA_HOST": cloud.url.removeprefix("http://")}, announce)
    assert code == 0 and ended < began[0] + 30, said
    assert "Google Cloud preempts this machine, in no less than" in said
    assert _sealed(tmp_path) == _logged(tmp_path)[-1]


def test_a_metadata_server_that_never_answers_neither_stops_nor_delays_a_run(tmp_path: Path, cloud: Cloud) -> None:
    cloud.is_mute = True
    variables = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": cloud.url}
    done = subprocess.run(
        [sys.executable, "-m", "outlast", "run", "--dir", tmp_path, "--", sys.executable, "-c", "print('trained')"],
        capture_output=True, text=True, env=child_environment(**variables), timeout=LAST_RESORT_SECONDS,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "trained\n"), done.stderr
    assert "died" not in done.stderr
