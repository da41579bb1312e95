"""Promises 1, 2 and 4 for Accelerate: the run finishes, total_limit deletes after the seal, kills leave a way back."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from outlast.checkpoints import Vault

from .conftest import SCRIPTS, child_environment, outlast
from .scripts import looks

SCRIPT = SCRIPTS / "accelerate_script.py"
Volume = Callable[..., Path]


def whole(root: Path) -> dict[int, str]:
    """Step and kind of each state that verifies, oldest first."""
    vault = Vault(root)
    found = {checkpoint.step: vault.check(checkpoint) for checkpoint in vault.checkpoints()}
    return {step: check.kind for step, check in found.items() if check.is_whole and check.kind}


def own_debris(root: Path) -> list[str]:
    """Outlast's own things are beside the folder here."""
    own = Vault(root).own
    return [str(path) for folder in ("stage", "trash") for path in (own / folder).iterdir()] + looks.debris(root)


def test_without_outlast_the_script_dies(volume: Volume) -> None:
    """The premise: 13.4 MB a save, four kept, 45 MB."""
    place = volume("45m")
    done = subprocess.run(looks.python(SCRIPT, place / "out"), env=child_environment(), capture_output=True, text=True)
    assert done.returncode != 0
    assert "unexpected pos" in done.stderr or "No space left" in done.stderr


@pytest.mark.parametrize("size", ["45m", "20m"])
def test_the_unmodified_script_finishes_on_a_volume_too_small_for_it(volume: Volume, size: str) -> None:
    """Attacks: a save is admitted before it starts; 20 MB hold one and a half states: the light rungs."""
    place = volume(size)
    done = outlast("run", "--dir", place, "--", sys.executable, SCRIPT, place / "out")
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    found = whole(place / "out" / "checkpoints")
    assert len(found) >= 2
    assert found[100] == "full"
    assert own_debris(place / "out" / "checkpoints") == []
    names = sorted(path.name for path in (place / "out" / "checkpoints").iterdir())
    assert all(name.startswith("checkpoint_") for name in names), "Accelerate reads a number off every name in there"
    assert {event["action"] for event in looks.named(place, "rung")} & {"lighten", "drop"}


def test_a_folder_that_is_saved_to_again_keeps_its_old_state_until_the_new_one_is_sealed(
    volume: Volume, tmp_path: Path
) -> None:
    """Attacks: nothing is deleted before what supersedes it is durable; plain Accelerate writes over it in place."""
    place = volume("30m")
    with subprocess.Popen(
        looks.python(SCRIPT, place / "out", "--into", place / "out" / "state", "--save", 2, "--steps", 400),
        env=looks.hooked(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as child:  # fmt: skip
        try:
            for line in iter(lambda: len(looks.named(tmp_path, "sealed")), 12):
                assert child.poll() is None, line
        finally:
            child.kill()
    vault = Vault(place / "out")
    vault.recover(settles=False)
    choice = vault.choose()
    assert choice and choice.checkpoint.name == "state" and choice.kind == "full"
    assert choice.checkpoint.step >= 24
    assert looks.debris(place / "out") == []


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("call", "when"), [("rename", 3), ("rename", 9), ("rename", 14), ("fallocate", 5), ("mkdir", 12), ("fsync", 9)]
)
def test_after_a_kill_in_a_save_it_goes_on_from_the_newest_seal(
    volume: Volume, tmp_path: Path, call: str, when: int
) -> None:
    """Attacks: a partial save is never offered, there is always a way back, a start cleans up."""
    place = volume("45m")
    root = place / "out" / "checkpoints"
    command = looks.python(SCRIPT, place / "out", "--steps", 30, "--save", 5, "--limit", 1, "--resume")
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"]
    strace += ["-e", f"inject={call}:signal=KILL:when={when}"]
    killed = subprocess.run(strace + command, env=looks.hooked(tmp_path), capture_output=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, f"the kill at {call} number {when} did not come"
    sealed = max([0, *(event["step"] for event in looks.named(tmp_path, "sealed"))])
    again = subprocess.run(command, env=looks.hooked(tmp_path), capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr[-2000:]
    resumed = looks.named(tmp_path, "resumed")
    assert not sealed or resumed[-1]["step"] >= sealed
    assert list(whole(root))[-1] == 30
    assert own_debris(root) == []


def test_a_light_state_is_loaded_with_its_step_and_learning_rate(volume: Volume, tmp_path: Path) -> None:
    """Attacks: what was made light to make room can be resumed from, and not as bare weights."""
    place = volume("20m")
    command = looks.python(SCRIPT, place / "out", "--log", tmp_path / "log")
    subprocess.run([*command, "--steps", "40"], env=looks.hooked(tmp_path), check=True, capture_output=True)
    newest = place / "out" / "checkpoints" / "checkpoint_3"
    (newest / "optimizer.bin").unlink()
    done = subprocess.run(
        [*command, "--steps", "50", "--resume"], env=looks.hooked(tmp_path), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "resumed at step 40" in done.stdout
    assert looks.named(tmp_path, "resumed")[-1]["kind"] == "light"
    assert (place / "out" / "checkpoints" / "checkpoint_4").is_dir(), "the count goes on after a load"
