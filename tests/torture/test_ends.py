"""Promise: however a run ends, `outlast why` names the cause and shows the evidence (issue 3, "Shown" 12).

Real kernel kills under a real memory limit (cgroup v1 or v2), real signals, a real full volume.
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

PYTHON = sys.executable
LIMIT_BYTES = 1024**3
LAST_RESORT_SECONDS = 300

EAT = (
    "import os, sys, time\n"
    "def eat():\n"
    "    held = []\n"
    "    while True:\n"
    "        held.append(bytearray(64 * 1024 * 1024))\n"
)


def clean_environment(**more: str) -> dict[str, str]:
    return {**{k: v for k, v in os.environ.items() if not k.startswith(("OUTLAST", "PYTHONPATH"))}, **more}


def why(home: Path) -> dict[str, object]:
    words = [PYTHON, "-m", "outlast", "why", "--dir", home, "--json"]
    done = subprocess.run(words, capture_output=True, text=True, env=clean_environment())
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def guarded(home: Path, *command: object, **more: object) -> subprocess.CompletedProcess[str]:
    words = [PYTHON, "-m", "outlast", "run", "--dir", home, "--", *command]
    more.setdefault("env", clean_environment())
    return subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, timeout=LAST_RESORT_SECONDS, **more
    )


@pytest.fixture
def memory_limit() -> Iterator[Callable[[], None]]:
    """A memory group of 1 GB; gives what puts a new process into it (for ``preexec_fn``)."""
    v1 = Path("/sys/fs/cgroup/memory")
    is_v1 = (v1 / "memory.limit_in_bytes").exists()
    group = (v1 if is_v1 else Path("/sys/fs/cgroup")) / f"outlast-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if is_v1 else "memory.max")).write_text(str(LIMIT_BYTES))
    except OSError as error:
        pytest.skip(f"no memory group can be made here: {error}")
    yield lambda: (group / "cgroup.procs").write_text(str(os.getpid())) and None
    group.rmdir()


def test_an_oom_kill_of_the_main_process(tmp_path: Path, memory_limit):
    """The kernel kills the training process itself under a 1 GB limit."""
    done = guarded(tmp_path, PYTHON, "-c", EAT + "eat()", preexec_fn=memory_limit)
    story = why(tmp_path)
    assert (done.returncode, story["cause"], story["exit_code"]) == (137, "OOM_KILL", 137)
    evidence = "\n".join(story["evidence"])
    assert "oom_kill rose by 1" in evidence and "the memory limit is 1.1 GB" in evidence and "signal 9" in evidence


def test_an_oom_kill_of_a_forked_child(tmp_path: Path, memory_limit):
    """A worker is killed; the parent lives, and ends with an ordinary exit code 1."""
    code = EAT + "pid = os.fork()\nif pid == 0: eat()\nos.waitpid(pid, 0)\nsys.exit(1)\n"
    done = guarded(tmp_path, PYTHON, "-c", code, preexec_fn=memory_limit)
    story = why(tmp_path)
    assert (done.returncode, story["cause"]) == (1, "OOM_KILL")
    assert any("oom_kill rose by 1" in line for line in story["evidence"])


def test_an_oom_kill_of_a_worker_that_the_parent_reports_as_an_exception(tmp_path: Path, memory_limit):
    """A DataLoader worker is killed: torch raises RuntimeError in the parent, which is not the user's bug."""
    script = tmp_path / "train.py"
    script.write_text(
        EAT + "import torch\n"
        "class Data(torch.utils.data.Dataset):\n"
        "    def __len__(self): return 4\n"
        "    def __getitem__(self, index): eat()\n"
        "if __name__ == '__main__':\n"
        "    for _ in torch.utils.data.DataLoader(Data(), num_workers=1): pass\n"
    )
    done = guarded(tmp_path, PYTHON, script, preexec_fn=memory_limit)
    story = why(tmp_path)
    assert (done.returncode, story["cause"]) == (1, "OOM_KILL")
    assert any("DataLoader worker" in line for line in story["evidence"])


def test_a_command_that_joins_a_limited_group_by_itself(tmp_path: Path, memory_limit):
    """The supervisor is outside the group: the command's own group must be the one that is read."""
    script = tmp_path / "train.py"
    # The pause is for the supervisor, which looks at the process table once a second.
    script.write_text(EAT + "time.sleep(2.5)\neat()\n")
    join = f"import os, runpy\nopen({str(group_of(memory_limit))!r}, 'w').write(str(os.getpid()))\n"
    guarded(tmp_path, PYTHON, "-c", join + f"runpy.run_path({str(script)!r}, run_name='__main__')")
    assert why(tmp_path)["cause"] == "OOM_KILL"


