"""What the torture tests look at from outside: does a checkpoint verify, is there debris, does the journal parse."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import outlast
from outlast.checkpoints import Vault
from outlast.checkpoints import seal as seals
from outlast.errors import NoWayBack, SealError
from outlast.journal import FOLDER

from ..conftest import SCRIPTS, child_environment
from .driver import content

PACKAGE = Path(outlast.__file__).parent
TRAINER = SCRIPTS / "trainer.py"
DRIVER = SCRIPTS / "driver.py"


def hooked(home: Path, **more: str) -> dict[str, str]:
    """The environment that `outlast run` gives to its command: for tests that must kill or trace that very process."""
    return child_environment(
        OUTLAST_RUN="test",
        OUTLAST_DIR=str(home),
        OUTLAST_PACKAGE=str(PACKAGE),
        PYTHONPATH=str(PACKAGE / "launch" / "inject"),
        **more,
    )


def python(script: Path, *arguments: object) -> list[str]:
    """A command line for a script."""
    return [sys.executable, str(script), *map(str, arguments)]


def verifying(root: Path) -> dict[str, str]:
    """Names and kinds of the checkpoints whose seal and every file agree now. Changes nothing, remembers nothing."""
    found: dict[str, str] = {}
    for path in _offered(root):
        try:
            check = seals.check(path, seals.read(path))
        except (SealError, OSError):
            continue
        if check.is_whole and check.kind:
            found[path.name] = check.kind
    return found


def _offered(root: Path) -> list[Path]:
    try:
        names = sorted(os.listdir(root))
    except OSError:
        return []
    return [root / name for name in names if name.startswith("checkpoint") and (root / name).is_dir()]


def _shape(root: Path) -> list[tuple[Any, ...]]:
    """What is there, closely enough to see that nothing moved between two looks."""
    shape = []
    for path in _offered(root):
        try:
            for file in sorted(os.listdir(path)):
                info = os.lstat(path / file)
                shape.append((path.name, file, info.st_ino, info.st_size, info.st_mtime_ns))
        except OSError:
            shape.append((path.name, "moving"))
    return shape


class Monitor:
    """Looks over and over, in a thread; from the first seal on one checkpoint must verify in every consistent look."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.looks = 0
        self.bare: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)

    def _run(self) -> None:
        has_begun = False
        bare = 0
        while not self._stop.is_set():
            begun = time.monotonic()
            before = _shape(self.root)
            found = verifying(self.root)
            if found:
                has_begun, bare, self.looks = True, 0, self.looks + 1
            elif has_begun and _shape(self.root) == before:
                bare += 1
                if bare == 2:
                    self.bare.append(f"two looks in a row found nothing that verifies among {before}")
                    return
            # What it reads is in use, so Outlast rightly deletes something else: look a fifth of the time only.
            self._stop.wait(4 * (time.monotonic() - begun))

    def __enter__(self) -> Monitor:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        if exc[0] is None:
            assert not self.bare, self.bare
            assert self.looks > 0, "the monitor saw no checkpoint at all"


def events(home: Path) -> list[dict[str, Any]]:
    """Every line of the journals under a folder, in order of time. Only the last line of a file may be torn."""
    found = []
    for path in sorted((home / FOLDER / "journal").glob("*/*.jsonl")):
        lines = path.read_bytes().split(b"\n")
        for number, line in enumerate(lines):
            if not line:
                continue
            try:
                found.append(json.loads(line))
            except ValueError:
                assert number == len(lines) - 1, f"{path}:{number + 1} does not parse: {line[:200]!r}"
    return sorted(found, key=lambda event: event["t"])


def named(home: Path, *names: str) -> list[dict[str, Any]]:
    """The journal's events of some names."""
    return [event for event in events(home) if event["event"] in names]


def debris(root: Path) -> list[str]:
    """What no start may leave behind: stages, trash, part files, reservations."""
    own = root / FOLDER
    left = [*own.glob("stage/*"), *own.glob("trash/*")]
    left += [path for path in root.rglob("*") if path.name.endswith(".part") or path.name.startswith(".reserved")]
    return sorted(str(path.relative_to(root)) for path in left)


def assert_only_whole_are_offered(root: Path) -> None:
    """Nothing has a checkpoint's name that is not sealed and whole (also before any clean-up)."""
    whole = verifying(root)
    offered = [path.name for path in _offered(root)]
    assert set(offered) == set(whole), f"offered {offered}, of which {whole} verify"


def start_again(root: Path, sealed_step: int) -> str | None:
    """What the next start does; asserts that it finds the newest seal and leaves no debris. Returns the kind taken."""
    vault = Vault(root)
    vault.recover()
    assert debris(root) == []
    assert os.listdir(root / FOLDER / "quarantine") == [] if (root / FOLDER).is_dir() else True
    try:
        choice = vault.choose()
    except NoWayBack as error:
        raise AssertionError(f"there was a seal at step {sealed_step}: {error}") from error
    if sealed_step:
        assert choice is not None, f"a seal at step {sealed_step} was reported, nothing is there"
        assert choice.checkpoint.step >= sealed_step, f"sealed {sealed_step}, found {choice.checkpoint.name}"
    return choice.kind if choice else None


def assert_content(root: Path, seed: int) -> None:
    """The driver's files hold what was meant to be in them, whatever their seals say."""
    for name in verifying(root):
        step = int(name.partition("-")[2])
        for path in (root / name).iterdir():
            if path.name in ("model.safetensors", "optimizer.bytes", "light.bytes"):
                data = path.read_bytes()
                size = len(data)
                if path.name == "model.safetensors":
                    size -= 8 + int.from_bytes(data[:8], "little")
                assert data == content(seed, step, path.name, size), f"{path} holds something else"


def steps_said(output: str, word: str) -> list[int]:
    """Steps in a driver's output, e.g. of its ``sealed`` lines; a line cut by a kill does not count."""
    lines: Sequence[str] = output.splitlines(keepends=True)
    return [int(line.split()[1]) for line in lines if line.startswith(f"{word} ") and line.endswith("\n")]
