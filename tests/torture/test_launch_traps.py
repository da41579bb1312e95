"""Promise: the launch traps of guard.md (6, 7, 8, 9) do not catch a guarded run; each is shown to be there first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from outlast import journal

PYTHON = sys.executable
LAST_RESORT_SECONDS = 300


def clean_environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OUTLAST", "PYTHONPATH"))}
    return {**kept, "OMP_NUM_THREADS": "1", **more}


def plain(*words: object, **more: object) -> subprocess.CompletedProcess[str]:
    more.setdefault("env", clean_environment())
    more.setdefault("capture_output", True)
    return subprocess.run([str(word) for word in words], text=True, timeout=LAST_RESORT_SECONDS, **more)


def guarded(home: Path, *command: object, **more: object) -> subprocess.CompletedProcess[str]:
    return plain(PYTHON, "-m", "outlast", "run", "--dir", home, "--", *command, **more)


def why(home: Path) -> dict[str, object]:
    return json.loads(plain(PYTHON, "-m", "outlast", "why", "--dir", home, "--json").stdout)


def fill(place: Path) -> None:
    with (place / "filler").open("wb", buffering=0) as file:
        try:
            while True:
                os.write(file.fileno(), bytes(4096))
        except OSError:
            pass


# Trap 6: print to a log on a full volume ends the program.

CHATTY = "for i in range(5000): print('step', i, 'loss 1.234', flush=True)\nopen({!r}, 'w').write('trained')"


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_log_on_a_full_volume_does_not_end_the_run(tmp_path: Path, volume: Callable[..., Path], kind: str):
    """Trap 6: without us the program dies of its own print; with us the run finishes and the loss is told."""
    place = volume("8m", kind=kind)
    fill(place)
    proof = tmp_path / "proof"
    code = CHATTY.format(str(proof))
    with (place / "bare.log").open("w") as log:
        assert plain(PYTHON, "-c", code, stdout=log, stderr=log, capture_output=False).returncode != 0
    assert not proof.exists()
    with (place / "guarded.log").open("w") as log:
        done = guarded(tmp_path, PYTHON, "-c", code, stdout=log, stderr=log, capture_output=False)
    assert (done.returncode, proof.read_text()) == (0, "trained")
    assert any("of its output were lost" in note for note in why(tmp_path)["notes"])


def test_a_log_goes_on_when_there_is_room_again(tmp_path: Path, volume: Callable[..., Path]):
    """Trap 6: what was lost is said in the log itself, and later lines are there."""
    place = volume("8m")
    fill(place)
    code = (
        # More than a pipe holds: when it is written the supervisor has read some of it, and found the log full.
        "import os, time\nprint('lost' * 100_000, flush=True)\n"
        f"open({str(tmp_path / 'written')!r}, 'w').close()\n"
        # The filler's name is gone before its blocks are: another file says when there is room.
        f"while not os.path.exists({str(tmp_path / 'room')!r}): time.sleep(0.05)\n"
        "print('kept', flush=True)\n"
    )
    with (place / "log").open("w") as log:
        process = subprocess.Popen(
            [PYTHON, "-m", "outlast", "run", "--dir", str(tmp_path), "--", PYTHON, "-c", code],
            stdout=log, stderr=subprocess.PIPE, text=True, env=clean_environment(),
        )  # fmt: skip
        while not (tmp_path / "written").exists():
            assert process.poll() is None
        (place / "filler").unlink()
        (tmp_path / "room").touch()
        process.communicate(timeout=LAST_RESORT_SECONDS)
    assert process.returncode == 0
    log = (place / "log").read_text()
    assert "bytes lost, the log was full]" in log and log.endswith("kept\n")


# Trap 7: launchers turn every end into exit 1.

ENDS = {
    "killed": ("import os\nos.kill(os.getpid(), 9)\n", "KILLED"),
    "exception": ("raise ValueError('my bug')\n", "EXCEPTION"),
    "full": ("raise OSError(28, 'No space left on device', 'model.pt')\n", "ENOSPC"),
    "code": ("import sys\nsys.exit(7)\n", "exit"),
}
LAUNCHERS = {
    "torchrun": ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"],
    "accelerate": ["-m", "accelerate.commands.launch", "--cpu", "--num_processes=1"],
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("launcher", LAUNCHERS)
@pytest.mark.parametrize("end", ENDS)
def test_the_cause_is_known_although_the_launcher_says_exit_1(tmp_path: Path, launcher: str, end: str):
    """Trap 7: torchrun and accelerate launch end with 1 whatever happened below them."""
    code, cause = ENDS[end]
    (tmp_path / "train.py").write_text(code)
    done = guarded(tmp_path, PYTHON, *LAUNCHERS[launcher], tmp_path / "train.py", cwd=tmp_path)
    story = why(tmp_path)
    assert done.returncode == 1
    assert story["mode"] == "hooked"
    assert story["cause"] == cause, story
    if end == "exception":
        assert any("ValueError: my bug" in line for line in story["evidence"])


# Trap 8: shared memory of an OOM-killed process stays charged and kills its successor.


@pytest.fixture
def memory_limit() -> Iterator[Callable[[], None]]:
    """A memory group of 300 MB; gives what puts a new process into it (for ``preexec_fn``)."""
    v1 = Path("/sys/fs/cgroup/memory")
    is_v1 = (v1 / "memory.limit_in_bytes").exists()
    group = (v1 if is_v1 else Path("/sys/fs/cgroup")) / f"outlast-shm-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if is_v1 else "memory.max")).write_text(str(300 * 10**6))
    except OSError as error:
        pytest.skip(f"no memory group can be made here: {error}")
    yield lambda: (group / "cgroup.procs").write_text(str(os.getpid())) and None
    for path in Path("/dev/shm").glob("torch_*_outlast_test"):
        path.unlink()
    group.rmdir()


SHARES = (
    "import os, sys\nfrom pathlib import Path\n"
    "sys.path.append({src!r})\n"
    "from outlast.journal import from_environment\n"
    "name = f'/dev/shm/torch_{{os.getpid()}}_outlast_test'\n"
    "attempt = int(os.environ.get('OUTLAST_ATTEMPT', os.environ.get('TRY', '1')))\n"
    "if attempt > 1:\n"
    "    held = bytearray(60_000_000); print('second', flush=True); sys.exit()\n"
    "from_environment(Path({home!r})).write('sealed', name='checkpoint-10', step=10, kind='full', bytes=1, root='.')\n"
    "with open(name, 'wb', buffering=0) as file:\n"
    "    for _ in range(1000): os.write(file.fileno(), bytes(1_000_000))\n"
)


def test_shared_memory_of_a_dead_attempt_does_not_kill_the_next(tmp_path: Path, memory_limit):
    """Trap 8: 280 MB left in /dev/shm under a 300 MB limit; the successor needs 60 MB."""
    script = tmp_path / "train.py"
    script.write_text(SHARES.format(src=str(Path(journal.__file__).parent.parent), home=str(tmp_path)))
    tries = [plain(PYTHON, script, env=clean_environment(TRY=str(n)), preexec_fn=memory_limit) for n in (1, 2)]
    bare = [done.returncode for done in tries]
    assert bare == [-9, -9], "the trap: the second is killed for the first one's memory"
    for path in Path("/dev/shm").glob("torch_*_outlast_test"):
        path.unlink()
    done = guarded(tmp_path, PYTHON, script, preexec_fn=memory_limit)
    assert (done.returncode, done.stdout) == (0, "second\n"), done.stderr
    story = why(tmp_path)
    assert [attempt["cause"] for attempt in story["attempts"]] == ["OOM_KILL", "finished"]
    assert any("/dev/shm/torch_" in deleted["path"] for deleted in story["deleted"])
    assert list(Path("/dev/shm").glob("torch_*_outlast_test")) == []


# Trap 9: a wrapper that does not pickle breaks spawn, Ray and submitit.


def test_hooked_functions_pickle_by_name(tmp_path: Path):
    """Trap 9: torch.save and what else is hooked pickles to a spawned worker, and is the hooked one there."""
    script = tmp_path / "train.py"
    script.write_text(
        "import multiprocessing as mp, pickle, torch\n"
        "def name(f): return f'{f.__module__}.{f.__qualname__} {hasattr(f, \"__wrapped__\")}'\n"
        "if __name__ == '__main__':\n"
        "    assert pickle.loads(pickle.dumps(torch.save)) is torch.save\n"
        "    with mp.get_context('spawn').Pool(1) as pool: print(pool.apply(name, (torch.save,)))\n"
    )
    done = guarded(tmp_path, PYTHON, script)
    assert done.stdout == "torch.serialization.save True\n", done.stderr


# What is left where nothing can be hooked: SIGSTOP, with the reason (guard.md, section 4).


def test_a_program_that_nothing_is_hooked_in_is_paused_before_its_volume_is_full(
    tmp_path: Path, volume: Callable[..., Path]
):
    """Four saves of 13 MB on 45 MB: bare it dies in the fourth; guarded it is stopped there, and goes on with room."""
    place = volume("45m")
    code = (
        "import time\nfor i in range(4):\n"
        f"    with open({str(place)!r} + f'/save{{i}}', 'wb', buffering=0) as file:\n"
        "        for _ in range(26): file.write(bytes(500_000)); time.sleep(0.05)\n"
        "    time.sleep(4)\n"
    )
    plain(PYTHON, "-I", "-c", code.replace("time.sleep(4)", "pass"))
    assert len(list(place.glob("save*"))) == 4 and (place / "save3").stat().st_size < 13_000_000
    for path in place.glob("save*"):
        path.unlink()
    process = subprocess.Popen(
        [PYTHON, "-m", "outlast", "run", "--dir", place, "--", PYTHON, "-I", "-c", code],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=clean_environment(),
    )  # fmt: skip

    def told(name: str) -> list[journal.Event]:
        found = journal.runs(place)
        return [event for event in journal.read(place, found[-1]) if event.name == name] if found else []

    while not told("paused"):
        assert process.poll() is None
    assert "13.0 MB" in told("paused")[0].get("why")
    (place / "save0").unlink()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert told("continued") and "paused: " in said and "goes on" in said
    assert (place / "save3").stat().st_size == 13_000_000
