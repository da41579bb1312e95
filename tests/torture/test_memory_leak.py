"""Promise: a training that leaks memory is not killed for it: it seals, leaves, and goes on with fresh memory.

Real memory groups (cgroup v1 or v2), real kills: issue 5, "What must be shown" 4.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from outlast import journal
from outlast.host import memory_group

from .conftest import SCRIPTS, child_environment

MB = 10**6
LAST_RESORT_SECONDS = 300
Group = Callable[[int], "Limited"]


class Limited:
    """A memory group; `run` runs a command in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *map(str, words)], capture_output=True, text=True, env=child_environment(),
            timeout=LAST_RESORT_SECONDS,
            preexec_fn=lambda: (self.folder / "cgroup.procs").write_text(str(os.getpid())) and None,
        )  # fmt: skip

    def kills(self) -> int:
        """The kernel's own count of OOM-kills in this group."""
        names = ("memory.oom_control", "memory.events")
        text = next((self.folder / name).read_text() for name in names if (self.folder / name).exists())
        return int(next(line.split()[1] for line in text.splitlines() if line.startswith("oom_kill ")))


@pytest.fixture
def group() -> Iterator[Group]:
    """Makes a memory group with a limit in bytes."""
    v1 = Path("/sys/fs/cgroup/memory")
    is_v1 = (v1 / "memory.limit_in_bytes").exists()
    folder = (v1 if is_v1 else Path("/sys/fs/cgroup")) / f"outlast-leak-{os.getpid()}"

    def make(limit: int) -> Limited:
        try:
            folder.mkdir()
            (folder / ("memory.limit_in_bytes" if is_v1 else "memory.max")).write_text(str(limit))
        except OSError as error:
            pytest.skip(f"no memory group can be made here: {error}")
        return Limited(folder)

    yield make
    if folder.exists():
        folder.rmdir()


def guarded(home: Path, *words: object) -> tuple[object, ...]:
    return ("-m", "outlast", "run", "--dir", home, "--", sys.executable, *words)


def events(home: Path, *names: str) -> list[journal.Event]:
    found = journal.read(home, journal.runs(home)[-1])
    return [event for event in found if event.name in names]


def test_a_loop_that_leaks_seals_before_the_kill_and_ends_as_one_that_does_not(tmp_path: Path, group: Group) -> None:
    """600 MB; bare it is killed (137); guarded it leaves, comes back, and has every loss and weight to the bit."""
    limited, script = group(600 * MB), SCRIPTS / "leaking_loop.py"
    bare = limited.run(script, tmp_path / "bare", tmp_path / "bare.txt", "--leak", 2 * MB)
    assert (bare.returncode, limited.kills()) == (-signal.SIGKILL, 1), bare.stderr
    straight = limited.run(script, tmp_path / "straight", tmp_path / "straight.txt")
    assert straight.returncode == 0, straight.stderr

    home = tmp_path / "home"
    leaks = (script, tmp_path / "leaks", tmp_path / "leaks.txt", "--leak", 2 * MB)
    done = limited.run(*guarded(home, *leaks))

    assert done.returncode == 0, done.stderr
    assert limited.kills() == 1, "the kernel has killed nothing more"
    assert done.stdout == straight.stdout, "weights"
    assert (tmp_path / "leaks.txt").read_text() == (tmp_path / "straight.txt").read_text(), "each loss, once"
    asked = [line for line in done.stderr.splitlines() if "asked it to seal a checkpoint and leave" in line]
    assert asked and all("600.0 MB of main memory" in line and "more each minute" in line for line in asked)
    ends = [event.get("cause") for event in events(home, "ended")]
    assert set(ends[:-1]) == {"low_memory"} and ends[-1] == "finished"
    stopped = events(home, "stopped", "sealed", "ended")
    for one, after in zip(stopped, stopped[1:], strict=False):
        if after.name == "stopped":
            assert one.name == "sealed" and one.get("step") == after.get("step"), "sealed, then left"


def test_an_unmodified_trainer_that_leaks_finishes_without_a_kill(tmp_path: Path, group: Group) -> None:
    """The Trainer saves nothing by itself here: the only way back is what the guard asked for in time."""
    limited, script = group(1300 * MB), SCRIPTS / "trainer.py"
    arguments = ("--steps", 60, "--save", 1000)
    leak = ("--leak", 15 * MB)
    bare = limited.run(script, tmp_path / "bare", *arguments, *leak)
    assert (bare.returncode, limited.kills()) == (-signal.SIGKILL, 1), bare.stderr
    straight = limited.run(script, tmp_path / "a", *arguments, "--log", tmp_path / "a.txt")
    assert straight.returncode == 0, straight.stderr

    home = tmp_path / "home"
    done = limited.run(*guarded(home, script, tmp_path / "b", *arguments, *leak, "--log", tmp_path / "b.txt"))

    assert (done.returncode, limited.kills()) == (0, 1), done.stderr
    assert events(home, "ended")[0].get("cause") == "low_memory"
    assert (tmp_path / "b.txt").read_text() == (tmp_path / "a.txt").read_text()
    ours, theirs = (load_file(tmp_path / name / "checkpoint-60/model.safetensors") for name in "ba")
    assert all(ours[name].equal(theirs[name]) for name in theirs)


def test_a_step_that_takes_memory_until_it_is_killed_was_foreseen_and_is_done_again(
    tmp_path: Path, group: Group
) -> None:
    """Nothing looks at requests in the middle of a step: killed as before, restarted from the seal, and explained."""
    limited, script, home = group(600 * MB), SCRIPTS / "leaking_loop.py", tmp_path / "home"
    words = (script, tmp_path / "a", tmp_path / "a.txt", "--steps", 40, "--every", 10, "--burst", 25)
    done = limited.run(*guarded(home, *words))
    assert (done.returncode, limited.kills()) == (0, 1), done.stderr
    first, last = events(home, "ended")
    assert (first.get("cause"), last.get("cause")) == ("OOM_KILL", "finished")
    assert any("it was foreseen" in line and "600.0 MB" in line for line in first.get("evidence"))
    assert [event.get("step") for event in events(home, "resumed")] == [20]


def test_memory_shows_the_groups_limit_and_not_the_machines(group: Group) -> None:
    """`outlast memory` in a container: the figure is the one that kills, and it says whose it is."""
    limited = group(600 * MB)
    shown = limited.run("-m", "outlast", "memory").stdout
    assert "of 600.0 MB" in shown and f"its memory group's ({limited.folder})" in shown and "green" in shown
    ram = json.loads(limited.run("-m", "outlast", "memory", "--json").stdout)["ram"]
    assert ram["folder"] == str(limited.folder) and 599 * MB < ram["limit_bytes"] <= 600 * MB
    whole = memory_group()
    assert whole is None or ram["limit_bytes"] != whole.limit_bytes