def group_of(join: Callable[[], None]) -> Path:
    return join.__closure__[0].cell_contents / "cgroup.procs"


def test_a_kill_9_by_a_person(tmp_path: Path):
    """The same signal without the kernel's count: a person, and the evidence says that the count stood still."""
    done = guarded(tmp_path, PYTHON, "-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    story = why(tmp_path)
    assert (done.returncode, story["cause"]) == (137, "KILLED")
    assert any("oom_kill did not rise" in line for line in story["evidence"])


def test_a_python_exception(tmp_path: Path):
    """A bug of the user's: quoted with its line, not restarted."""
    script = tmp_path / "train.py"
    script.write_text("def step(batch):\n    return batch['labels']\n\nstep({})\n")
    done = guarded(tmp_path, PYTHON, script)
    story = why(tmp_path)
    assert (done.returncode, story["cause"], len(story["attempts"])) == (1, "EXCEPTION", 1)
    evidence = "\n".join(story["evidence"])
    assert "KeyError: 'labels'" in evidence and "train.py:2 in step: return batch['labels']" in evidence


def test_a_sigterm(tmp_path: Path):
    """A scheduler's signal to the supervisor: passed on, named with its sender."""
    process = subprocess.Popen(
        [PYTHON, "-m", "outlast", "run", "--dir", tmp_path, "--", PYTHON, "-uc", "print('ready')\nwhile True: pass"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=clean_environment(),
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.wait(LAST_RESORT_SECONDS) == 128 + signal.SIGTERM
    process.stdout.close()
    story = why(tmp_path)
    assert story["cause"] == "SIGTERM"
    assert f"process {os.getpid()}" in story["evidence"][0]


@pytest.mark.parametrize("isolated", [False, True], ids=["hooked", "only watched"])
def test_a_full_volume(tmp_path: Path, volume: Callable[..., Path], isolated: bool):
    """A write that fails for want of room; also known from the text when nothing is hooked."""
    place = volume("8m")
    code = f"f = open({str(place / 'data')!r}, 'wb', buffering=0)\nwhile True: f.write(bytes(1 << 20)) or 1/0"
    flags = ["-I"] if isolated else []
    raw = code.replace("f.write(bytes(1 << 20)) or 1/0", "__import__('os').write(f.fileno(), bytes(1 << 20))")
    done = guarded(tmp_path, PYTHON, *flags, "-c", raw)
    story = why(tmp_path)
    assert (done.returncode, story["cause"]) == (1, "ENOSPC")
    assert any("No space left on device" in line for line in story["evidence"])


def test_a_journal_on_the_very_volume_that_is_full(tmp_path: Path, volume: Callable[..., Path]):
    """The end is written down although the disk that the journal is on has no byte left."""
    place = volume("8m", kind="ext4")
    code = "import os\nf = os.open('data', os.O_WRONLY | os.O_CREAT)\nwhile True: os.write(f, bytes(4096))"
    done = guarded(place, PYTHON, "-c", code, cwd=place)
    assert done.returncode == 1
    statistics = os.statvfs(place)
    assert statistics.f_bavail * statistics.f_frsize < 1 << 20
    assert why(place)["cause"] == "ENOSPC"


def test_a_memory_mapped_file_on_a_full_volume(tmp_path: Path, volume: Callable[..., Path]):
    """guard.md, trap 6: no exception at all, the process dies of SIGBUS."""
    place = volume("8m")
    code = (
        "import mmap\nf = open('data', 'wb+')\nf.truncate(64 << 20)\nm = mmap.mmap(f.fileno(), 64 << 20)\n"
        "for at in range(0, 64 << 20, 4096): m[at] = 1\n"
    )
    done = guarded(place, PYTHON, "-c", code, cwd=place)
    story = why(place)
    assert (done.returncode, story["cause"]) == (128 + signal.SIGBUS, "ENOSPC")
    assert any("SIGBUS" in line and "memory-mapped" in line for line in story["evidence"])


def test_a_supervisor_that_is_killed_itself(tmp_path: Path):
    """Nobody is left to write the end: that is said, and the next start resumes."""
    process = subprocess.Popen(
        [PYTHON, "-m", "outlast", "run", "--dir", tmp_path, "--", PYTHON, "-uc", "print('ready')\ninput()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=clean_environment(),
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    assert why(tmp_path)["cause"] == "running"
    process.kill()
    process.wait(LAST_RESORT_SECONDS)
    process.stdin.close()
    process.stdout.close()
    assert why(tmp_path)["cause"] == "vanished"
