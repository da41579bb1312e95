"""Promises 1, 2 and 4 for Lightning: the run finishes, its best model is there, kills leave a way back."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from outlast.checkpoints import Vault

from .conftest import SCRIPTS, child_environment, outlast
from .scripts import looks

SCRIPT = SCRIPTS / "lightning_script.py"
Volume = Callable[..., Path]


def whole(root: Path) -> list[int]:
    """Steps of the checkpoints that verify, oldest first."""
    vault = Vault(root)
    return [checkpoint.step for checkpoint in vault.checkpoints() if vault.check(checkpoint).is_whole]


def test_without_outlast_the_script_dies_and_leaves_a_cut_file(volume: Volume) -> None:
    """The premise: 13.4 MB a save, the best three kept, 45 MB."""
    place = volume("45m")
    done = subprocess.run(looks.python(SCRIPT, place / "out"), env=child_environment(), capture_output=True, text=True)
    assert done.returncode != 0
    assert "No space left on device" in done.stderr


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "options",
    [(), ("--last",), ("--link", "--package", "pytorch_lightning"), ("--versions", "--top", "-1")],
    ids=" ".join,
)
def test_the_unmodified_script_finishes_on_a_volume_too_small_for_it(volume: Volume, options: tuple[str, ...]) -> None:
    """Attacks: a save is admitted before it starts; the best model is never given up, and its path is no phantom."""
    place = volume("45m")
    done = outlast("run", "--dir", place, "--", sys.executable, SCRIPT, place / "out", *options)
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    assert "finished at step 100" in done.stdout + done.stderr
    best = next(line for line in (done.stdout + done.stderr).splitlines() if line.startswith("best "))
    assert best.endswith(" True"), best
    root = place / "out" / "lightning_logs/version_0/checkpoints" if "--versions" in options else place / "out"
    assert len(whole(root)) >= 2
    assert whole(root)[-1] == 100
    assert looks.debris(root) == []
    assert any(event["number"] == 5 for event in looks.named(place, "rung"))


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("call", "when"),
    [("rename", 2), ("rename", 5), ("rename", 7), ("rename", 8), ("fallocate", 3), ("ftruncate", 4), ("fsync", 9)],
)
def test_after_a_kill_in_a_save_it_goes_on_from_the_newest_seal(
    volume: Volume, tmp_path: Path, call: str, when: int
) -> None:
    """Attacks: one file and its seal are two renames; at a kill between them nothing is lost and nothing lies about."""
    root = volume("45m") / "out"
    (tmp_path / ".outlast" / "journal" / "test").mkdir(parents=True)
    command = looks.python(SCRIPT, root, "--steps", 30, "--save", 5, "--last", "--top", 1)
    strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"]
    strace += ["-e", f"inject={call}:signal=KILL:when={when}"]
    killed = subprocess.run(strace + command, env=looks.hooked(tmp_path), capture_output=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, f"the kill at {call} number {when} did not come"
    sealed = max([0, *(event["step"] for event in looks.named(tmp_path, "sealed"))])
    assert not looks.named(tmp_path, "finished")
    vault = Vault(root)
    vault.recover()
    assert looks.debris(root) == []
    choice = vault.choose()
    assert (choice.checkpoint.step if choice else 0) >= sealed
    again = subprocess.run(
        command, env=looks.hooked(tmp_path, OUTLAST_RESUME="1"), capture_output=True, text=True, timeout=120
    )
    assert again.returncode == 0, again.stderr[-2000:]
    assert [event["step"] for event in looks.named(tmp_path, "resumed")][-1:] == (
        [choice.checkpoint.step] if choice else []
    )
    assert whole(root)[-1] == 30
    assert looks.debris(root) == []


def test_a_cut_and_a_flipped_checkpoint_are_passed_over(volume: Volume, tmp_path: Path) -> None:
    """Attacks: no seal, no resume; one flipped bit is found, and an older one is taken."""
    root = volume("60m") / "out"
    command = looks.python(SCRIPT, root, "--save", 10, "--top", -1)
    subprocess.run([*command, "--steps", "30"], env=looks.hooked(tmp_path), check=True, capture_output=True)
    newest = root / "epoch=0-step=30.ckpt"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    (root / "epoch=0-step=40.ckpt").write_bytes(data[: len(data) // 2])
    again = subprocess.run(
        [*command, "--steps", "40", "--resume", "last"], env=looks.hooked(tmp_path), capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr[-2000:]
    assert looks.named(tmp_path, "resumed")[-1]["step"] == 20
    assert {Path(event["path"]).name for event in looks.named(tmp_path, "quarantined")} == {
        "epoch=0-step=30.ckpt",
        "epoch=0-step=40.ckpt",
    }


def test_sigterm_ends_a_run_that_waits_for_room(volume: Volume, tmp_path: Path) -> None:
    """Attacks: a paused save must not swallow SIGTERM, which Lightning itself answers only after the batch.

    20 MB hold one checkpoint and no second: one file has no light form, and the only way back does not go.
    """
    root = volume("20m") / "out"
    command = looks.python(SCRIPT, root, "--save", 10)
    with subprocess.Popen(
        command, env=looks.hooked(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as child:
        while not looks.named(tmp_path, "paused"):
            assert child.poll() is None
            time.sleep(0.05)
        child.terminate()
        assert child.wait(timeout=30) == 128 + signal.SIGTERM
    assert len(whole(root)) == 1
    Vault(root).recover()
    assert looks.debris(root) == []
