"""Promise 3: a deletion that did not happen is not silent, what it holds is counted as used, and the run goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from outlast.checkpoints import Keep, Vault

from .conftest import child_environment
from .scripts import looks

Volume = Callable[..., Path]
NOBODY = 65534
SMALL = ("--weights", "500", "--optimizer", "1000", "--keep", "last=1")


def _drive(root: Path, *arguments: object, prefix: tuple[object, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*map(str, prefix), *looks.python(looks.DRIVER, root, *SMALL, *arguments)],
        capture_output=True, text=True, env=child_environment(), timeout=60,
    )  # fmt: skip


def _refusals(root: Path, name: str) -> list[dict[str, Any]]:
    """What the journal says of deletions of this checkpoint that did not happen."""
    return [event for event in looks.named(root, "not_deleted") if name in event["path"]]


@contextmanager
def _immutable(path: Path) -> Iterator[None]:
    subprocess.run(["chattr", "+i", path], check=True)
    try:
        yield
    finally:
        # It may have been renamed into the trash with its folder.
        subprocess.run(["chattr", "-R", "-i", path if path.exists() else path.parents[1]], check=True)


def _assert_the_run_went_on(done: subprocess.CompletedProcess[str], root: Path, last: int) -> None:
    assert done.returncode == 0, done.stderr[-1500:]
    assert f"settled {last}" in done.stdout
    assert f"checkpoint-{last}" in looks.verifying(root)


def test_an_immutable_file_in_an_old_checkpoint_is_reported_and_counted_and_the_run_goes_on(volume: Volume) -> None:
    """Attacks: chattr +i on one file. Its neighbours go, it stays in the trash, the reason is in the journal."""
    root = volume("12m", "ext4") / "out"
    assert _drive(root, "--saves", 1).returncode == 0
    with _immutable(root / "checkpoint-10" / "optimizer.bytes"):
        done = _drive(root, "--saves", 4)
        _assert_the_run_went_on(done, root, 50)
        looks.assert_only_whole_are_offered(root)
        refusals = _refusals(root, "checkpoint-10")
        assert refusals and "chattr +i" in refusals[0]["reason"]
        assert any(event["held_bytes"] >= 1000 << 10 for event in refusals)
        vault = Vault(root)
        assert vault.trash_bytes() >= 1000 << 10, "what could not be deleted is counted as used"
    vault = Vault(root)
    vault.recover()
    assert looks.debris(root) == [], "once it can be deleted, the next start does it"


def test_an_immutable_checkpoint_folder_is_reported_and_the_run_goes_on(volume: Volume) -> None:
    """Attacks: chattr +i on the folder itself: it cannot even be renamed. It stays, whole, under its name."""
    root = volume("14m", "ext4") / "out"
    assert _drive(root, "--saves", 1).returncode == 0
    with _immutable(root / "checkpoint-10"):
        done = _drive(root, "--saves", 5)
        _assert_the_run_went_on(done, root, 60)
        assert set(looks.verifying(root)) == {"checkpoint-10", "checkpoint-60"}
        refusals = _refusals(root, "checkpoint-10")
        assert refusals and "chattr +i" in refusals[0]["reason"]
        assert refusals[0]["held_bytes"] >= 1500 << 10
        assert len(refusals) <= 2, "the same reason is told once, not at every save"
        removals = Vault(root).prune(Keep(last=1))
        assert [removal.name for removal in removals if removal.reason] == ["checkpoint-10"]


def test_an_immutable_folder_on_a_volume_with_no_room_for_it_leads_to_other_rungs_not_to_a_loop(volume: Volume) -> None:
    """Attacks: the ladder wants to drop what cannot be dropped. It must take the next rung, and come to an end."""
    root = volume("4600k", "ext4") / "out"
    assert _drive(root, "--saves", 1).returncode == 0
    with _immutable(root / "checkpoint-10"):
        done = _drive(root, "--saves", 4)
        _assert_the_run_went_on(done, root, 50)
        assert looks.named(root, "rung")


def test_another_owners_checkpoint_is_reported_to_a_plain_user_and_the_run_goes_on(volume: Volume) -> None:
    """Attacks: a run as a plain user, with an old checkpoint that root made. The user may read it, not delete it."""
    place = volume("16m")
    root = place / "out"
    root.mkdir()
    assert _drive(root, "--saves", 1).returncode == 0
    os.chmod(place, 0o755)
    for folder, folders, files in os.walk(root):
        for name in [".", *folders, *files]:
            if "checkpoint-10" not in folder:
                os.chown(Path(folder, name), NOBODY, NOBODY, follow_symlinks=False)
    os.chown(root / "checkpoint-10", 0, 0)
    os.chmod(root, 0o1777)  # sticky: a user renames and deletes what is theirs only
    os.chown(root, 0, 0)
    # The interpreter may lie under a home that is closed to others; the user may read all, and write nothing foreign.
    user = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=+dac_read_search",
            "--ambient-caps=+dac_read_search")  # fmt: skip
    done = _drive(root, "--saves", 4, prefix=user)
    _assert_the_run_went_on(done, root, 50)
    refusals = _refusals(root, "checkpoint-10")
    assert refusals and "another owner" in refusals[0]["reason"]
    assert refusals[0]["held_bytes"] >= 1500 << 10
    assert set(looks.verifying(root)) == {"checkpoint-10", "checkpoint-50"}


def test_a_checkpoint_that_another_process_reads_is_not_deleted_under_it(volume: Volume) -> None:
    """Attacks: promise 7. An evaluation has the old weights open: reported with the process, and later it goes."""
    root = volume("14m") / "out"
    assert _drive(root, "--saves", 1).returncode == 0
    reader = subprocess.Popen(
        ["sh", "-c", 'exec 3<"$1"; echo ready; read line', "-", root / "checkpoint-10" / "model.safetensors"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with reader:
        assert reader.stdout is not None and reader.stdout.readline() == "ready\n"
        done = _drive(root, "--saves", 4)
        _assert_the_run_went_on(done, root, 50)
        refusals = _refusals(root, "checkpoint-10")
        assert refusals and f"in use by {reader.pid}" in refusals[0]["reason"]
        assert "checkpoint-10" in looks.verifying(root)
        assert reader.stdin is not None
        reader.stdin.write("done\n")
    assert _drive(root, "--saves", 1).returncode == 0
    assert set(looks.verifying(root)) == {"checkpoint-60"}, "its reader is gone: now it is deleted"


def test_a_pause_over_a_checkpoint_in_use_ends_when_its_reader_is_gone(volume: Volume) -> None:
    """Attacks: rung 9 behind a refused deletion. The reader leaves, nobody frees anything else, and the run goes on."""
    root = volume("2200k") / "out"
    assert _drive(root, "--saves", 1).returncode == 0
    reader = subprocess.Popen(
        ["sh", "-c", 'exec 3<"$1"; echo ready; read line', "-", root / "checkpoint-10" / "optimizer.bytes"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with reader:
        assert reader.stdout is not None and reader.stdin is not None
        assert reader.stdout.readline() == "ready\n"
        with subprocess.Popen(
            looks.python(looks.DRIVER, root, *SMALL, "--saves", 1),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=child_environment(),
        ) as child:
            assert child.stdout is not None and child.stderr is not None
            assert "paused" in child.stderr.readline()
            reader.stdin.write("done\n")
            reader.stdin.flush()
            assert "sealed 20" in child.stdout.read()
            assert child.wait(timeout=60) == 0
    rungs = [event for event in looks.named(root, "rung") if event["action"] == "lighten"]
    assert len(rungs) <= 3, "a refused rung is told once for a pause, not at each try"
