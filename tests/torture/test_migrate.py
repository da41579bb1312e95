"""Promise 2 for caches: after kill -9 at any system call of a move one of its places is whole; a second run ends it."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from outlast.caches.trees import scan

from .conftest import child_environment, share

SEED = int(os.environ.get("OUTLAST_TORTURE_SEED", "4"))
CALLS = (
    "rename", "renameat2", "unlink", "rmdir", "mkdir", "symlink", "link", "linkat", "fsync", "write", "openat", "chmod",
    "ftruncate", "utimensat",
)  # fmt: skip
Volume = Callable[..., Path]


def _fill(root: Path) -> dict[str, object]:
    """A cache of a megabyte with hard links, links and a sparse file; then the volume is full."""
    dice = random.Random(SEED)
    blobs = root / "models--a--b" / "blobs"
    blobs.mkdir(parents=True)
    (root / "models--a--b" / "snapshots" / "1").mkdir(parents=True)
    for number in range(12):
        (blobs / f"{number}").write_bytes(dice.randbytes(dice.choice((10, 5000, 200_000))))
        (root / "models--a--b" / "snapshots" / "1" / f"w{number}").symlink_to(f"../../blobs/{number}")
    (root / "absolute").symlink_to(blobs / "1")
    (root / "hard").hardlink_to(blobs / "3")
    with (root / "sparse").open("wb") as file:
        file.truncate(4 << 20)
        file.write(b"x" * 5000)
    with suppress(OSError), (root / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(dice.randbytes(4096))
    return _content(root)


def _content(root: Path) -> dict[str, object]:
    groups: dict[int, list[str]] = {}
    found: dict[str, object] = {}
    for path, entry in scan(root).entries.items():
        if entry.kind == "file":
            groups.setdefault(entry.inode, []).append(path)
            found[path] = (hash((root / path).read_bytes()), entry.mode, entry.modified_ns)
        elif entry.kind == "link":
            found[path] = entry.text if path != "absolute" else os.path.basename(entry.text)
    found["hard links"] = sorted(names for names in groups.values() if len(names) > 1)
    return found


def _command(source: Path, target: Path) -> list[str]:
    return [sys.executable, "-m", "outlast", "migrate", str(source), str(target)]


def _environment(tmp_path: Path) -> dict[str, str]:
    return child_environment(HOME=str(tmp_path), XDG_STATE_HOME=str(tmp_path / "state"))


def _strace(*options: object) -> list[str]:
    return ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "strace", "-qq", *map(str, options)]


def _is_whole(place: Path, content: dict[str, object]) -> bool:
    return place.is_dir() and not place.is_symlink() and _content(place) == content


@pytest.mark.parametrize("kinds", [("tmpfs", "tmpfs"), ("ext4", "tmpfs")], ids="-".join)
def test_after_a_kill_at_any_system_call_one_place_is_whole_and_a_second_run_ends_it(
    volume: Volume, tmp_path: Path, kinds: tuple[str, str]
) -> None:
    """Attacks: the order of copy, verify, switch and delete; the source's volume is full to its last block."""
    # The target's name is longer than what ext4 keeps in an inode: a link to it needs a block that is not there.
    full, roomy = volume("3m", kinds[0]), volume("16m", kinds[1]) / ("long-" * 12)
    roomy.mkdir()
    original = tmp_path / "original"
    cache = full / "cache" / "hub"
    cache.mkdir(parents=True)
    content = _fill(cache)
    assert os.statvfs(full).f_bavail == 0
    subprocess.run(["cp", "-a", cache, original], check=True)

    points = _calls(cache, roomy / "hub", tmp_path)
    assert _is_whole(roomy / "hub", content) and len(points) > 100, points
    subprocess.run(["rm", "-rf", roomy / "hub"], check=True)
    for number, (name, count) in enumerate(random.Random(SEED).sample(points, share(100))):
        target = roomy / f"hub{number}"
        _put_back(original, full)
        fault = _strace("-o", "/dev/null", "-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={count}")
        killed = subprocess.run(
            [*fault, *_command(cache, target)], capture_output=True, text=True, env=_environment(tmp_path), timeout=60
        )
        where = f"seed {SEED}, kill at {name} number {count}: {killed.returncode} {killed.stderr[-300:]}"
        places = (cache, target, full / "cache" / ".hub.outlast-moved")
        assert any(_is_whole(place, content) for place in places), where
        again = subprocess.run(
            _command(cache, target), capture_output=True, text=True, env=_environment(tmp_path), timeout=60
        )
        assert again.returncode == 0, f"{where}\n{again.stdout}{again.stderr}"
        assert _is_whole(target, content), where
        assert cache.is_symlink() and cache.readlink() == target, where
        assert os.listdir(full / "cache") == ["hub"] and os.listdir(roomy) == [target.name], where
        subprocess.run(["rm", "-rf", target], check=True)


def _put_back(original: Path, full: Path) -> None:
    subprocess.run(["rm", "-rf", full / "cache"], check=True)
    (full / "cache").mkdir()
    subprocess.run(["cp", "-a", original, full / "cache" / "hub"], check=True)


def _calls(cache: Path, target: Path, tmp_path: Path) -> list[tuple[str, int]]:
    """Move it once, and list the calls of the main thread that concern the two places, numbered as strace counts."""
    trace = tmp_path / "trace"
    done = subprocess.run(
        [*_strace("-y", "-s", 200, "-o", trace, "-e", f"trace={','.join(CALLS)}"), *_command(cache, target)],
        capture_output=True, text=True, env=_environment(tmp_path), timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    counts: Counter[str] = Counter()
    found = []
    for line in trace.read_text(errors="replace").splitlines():
        if match := re.match(r"(\w+)\(", line):
            counts[match[1]] += 1
            if str(cache) in line or str(target) in line or ".hub.outlast" in line:
                found.append((match[1], counts[match[1]]))
    return found


def test_a_move_that_is_interrupted_again_and_again_copies_each_file_once(volume: Volume, tmp_path: Path) -> None:
    """Attacks: resuming that starts over. Kills at growing times; each life verifies what the one before had not."""
    full, roomy = volume("80m"), volume("96m")
    cache = full / "cache" / "hub"
    cache.mkdir(parents=True)
    for number in range(300):
        (cache / f"{number:03}").write_bytes(os.urandom(200_000))
    content = _content(cache)
    command = _command(cache, roomy / "hub")
    verified = []
    for _ in range(6):
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=_environment(tmp_path))
        with suppress(subprocess.TimeoutExpired):
            child.wait(timeout=0.45)  # the moment is what is drawn; there is no event to wait for
        child.kill()
        code = child.wait()
        log = roomy / ".hub.outlast-migrate" / "verified.jsonl"
        names = [line for line in log.read_text().splitlines() if line] if log.exists() else []
        assert len(names) == len(set(names)), "no file was hashed twice"
        verified.append(len(names))
        if code != -signal.SIGKILL:
            break
    done = subprocess.run(command, env=_environment(tmp_path), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert _is_whole(roomy / "hub", content) and cache.is_symlink(), verified
