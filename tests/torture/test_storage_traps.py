"""Promise 1 and 4 at the traps of storage (guard.md, traps 1 to 5 and 10): each shown real, and Outlast doing it right.

When a test here fails at "the trap", an upstream has mended it: good news, and a workaround of ours may go.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import safetensors.torch
import torch

from outlast import durable
from outlast.checkpoints import (
    Draft,
    Needs,
    Policy,
    Reservation,
    ReservedFile,
    Saver,
    Stage,
    Vault,
    is_full,
    is_hidden_full,
    reserved_file,
)
from outlast.integrations import staged

from .conftest import SCRIPTS, child_environment
from .scripts import looks

Volume = Callable[..., Path]
KINDS = pytest.mark.parametrize("kind", ["tmpfs", "ext4"])


def _free(place: Path) -> int:
    info = os.statvfs(place)
    return info.f_bavail * info.f_frsize


def _tensors(megabytes: float) -> dict[str, torch.Tensor]:
    count = int(megabytes * (1 << 20)) // 4
    return {"a": torch.arange(count // 2, dtype=torch.float32), "b": torch.ones(count - count // 2)}


# Trap 1: torch.save hides what the kernel said.


@KINDS
def test_trap_1_torch_save_to_a_path_hides_the_errno_and_our_file_object_keeps_it(volume: Volume, kind: str) -> None:
    """Attacks: a full disk must be known as one, also when the room is back by the time that one looks."""
    place = volume("3m", kind)
    with pytest.raises(RuntimeError) as trap:
        torch.save(_tensors(5), place / "plain.pt")
    assert "No space" not in str(trap.value) and not is_full(trap.value), "the trap: no errno, no word of it"
    assert is_hidden_full(trap.value)
    (place / "plain.pt").unlink()

    file = ReservedFile(place / "ours.pt")
    with pytest.raises((RuntimeError, OSError)):
        torch.save(_tensors(5), file)
    assert file.error is not None and file.error.errno == errno.ENOSPC
    assert is_full(file.error)
    file.close()

    # Even a writer that swallows the error leaves nothing under the final name.
    stage = Stage(place, "full", None)
    with (
        pytest.raises(OSError, match="No space"),
        reserved_file(stage, place / "final.pt", None) as swallowed,
        suppress(RuntimeError, OSError),
    ):
        torch.save(_tensors(5), swallowed)
    assert not (place / "final.pt").exists()


# Trap 2: the old file goes first, and a cut one is left under the final name.


def test_trap_2_torch_save_loses_the_old_file_and_under_outlast_it_stays(volume: Volume, tmp_path: Path) -> None:
    """Attacks: overwriting in place. Policy forbids to wait here, so that the save must fail, and say what to do."""
    save = "import sys, torch; torch.save(torch.ones(int(sys.argv[2]) << 18), sys.argv[1])"
    left: dict[str, bytes | None] = {}
    for name, environment in (("plain", child_environment()), ("ours", looks.hooked(tmp_path, OUTLAST_FORBID="9"))):
        path = volume("3m") / "model.pt"
        for megabytes in (1, 4):
            done = subprocess.run(
                [sys.executable, "-c", save, str(path), str(megabytes)], env=environment, capture_output=True, text=True
            )
            if megabytes == 1:
                assert done.returncode == 0, done.stderr
                before = path.read_bytes()
        assert done.returncode != 0
        left[name] = path.read_bytes() if path.exists() else None
        if name == "ours":
            assert left[name] == before
            assert "NoRoom" in done.stderr and "free some space" in done.stderr
            assert os.listdir(path.parent) == ["model.pt"], "no part is left"
        else:
            assert left[name] != before, "the trap: the old file is gone"


# Trap 3: safetensors reserves nothing, hides the errno in text, and makes files that only their owner reads.


@KINDS
def test_trap_3_safetensors_says_the_errno_in_words_only_and_makes_private_files(volume: Volume, kind: str) -> None:
    """Attacks: the guarded writer reserves for real, keeps the mode of the umask, and writes the same bytes."""
    place = volume("8m", kind)
    os.umask(umask := os.umask(0))
    with pytest.raises(Exception, match="os error 28") as trap:
        safetensors.torch.save_file(_tensors(12), place / "plain.safetensors")
    assert not isinstance(trap.value, OSError), "the trap: not an OSError"
    assert is_full(trap.value), "Outlast reads the text"
    for path in place.iterdir():
        if path.is_file():
            path.unlink()
    tensors = _tensors(1.5)
    safetensors.torch.save_file(tensors, place / "plain.safetensors")
    assert stat.S_IMODE(os.stat(place / "plain.safetensors").st_mode) == 0o600, "the trap: mode 0600"

    folder = place / "token" / "checkpoint-1"
    folder.mkdir(parents=True)
    before = _free(place)
    stage = Stage(folder, "full", Reservation(folder.parent, [2 << 20]))
    assert before - _free(place) >= 2 << 20, "reserved for real, before a byte is written"
    subprocess.run([sys.executable, "-S", SCRIPTS / "fill.py", place / "filler"], check=True)
    with staged.staging(stage):
        safetensors.torch.save_file(tensors, folder / "ours.safetensors")
    assert (folder / "ours.safetensors").read_bytes() == (place / "plain.safetensors").read_bytes()
    assert stat.S_IMODE(os.stat(folder / "ours.safetensors").st_mode) == 0o644 & ~umask


# Trap 4: a reservation that failed keeps what it got.


def test_trap_4_a_failed_fallocate_keeps_the_volume_full_on_ext4_and_ours_gives_it_back(volume: Volume) -> None:
    """Attacks: a reservation that does not fit must not be what fills the volume."""
    place = volume("12m", "ext4")
    before = _free(place)
    fd = os.open(place / "plain", os.O_WRONLY | os.O_CREAT)
    with pytest.raises(OSError, match="No space"):
        os.posix_fallocate(fd, 0, 64 << 20)
    assert _free(place) < before // 4, "the trap: the failed call keeps what it got"
    os.close(fd)
    (place / "plain").unlink()

    fd = os.open(place / "ours", os.O_WRONLY | os.O_CREAT)
    with pytest.raises(OSError, match="No space"):
        durable.allocate(fd, 64 << 20)
    os.close(fd)
    assert before - _free(place) < 64 << 10
    with pytest.raises(OSError, match="No space"):
        Reservation(place, [4 << 20, 64 << 20])
    assert before - _free(place) < 64 << 10, "nothing stays reserved, nor of the part that was to be had"
    assert sorted(path.name for path in place.iterdir()) == ["lost+found", "ours"]


# Trap 5: json.dump into a full disk raises nothing.

DUMP = "import json, sys; json.dump({'step': 1}, open(sys.argv[1], 'w'))"


@KINDS
def test_trap_5_json_dump_on_a_full_disk_leaves_an_empty_file_and_it_is_never_sealed(volume: Volume, kind: str) -> None:
    """Attacks: a writer that fails without a word. What it left is opened before the seal, and the save tried again."""
    place = volume("8m", kind)
    filler = place / "filler"
    root = place / "out"
    tries = []

    def write(stage: Stage) -> Draft:
        with reserved_file(stage, stage.path / "weights.bytes", 1 << 20) as file:
            file.write(b"w" * (1 << 20))
        if not tries:
            # Nothing may be given back between the filling and the dump: the claimed reservation is all that is ours.
            (stage.reservation or Reservation(stage.path, [])).release()
            subprocess.run([sys.executable, "-S", SCRIPTS / "fill.py", filler], check=True)
        target = stage.path / "trainer_state.json"
        done = subprocess.run([sys.executable, "-c", DUMP, target])
        tries.append((done.returncode, target.stat().st_size))
        filler.unlink(missing_ok=True)
        return Draft("test", {"full": ()})

    saver = Saver(Vault(root), Policy())
    checkpoint = saver.save("checkpoint-1", 1, Needs({"full": (1 << 20,)}, 16 << 10), write)
    assert tries[0] == (0, 0), "the trap: exit 0, an empty file"
    assert tries[1][1] > 0
    assert json.loads((checkpoint.path / "trainer_state.json").read_bytes()) == {"step": 1}
    assert len(looks.named(root, "save_failed")) == 1
    assert looks.verifying(root) == {"checkpoint-1": "full"}
    assert looks.debris(root) == []


# Trap 10: a plain Trainer resumes bare weights without a word, from the start of its schedule.


def test_trap_10_bare_weights_are_resumed_in_silence_by_a_plain_trainer_and_aloud_in_place_by_ours(
    tmp_path: Path,
) -> None:
    """Attacks: a resume that looks like one. Warm-up is 10 of 40 steps; step 21 must not be warming up again."""
    script = ("--steps", 40, "--only-model", "--limit", 0)
    subprocess.run(
        looks.python(looks.TRAINER, tmp_path / "plain", *script, "--stop", 20),
        check=True, capture_output=True, env=child_environment(),
    )  # fmt: skip
    subprocess.run(["cp", "-a", tmp_path / "plain", tmp_path / "ours"], check=True)
    rates, said = {}, {}
    for name, environment in (("plain", child_environment()), ("ours", looks.hooked(tmp_path))):
        log = tmp_path / f"{name}.log"
        done = subprocess.run(
            looks.python(looks.TRAINER, tmp_path / name, *script, "--stop", 22, "--resume", "--log", log),
            capture_output=True, text=True, env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        step, _, rates[name] = json.loads(log.read_text().splitlines()[0])
        assert step == 21
        said[name] = done.stderr
    assert rates["plain"] <= 2e-4, "the trap: it warms up again"
    assert "bare weights" not in said["plain"]
    assert rates["ours"] == pytest.approx(1e-3 * 19 / 30, rel=0.06)
    assert "bare weights" in said["ours"]
