"""Issue 5: what `outlast plan` predicts is what real runs do: the peak within 2 %, the step that fails, the rungs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from .conftest import SCRIPTS, child_environment, outlast, share
from .scripts import looks

Volume = Callable[..., Path]
TRAINER, LIGHTNING, LOOP = SCRIPTS / "trainer.py", SCRIPTS / "lightning_script.py", SCRIPTS / "save_loop.py"
_LOOK_SECONDS = 0.0005


def used(place: Path) -> int:
    """Bytes that lie on a volume."""
    figures = os.statvfs(place)
    return (figures.f_blocks - figures.f_bfree) * figures.f_frsize


def measured_peak(place: Path, command: Sequence[object]) -> tuple[int, int]:
    """Most that lay on the volume while a command ran, and its exit code: statvfs, some thousand looks a second."""
    peak = used(place)
    words = [str(word) for word in command]
    with subprocess.Popen(
        words, env=child_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=place.parent
    ) as child:
        while child.poll() is None:
            peak = max(peak, used(place))
            time.sleep(_LOOK_SECONDS)
        return peak, child.returncode


def predicted(command: Sequence[object], *options: object) -> dict[str, Any]:
    """The plan for a script, from its own arguments."""
    done = outlast("plan", *options, "--json", *(["--", *command] if command else []))
    assert done.stdout.startswith("{"), done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def _guarded(home: Path, command: Sequence[object]) -> list[object]:
    return [sys.executable, "-m", "outlast", "run", "--dir", home, "--", *command]


CASES = {
    "Trainer": ("200m", TRAINER, ("--steps", 60)),
    "Trainer, limit 2 and an old best": ("200m", TRAINER, ("--steps", 60, "--limit", 2, "--best")),
    "Trainer, the model only": ("200m", TRAINER, ("--steps", 60, "--only-model")),
    "Trainer, on 45 MB": ("45m", TRAINER, ("--steps", 60)),
    "Trainer, on 20 MB": ("20m", TRAINER, ("--steps", 60)),
    "Lightning, best 3 and last": ("200m", LIGHTNING, ("--steps", 60, "--last")),
}


RUNS = [("Trainer", False), ("Trainer, on 45 MB", True), ("Lightning, best 3 and last", True)]
"""What a sample runs; `make torture` runs every case both ways."""
RUNS += [pair for name in CASES for pair in ((name, False), (name, True)) if pair not in RUNS]


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("name", "guarded"), RUNS[: share(len(RUNS))])
def test_the_predicted_peak_is_that_of_the_real_run(volume: Volume, tmp_path: Path, name: str, guarded: bool) -> None:
    """Attacks: within 2 %, and whether it ends well, with Outlast and without."""
    size, script, options = CASES[name]
    place = volume(size)
    command = looks.python(script, place / "out", *options)
    plan = predicted(command)["with" if guarded else "without"]
    peak, code = measured_peak(place, _guarded(tmp_path, command) if guarded else command)
    assert (code == 0) == (plan["full_at"] is None)
    assert plan["peak_bytes"] == pytest.approx(peak, rel=0.02)
    if guarded:
        assert set(plan["kinds"]) == {event["kind"] for event in looks.named(tmp_path, "sealed")}


@pytest.mark.sampled(1)
@pytest.mark.parametrize("size", ["45m", "20m"])
def test_the_rungs_that_it_foretells_are_those_that_are_taken(volume: Volume, tmp_path: Path, size: str) -> None:
    """Attacks: the simulation asks the ladder itself; the journal has the same moves on the same checkpoints."""
    place = volume(size)
    command = looks.python(TRAINER, place / "out", "--steps", 60)
    deeds = predicted(command)["with"]["deeds"]
    _, code = measured_peak(place, _guarded(tmp_path, command))
    assert code == 0
    said = [(deed["rung"], deed["action"], deed["name"].replace("step ", "checkpoint-")) for deed in deeds]
    done = [(event["number"], event["action"], event["name"]) for event in looks.named(tmp_path, "rung")]
    assert said == done


def test_a_loop_that_saves_one_file_needs_room_for_one_and_for_two_under_outlast(
    volume: Volume, tmp_path: Path
) -> None:
    """Attacks: torch.save empties the old file as it opens it; Outlast keeps it until the new one is whole."""
    place = volume("100m")
    command = looks.python(LOOP, place / "model.pt", "--saves", 30, "--kb", 20_000)
    said = ("--framework", "torch.save", "--steps", 30, "--save-every", 1, "--save-bytes", 20_000 * 1024)
    plan = predicted((), *said, "--output-dir", place)
    for which, words in (("without", command), ("with", _guarded(tmp_path, command))):
        peak, code = measured_peak(place, words)
        assert code == 0
        assert plan[which]["peak_bytes"] == pytest.approx(peak, rel=0.02)
        (place / "model.pt").unlink()


@pytest.mark.sampled(0)
def test_undeleted_checkpoints_fill_the_volume_at_the_step_that_was_foretold(volume: Volume) -> None:
    """Attacks: seeds/001's suspicion. A limit of 0 stands for deletions that do not happen."""
    place = volume("45m")
    command = looks.python(TRAINER, place / "out", "--steps", 60)
    plan = predicted(command)["nothing_deleted"]
    done = subprocess.run([*command, "--limit", "0"], env=child_environment(), capture_output=True, text=True)
    assert done.returncode != 0
    whole = [path.parent.name for path in (place / "out").glob("checkpoint-*/trainer_state.json")]
    assert plan["full_at"] == 10 * (len(whole) + 1)
