"""Promise 4, the whole story: under `outlast run` a Trainer script finishes on a volume that is too small for it."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from outlast.checkpoints import Vault

from .conftest import child_environment, outlast
from .scripts import looks

Volume = Callable[..., Path]


def _guarded(place: Path, home: Path, *options: object, rules: tuple[object, ...] = ()) -> str:
    """Run the script under `outlast run`; returns what it wrote to its own standard output."""
    # No monitor here: what it reads is in use, is rightly not deleted, and other rungs would be taken.
    done = outlast("run", "--dir", home, *rules, "--", *looks.python(looks.TRAINER, place / "out", *options))
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    return done.stdout


def _rungs(home: Path) -> Counter[tuple[int, str]]:
    """How often each rung was taken, with its action."""
    return Counter((event["number"], event["action"]) for event in looks.named(home, "rung"))


def _assert_good_end(root: Path, least: int = 2) -> None:
    """At least so many checkpoints verify by reading every byte, the newest is that of the last step."""
    vault = Vault(root)
    found = [c for c in vault.checkpoints() if vault.check(c).is_whole]
    assert len(found) >= least, looks.verifying(root)
    assert found[-1].step == 100
    looks.assert_only_whole_are_offered(root)
    assert looks.debris(root) == []


def test_without_outlast_the_script_dies_on_45_mb_and_leaves_a_partial_checkpoint(volume: Volume) -> None:
    """The contrast: save_total_limit=3 is applied after the save, so the fourth one has no room."""
    root = volume("45m") / "out"
    done = subprocess.run(looks.python(looks.TRAINER, root), capture_output=True, text=True, env=child_environment())
    assert done.returncode != 0
    assert not (root / "checkpoint-40" / "trainer_state.json").exists()
    assert (root / "checkpoint-40").is_dir()


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("size", "kind", "taken"),
    [
        ("45m", "tmpfs", {(5, "lighten")}),
        ("45m", "ext4", {(5, "lighten")}),
        ("30m", "tmpfs", {(5, "drop")}),  # two full states and a bit: a light copy beside two would not fit
        ("20m", "tmpfs", {(5, "lighten"), (5, "drop")}),
    ],
)
def test_the_script_finishes_under_outlast_run_and_the_journal_names_its_rungs(
    volume: Volume, tmp_path: Path, size: str, kind: str, taken: set[tuple[int, str]]
) -> None:
    """Attacks: 100 steps, exit 0, sealed checkpoints that verify, the last at step 100, in a third of the room."""
    place = volume(size, kind)
    said = _guarded(place, tmp_path)
    assert "finished at step 100" in said
    root = place / "out"
    _assert_good_end(root, least=2)
    assert [event["step"] for event in looks.named(tmp_path, "sealed")] == list(range(10, 110, 10))
    rungs = _rungs(tmp_path)
    assert set(rungs) >= taken, rungs
    assert not looks.named(tmp_path, "paused")
    for event in looks.named(tmp_path, "rung"):
        assert event["why"] and event["frees_bytes"] >= 0
    verified = outlast("checkpoints", "verify", "--dir", root)
    assert verified.returncode == 0, verified.stdout + verified.stderr


@pytest.mark.sampled(1)
@pytest.mark.parametrize("size", ["45m", "20m"])
def test_the_best_model_survives_on_a_small_volume_and_is_loaded_at_the_end(
    volume: Volume, tmp_path: Path, size: str
) -> None:
    """Attacks: load_best_model_at_end. Retention and the ladder never drop the checkpoint that will be loaded."""
    place = volume(size)
    said = _guarded(place, tmp_path, "--best", "--limit", 2)
    assert "finished at step 100" in said
    root = place / "out"
    _assert_good_end(root, least=1)
    newest = max(looks.verifying(root), key=lambda name: int(name.partition("-")[2]))
    state = json.loads((root / newest / "trainer_state.json").read_text())
    best = Path(state["best_model_checkpoint"])
    assert best.parent == root, "the state must name the final place, not the stage"
    assert best.name in looks.verifying(root)
    assert len(looks.verifying(root)) <= 2 + 1


def test_save_only_model_stays_without_optimizer_and_resumes_exactly_placed(volume: Volume, tmp_path: Path) -> None:
    """Attacks: save_only_model is honoured: no optimizer.pt is written, and the seal says light."""
    place = volume("20m")
    _guarded(place, tmp_path, "--only-model")
    root = place / "out"
    _assert_good_end(root, least=2)
    assert not list(root.glob("*/optimizer.pt"))
    assert set(looks.verifying(root).values()) == {"light"}


def test_save_total_limit_of_one_leaves_one_checkpoint(volume: Volume, tmp_path: Path) -> None:
    """Attacks: the script's own limit is honoured, and only after the newer checkpoint is sealed."""
    place = volume("30m")
    _guarded(place, tmp_path, "--limit", 1)
    assert list(looks.verifying(place / "out")) == ["checkpoint-100"]


def test_keep_exact_holds_a_full_way_back_on_a_volume_of_one_and_a_half_states(volume: Volume, tmp_path: Path) -> None:
    """Attacks: --keep-exact. New saves may have to be light; a full checkpoint is there all the time."""
    place = volume("20m")
    _guarded(place, tmp_path, rules=("--keep-exact",))
    root = place / "out"
    _assert_good_end(root, least=1)
    assert "full" in looks.verifying(root).values()
    assert not any(
        event["action"] == "lighten" and "way back" in event["why"] for event in looks.named(tmp_path, "rung")
    )
