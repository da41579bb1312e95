"""Promises 1, 2 and 4 for torch.distributed.checkpoint, whose writers cannot use a reservation."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from outlast.checkpoints import Vault

from .conftest import SCRIPTS, child_environment, outlast
from .scripts import looks

SCRIPT = SCRIPTS / "dcp_script.py"
Volume = Callable[..., Path]


def whole(root: Path) -> list[int]:
    """Steps of the checkpoints that verify, oldest first."""
    vault = Vault(root)
    return [checkpoint.step for checkpoint in vault.checkpoints() if vault.check(checkpoint).is_whole]


def test_without_outlast_the_script_dies(volume: Volume) -> None:
    """The premise: 13.4 MB a save, all kept, 45 MB."""
    place = volume("45m")
    done = subprocess.run(looks.python(SCRIPT, place / "out"), env=child_environment(), capture_output=True, text=True)
    assert done.returncode != 0
    assert "CheckpointException" in done.stderr


@pytest.mark.parametrize("options", [(), ("--async",)], ids=["save", "async_save"])
def test_the_unmodified_script_finishes_on_a_volume_too_small_for_it(volume: Volume, options: tuple[str, ...]) -> None:
    """Attacks: a save is admitted before it starts."""
    place = volume("45m")
    done = outlast("run", "--dir", place, "--", sys.executable, SCRIPT, place / "out", *options)
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    assert len(whole(place / "out")) >= 2
    assert whole(place / "out")[-1] == 100
    assert looks.debris(place / "out") == []


def test_two_ranks_agree_on_room_seal_and_step(volume: Volume, tmp_path: Path) -> None:
    """Attacks: admission, sealing and pruning are collective."""
    place = volume("45m")
    (tmp_path / ".outlast" / "journal" / "test").mkdir(parents=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(SCRIPT), str(place / "out")]
    done = subprocess.run(command, env=looks.hooked(tmp_path), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert whole(place / "out")[-1] == 100
    assert sorted(p.name for p in (place / "out" / "step_100").glob("*.distcp")) == ["__0_0.distcp", "__1_0.distcp"]


def test_a_volume_that_fills_in_the_middle_of_a_write_costs_no_step(volume: Volume, tmp_path: Path) -> None:
    """Attacks: ENOSPC in the middle of a save, where only a CheckpointException's text tells of it."""
    place = volume("45m")
    filler = place / "filler"
    with subprocess.Popen(
        looks.python(SCRIPT, place / "out", "--steps", 30),
        env=looks.hooked(tmp_path),
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        while child.poll() is None and not looks.named(tmp_path, "save_failed"):
            if any((place / "out").glob(".outlast/stage/*/*/*.distcp")) and not filler.exists():
                free = os.statvfs(place).f_bavail * 4096
                with filler.open("wb") as file:
                    os.truncate(filler, 0)
                    for size in (free, free * 3 // 4, free // 2):
                        try:
                            os.posix_fallocate(file.fileno(), 0, size)
                            break
                        except OSError:
                            continue
            time.sleep(0.0005)
        time.sleep(0.5)
        filler.unlink(missing_ok=True)
        _, errors = child.communicate(timeout=120)
    assert child.returncode == 0, errors[-2000:]
    failed = looks.named(tmp_path, "save_failed")
    assert failed and failed[0]["cause"] == "full", failed
    assert whole(place / "out") == [10, 20, 30]
    assert looks.debris(place / "out") == []


def test_an_id_that_is_saved_to_again_never_mixes_two_steps(volume: Volume, tmp_path: Path) -> None:
    """Attacks: plain DCP writes over the files of the id one after the other, and loads a mix without complaint."""
    place = volume("45m")
    with subprocess.Popen(
        looks.python(SCRIPT, place / "out", "--into", "now", "--save", 2, "--steps", 400),
        env=looks.hooked(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as child:  # fmt: skip
        try:
            while len(looks.named(tmp_path, "sealed")) < 12:
                assert child.poll() is None
        finally:
            child.kill()
    vault = Vault(place / "out")
    vault.recover(settles=False)
    choice = vault.choose()
    assert choice and choice.checkpoint.name == "now"
    assert looks.debris(place / "out") == []
