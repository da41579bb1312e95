"""Promise 1 for a raw loop: torch.save's file is the old one or the new one, after a kill or a full disk."""

from __future__ import annotations

import io
import os
import pickle
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from .conftest import SCRIPTS, child_environment, share
from .scripts import looks

LOOP = SCRIPTS / "save_loop.py"
KILLS = share(100)
Volume = Callable[..., Path]


def _loads(path: Path) -> int:
    """The step in a file that the loop wrote; fails when it does not load or holds two saves mixed."""
    found = torch.load(path, weights_only=True)
    assert bool((found["model"]["w"] == float(found["step"])).all()), "two saves in one file"
    return int(found["step"])


def _parts(folder: Path) -> list[Path]:
    return list(folder.glob(".*.part"))


def test_without_outlast_a_kill_leaves_a_file_that_does_not_load(tmp_path: Path) -> None:
    """The contrast: torch.save opens with O_TRUNC, so that at most moments of a loop the one file is a torn one."""
    path = tmp_path / "ckpt.pt"
    torn = 0
    dice = random.Random(1)
    for _ in range(6):
        with subprocess.Popen(
            looks.python(LOOP, path, "--kb", 4000), stdout=subprocess.PIPE, text=True, env=child_environment()
        ) as child:
            assert child.stdout is not None
            while not child.stdout.readline().startswith("saved 2"):
                assert child.poll() is None
            time.sleep(dice.uniform(0, 0.02))
            child.kill()
        try:
            _loads(path)
        except (RuntimeError, OSError, EOFError, AssertionError, pickle.UnpicklingError):
            torn += 1
            break
    assert torn > 0, "torch.save survives kill -9 by itself now?"


def test_the_file_loads_after_each_of_many_kills_at_random_moments(volume: Volume, tmp_path: Path) -> None:
    """Attacks: a raw loop, one fixed path, kill -9 at 100 random moments (a share of them in a sampled run)."""
    seed = int(os.environ.get("OUTLAST_TORTURE_SEED", "23"))
    dice = random.Random(seed)
    path = volume("8m") / "ckpt.pt"
    driver = looks.python(SCRIPTS / "forks.py", LOOP, path)
    has_saved = False
    with subprocess.Popen(
        driver, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=looks.hooked(tmp_path)
    ) as parent:
        assert parent.stdin is not None and parent.stdout is not None
        for kill in range(KILLS):
            parent.stdin.write("start\n")
            parent.stdin.flush()
            pid = int(parent.stdout.readline().split()[1])
            assert parent.stdout.readline() == "started\n"
            moment = dice.uniform(0, 0.06)
            time.sleep(moment)  # the moment itself is what is drawn; there is no event to wait for
            os.kill(pid, signal.SIGKILL)
            parent.stdin.write("wait\n")
            parent.stdin.flush()
            while not (line := parent.stdout.readline()).startswith("ended"):
                assert line, "the forking parent ended"
                has_saved |= line.startswith("saved ")
            assert line.split() == ["ended", str(-signal.SIGKILL)], line
            if has_saved:
                try:
                    assert _loads(path) >= 1
                except Exception as error:
                    error.add_note(f"seed {seed}, kill {kill} after {moment:.4f} s")
                    raise
            assert len(_parts(path.parent)) <= 1, "what a kill left is swept by the next save"
    assert has_saved, "not one save was made"
    done = subprocess.run(looks.python(LOOP, path, "--saves", 1), env=looks.hooked(tmp_path), capture_output=True)
    assert done.returncode == 0
    assert _parts(path.parent) == []


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_on_a_full_disk_the_old_file_survives_and_the_loop_waits_until_there_is_room(
    volume: Volume, tmp_path: Path, kind: str
) -> None:
    """Attacks: no room for the new file beside the old one: wait, say so, keep the old one, go on when room is made."""
    place = volume("5m", kind)
    path = place / "ckpt.pt"
    size = ("--kb", 2000)
    assert subprocess.run(looks.python(LOOP, path, "--saves", 1, *size), env=looks.hooked(tmp_path)).returncode == 0
    before = path.read_bytes()
    subprocess.run([sys.executable, "-S", SCRIPTS / "fill.py", place / "filler"], check=True)
    with subprocess.Popen(
        looks.python(LOOP, path, "--saves", 3, *size), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=looks.hooked(tmp_path),
    ) as child:  # fmt: skip
        assert child.stdout is not None and child.stderr is not None
        said = child.stderr.readline()
        assert "paused" in said and "ckpt.pt" in said, said
        assert path.read_bytes() == before
        assert child.stdout.readline() == "started\n"
        os.unlink(place / "filler")
        assert "saved 3" in child.stdout.read()
        assert child.wait(timeout=60) == 0
    assert _loads(path) == 3
    assert [event["event"] for event in looks.named(tmp_path, "paused", "continued")][:2] == ["paused", "continued"]


