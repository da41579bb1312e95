"""Promise 4 at every system call: a call of a save fails for want of room, the old state is intact, the save succeeds.

strace makes one call fail (``inject=...:error=ENOSPC:when=N``); a full run goes through every call of two saves, their
prunes and seals. OUTLAST_TORTURE_SEED draws another sample.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import child_environment, share
from .scripts import looks, tracing

SEED = int(os.environ.get("OUTLAST_TORTURE_SEED", "11"))
FULL = share(100) == 100
WRITING = ("write", "pwrite64", "fallocate", "fsync", "fdatasync", "ftruncate", "rename", "mkdir", "openat")
SIZES = ("--weights", "2500", "--optimizer", "3500", "--keep", "last=2")
Volume = Callable[..., Path]


def _may_fail_for_room(call: tracing.Call) -> bool:
    """Reading and opening to read do not fail with ENOSPC."""
    if call.name == "openat":
        return "O_CREAT" in call.text
    # Standard output is the test's own channel.
    return not (call.name == "write" and call.text.startswith(("1<", "2<")))


def _sample(calls: list[tracing.Call], count: int) -> list[tracing.Call]:
    """Every call in a full run; else some, with each kind of call among them."""
    if FULL:
        return calls
    dice = random.Random(SEED)
    shuffled = dice.sample(calls, len(calls))
    of_each = list({call.name: call for call in shuffled}.values())
    return sorted([*of_each, *(call for call in shuffled if call not in of_each)][:count])


@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT"])
def test_a_save_in_which_any_call_fails_for_want_of_room_is_made_good_and_the_old_state_stays_intact(
    volume: Volume, tmp_path: Path, error: str
) -> None:
    """Attacks: the partial is removed, the ladder goes on, the save is tried again."""
    template = volume("24m") / "out"
    subprocess.run(looks.python(looks.DRIVER, template, *SIZES, "--saves", 1), check=True, env=child_environment())
    traced = volume("24m") / "out"  # the same room as below: the same calls
    subprocess.run(["cp", "-a", template, traced], check=True)
    calls = tracing.calls_of_the_loop(traced, tmp_path / "trace", WRITING, *SIZES, "--saves", 2, of=tracing.MAIN_THREAD)
    calls = [call for call in calls if _may_fail_for_room(call)]
    assert {call.name for call in calls} >= {
        "write",
        "fallocate",
        "fsync",
        "ftruncate",
        "rename",
        "mkdir",
        "openat",
    }
    assert sum(call.name == "write" for call in calls) > 12, "the save should make many writes"
    place = volume("24m")
    for number, call in enumerate(_sample(calls, 24 if error == "ENOSPC" else 10)):
        root = place / f"out{number}"
        subprocess.run(["cp", "-a", template, root], check=True)
        with looks.Monitor(root):
            done = tracing.drive_with(f"error={error}", call, root, *SIZES, "--saves", 2, of=tracing.MAIN_THREAD)
        try:
            assert done.returncode == 0, f"the run died: {done.stderr[-1500:]}"
            assert looks.steps_said(done.stdout, "settled") == [20, 30]
            looks.assert_only_whole_are_offered(root)
            assert set(looks.verifying(root)) >= {"checkpoint-20", "checkpoint-30"}
            looks.assert_content(root, 0)
            looks.start_again(root, 30)
            looks.events(root)
        except AssertionError as problem:
            problem.add_note(f"seed {SEED}, {error} at {call}")
            raise
        subprocess.run(["rm", "-rf", root], check=True)


@pytest.mark.parametrize(
    "fault", ["write:error=ENOSPC", "fsync:error=ENOSPC", "fallocate:error=EDQUOT", "rename:error=ENOSPC"]
)
def test_a_volume_on_which_one_kind_of_call_fails_for_ever_costs_no_checkpoint(
    volume: Volume, tmp_path: Path, fault: str
) -> None:
    """Attacks: a lasting fault. The run waits or stops and says so; what was sealed stays and verifies."""
    root = volume("24m") / "out"
    subprocess.run(looks.python(looks.DRIVER, root, *SIZES, "--saves", 2), check=True, env=child_environment())
    name, _, what = fault.partition(":")
    calls = tracing.calls_of_the_loop(_copied(root, tmp_path), tmp_path / "trace", (name,), *SIZES, "--saves", 1)
    first = min((call.number for call in calls if _may_fail_for_room(call)), default=1)
    command = ["strace", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", f"trace={name}"]
    command += ["-e", f"inject={name}:{what}:when={first}+", *looks.python(looks.DRIVER, root, *SIZES, "--saves", 1)]
    with looks.Monitor(root), subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=child_environment(), start_new_session=True
    ) as child:  # fmt: skip
        try:
            child.wait(timeout=5)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, 9)  # it waits for room, as it should; then the plug is pulled
    assert looks.verifying(root)
    again = subprocess.run(
        looks.python(looks.DRIVER, root, *SIZES, "--saves", 1), capture_output=True, text=True, env=child_environment()
    )
    assert again.returncode == 0, again.stderr[-1500:]
    looks.assert_only_whole_are_offered(root)
    assert looks.debris(root) == []


@pytest.mark.parametrize("call", ["fsync", "close"])
def test_a_quota_that_shows_late_and_goes_away_does_not_leave_the_run_waiting(volume: Volume, call: str) -> None:
    """Attacks: statvfs shows room, fsync or close (as on NFS) says EDQUOT, nine times; then it is over."""
    root = volume("24m") / "out"
    done = subprocess.run(
        looks.python(looks.DRIVER, root, *SIZES, "--saves", 2, f"--refuse-{call}", 9),
        capture_output=True, text=True, env=child_environment(), timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-1500:]
    assert looks.steps_said(done.stdout, "sealed") == [10, 20]
    assert looks.named(root, "save_failed") or call == "close"
    looks.assert_only_whole_are_offered(root)
    assert looks.debris(root) == []


def _copied(root: Path, tmp_path: Path) -> Path:
    subprocess.run(["cp", "-a", root, tmp_path / "copy"], check=True)
    return tmp_path / "copy"


def test_a_trainer_save_in_which_a_write_fails_with_enospc_is_made_good(volume: Volume, tmp_path: Path) -> None:
    """Attacks: the same with the unmodified Trainer script, at writes into the stage of its third save."""
    root = volume("60m") / "out"
    script = looks.python(looks.TRAINER, root, "--steps", 40)
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-qq", "--seccomp-bpf", "-y", "-o", trace, "-e", "trace=write,pwrite64"]
    subprocess.run([*command, *script], check=True, capture_output=True, env=looks.hooked(tmp_path / "home0"))
    writes: list[int] = []
    counts: dict[str, int] = {}
    for line in trace.read_text(errors="replace").splitlines():
        match = re.match(r"(\d+) +write\(\d+<([^>]*)>", line)
        if match:
            counts[match[1]] = counts.get(match[1], 0) + 1
            if "/.outlast/stage/" in match[2] and "/checkpoint-30/" in match[2]:
                writes.append(counts[match[1]])
    assert len(writes) > 10, "the Trainer's save should make many writes"
    for when in sorted(random.Random(SEED).sample(writes, min(len(writes), 20) if FULL else 1)):
        subprocess.run(["rm", "-rf", root], check=True)
        home = tmp_path / f"home-{when}"
        command = ["strace", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=write"]
        command += ["-e", f"inject=write:error=ENOSPC:when={when}"]
        with looks.Monitor(root):
            done = subprocess.run([*command, *script], capture_output=True, text=True, env=looks.hooked(home))
        assert done.returncode == 0, f"write number {when}: {done.stderr[-1500:]}"
        assert [event["step"] for event in looks.named(home, "sealed")] == [10, 20, 30, 40], f"write number {when}"
        looks.assert_only_whole_are_offered(root)
