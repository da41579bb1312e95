"""A light checkpoint resumes with the learning rate and step of the uninterrupted run, and strays little from it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from outlast.checkpoints import Vault, codec
from outlast.journal import Journal

from .conftest import SCRIPTS, child_environment, outlast, share

IS_FULL = share(10) == 10
STEPS, FROM = (300, 200) if IS_FULL else (200, 100)


def _losses(path: Path) -> dict[int, tuple[float, float]]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {step: (loss, rate) for step, loss, rate in rows}


def _script(place: Path, *more: str) -> list[str]:
    sizes = ["--steps", "1000", "--stop", str(STEPS), "--save", str(FROM), "--limit", "0"]
    # The third is promised of the model of research/checkpoint.md; on a narrow one a fresh optimizer does less harm.
    sizes += ["--words", "--plain", "--threads", "2"] if IS_FULL else []
    return [sys.executable, str(SCRIPTS / "trainer.py"), str(place), *sizes, "--log", f"{place}.txt", *more]


@pytest.mark.sampled(0)
def test_a_light_checkpoint_strays_a_third_as_far_as_bare_weights_at_most(tmp_path: Path) -> None:
    guarded = outlast("run", "--dir", tmp_path, "--", *_script(tmp_path / "straight"))
    assert guarded.returncode == 0, guarded.stderr
    for name in ("light", "bare", "plain"):
        shutil.copytree(tmp_path / f"straight/checkpoint-{FROM}", tmp_path / name / f"checkpoint-{FROM}")
    light = Vault(tmp_path / "light", journal=Journal(tmp_path))
    light.prepare()
    assert light.lighten(f"checkpoint-{FROM}", "test").reason is None
    for name in ("bare", "plain"):
        for file in ("optimizer.pt", "scheduler.pt", "rng_state.pth", codec.SIDECAR, "outlast.json"):
            (tmp_path / name / f"checkpoint-{FROM}" / file).unlink()

    for name in ("light", "bare"):
        done = outlast("run", "--dir", tmp_path / f"run-{name}", "--", *_script(tmp_path / name, "--resume"))
        assert done.returncode == 0, done.stderr
    plain = subprocess.run(_script(tmp_path / "plain", "--resume"), env=child_environment(), capture_output=True)
    assert plain.returncode == 0, plain.stderr

    straight = _losses(tmp_path / "straight.txt")
    strays, first = {}, {}
    for name in ("light", "bare", "plain"):
        curve = _losses(tmp_path / f"{name}.txt")
        assert sorted(curve) == list(range(FROM + 1, STEPS + 1)), f"{name} did not go on at step {FROM + 1}"
        strays[name] = sum(abs(curve[step][0] - straight[step][0]) for step in curve) / len(curve)
        first[name] = curve[FROM + 1][1]
    assert first["light"] == straight[FROM + 1][1], "the learning rate is not that of the uninterrupted run"
    assert first["bare"] == straight[FROM + 1][1], "bare weights go on in the schedule too"
    assert first["plain"] != straight[FROM + 1][1], "plain Trainer restarts the schedule: has upstream mended it?"
    assert strays["light"] <= strays["bare"] / 3 if IS_FULL else strays["light"] < strays["bare"], strays


def test_light_saves_by_choice_are_what_an_unmodified_script_goes_on_from(tmp_path: Path) -> None:
    """Attacks: there is always a way back, and a light one goes on at its step and rate."""
    sizes = ["--steps", "30", "--save", "10", "--limit", "2"]

    def script(place: Path, *more: str) -> list[str]:
        return [sys.executable, str(SCRIPTS / "trainer.py"), str(place), *sizes, "--log", f"{place}.txt", *more]

    straight = outlast("run", "--dir", tmp_path / "a", "--", *script(tmp_path / "straight"))
    assert straight.returncode == 0, straight.stderr
    place, home = tmp_path / "light", tmp_path / "b"
    first = outlast("run", "--dir", home, "--save", "light", "--", *script(place, "--stop", "15"))
    assert first.returncode == 0, first.stderr
    assert first.stderr.count("outlast: checkpoints are light (save=light)") == 1
    before = Vault(place).checkpoints()
    assert {c.kind for c in before} == {"light"}
    last = before[-1].step
    second = outlast("run", "--dir", home, "--save", "light", "--", *script(place, "--resume"))
    assert second.returncode == 0, second.stderr
    assert not list(tmp_path.glob("light/**/optimizer.pt"))
    assert {c.kind for c in Vault(place).checkpoints()} == {"light"}
    whole, curve = _losses(tmp_path / "straight.txt"), _losses(tmp_path / "light.txt")
    assert sorted(curve) == list(range(1, 31))
    assert {step: curve[step][1] for step in curve} == {step: whole[step][1] for step in whole}, "learning rates"
    assert curve[last + 1][0] == whole[last + 1][0], "the first step after the resume is exact"
    sizes_of = {name: Vault(tmp_path / name).checkpoints()[-1].bytes for name in ("straight", "light")}
    assert 0.34 < sizes_of["light"] / sizes_of["straight"] < 0.38, "docs/checkpoints.md says 35 %"