def test_without_outlast_a_full_disk_costs_the_old_file(volume: Volume) -> None:
    """The contrast: the old file is gone at once, and what is left does not load."""
    path = volume("3m") / "ckpt.pt"
    for size in (2000, 4000):
        done = subprocess.run(
            looks.python(LOOP, path, "--kb", size, "--saves", 1),
            env=child_environment(),
            capture_output=True,
            text=True,
        )
        assert (size == 2000) == ("saved 1" in done.stdout)
    assert done.returncode != 0
    with pytest.raises((RuntimeError, OSError, EOFError)):
        _loads(path)


# All that torch.save takes for a destination, in one guarded process.

ODD = r"""
import io, os, pathlib, stat, sys, torch

state = {"step": 7, "w": torch.arange(1000)}
read = lambda path: torch.load(path, weights_only=True)["step"]

os.chdir(sys.argv[1])
torch.save(state, "relative.pt"); assert read("relative.pt") == 7
os.mkdir("sub"); torch.save(state, "sub/../sub/relative.pt"); assert read("sub/relative.pt") == 7
torch.save(state, pathlib.Path("path.pt")); assert read("path.pt") == 7
torch.save(state, f=pathlib.Path("keyword.pt")); assert read("keyword.pt") == 7
torch.save(state, "gr\u00fc\u00dfe-\u6a21\u578b.pt"); assert read("gr\u00fc\u00dfe-\u6a21\u578b.pt") == 7
torch.save(state, "legacy.pt", _use_new_zipfile_serialization=False); assert read("legacy.pt") == 7
assert open("legacy.pt", "rb").read(2) != b"PK"
torch.save(state, "[brackets]*.pt"); torch.save(state, "[brackets]*.pt"); assert read("[brackets]*.pt") == 7

os.mkdir("elsewhere"); torch.save({"step": 1}, "elsewhere/real.pt"); os.symlink("elsewhere/real.pt", "link.pt")
torch.save(state, "link.pt")
assert os.path.islink("link.pt") and read("elsewhere/real.pt") == 7
os.symlink("elsewhere/not-yet.pt", "dangling.pt"); torch.save(state, "dangling.pt")
assert os.path.islink("dangling.pt") and read("elsewhere/not-yet.pt") == 7

torch.save({"step": 1}, "private.pt"); os.chmod("private.pt", 0o600); torch.save(state, "private.pt")
assert stat.S_IMODE(os.stat("private.pt").st_mode) == 0o600 and read("private.pt") == 7
torch.save({"step": 1}, "shared.pt"); os.chmod("shared.pt", 0o664); torch.save(state, "shared.pt")
assert stat.S_IMODE(os.stat("shared.pt").st_mode) == 0o664
os.umask(0o027); torch.save(state, "masked.pt"); assert stat.S_IMODE(os.stat("masked.pt").st_mode) == 0o640

torch.save(state, "/dev/null"); assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
buffer = io.BytesIO(); torch.save(state, buffer); buffer.seek(0); assert read(buffer) == 7
with open("object.pt", "wb") as file:
    torch.save(state, file)
assert read("object.pt") == 7

for bad in ("missing/folder.pt", "sub"):
    try:
        torch.save(state, bad)
    except (OSError, RuntimeError) as error:
        print("refused", bad, type(error).__name__)
    else:
        raise SystemExit(f"{bad} was accepted")
class Unpicklable:
    def __reduce__(self):
        raise ValueError("no")
try:
    torch.save(Unpicklable(), "relative.pt")
except ValueError:
    assert read("relative.pt") == 7, "the old file must survive an object that does not pickle"

import pickle
assert pickle.loads(pickle.dumps(torch.save)) is torch.save
left = [name for folder, _, names in os.walk(".") for name in names if name.endswith(".part")]
assert not left, left
print("all good", bool(getattr(torch.save, "_outlast", False)))
"""


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "plain"])
def test_every_kind_of_destination_is_written_as_torch_writes_it(tmp_path: Path, guarded: bool) -> None:
    """Attacks: links, devices, file objects, pathlib, relative paths, permissions, the legacy format, odd names."""
    script = tmp_path / "odd.py"
    # Without Outlast an object that does not pickle costs the old file: that line is the only one left out there.
    script.write_text(
        ODD if guarded else ODD.replace('assert read("relative.pt") == 7, "the old', 'assert True, "the old')
    )
    (tmp_path / "place").mkdir()
    environment = looks.hooked(tmp_path) if guarded else child_environment()
    done = subprocess.run(looks.python(script, tmp_path / "place"), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"all good {guarded}" in done.stdout


def test_a_fifo_is_handed_to_torch_as_it_is(tmp_path: Path) -> None:
    """Attacks: a pipe as destination must not be replaced by a file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    script = f"import torch; torch.save({{'step': 7}}, {str(pipe)!r}, _use_new_zipfile_serialization=False)"
    with subprocess.Popen([sys.executable, "-c", script], env=looks.hooked(tmp_path)) as child:
        data = pipe.read_bytes()
        assert child.wait(timeout=60) == 0
    assert torch.load(io.BytesIO(data), weights_only=True)["step"] == 7
    assert stat.S_ISFIFO(os.stat(pipe).st_mode)
