"""Small builders that tests of several rooms share. None of them needs torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from outlast import journal
from outlast.checkpoints import Draft, Keep, Needs, Policy, Saver, Stage, Vault, reserved_file
from outlast.checkpoints import seal as seals
from outlast.host import Budget

BLOCK = 4096
MODEL, MOMENTS, SIDECAR = "model.bytes", "moments.bytes", "sidecar.bytes"
"""Files of a built checkpoint; a light one does without the moments. Their suffix has no format to be checked."""


def fill(folder: Path, step: int, *, model: int = 3 * BLOCK, moments: int = 6 * BLOCK, kind: str = "full") -> None:
    """Write the files of a checkpoint, other bytes for each step."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL).write_bytes(bytes([step % 251]) * model)
    (folder / SIDECAR).write_bytes(bytes([(step + 1) % 251]) * 64)
    if kind == "full":
        (folder / MOMENTS).write_bytes(bytes([(step + 2) % 251]) * moments)


def put_checkpoint(
    vault: Vault,
    step: int,
    *,
    name: str | None = None,
    kind: str = "full",
    metrics: Mapping[str, float] | None = None,
    lineage: str = "one",
    created: float | None = None,
    **sizes: int,
) -> Path:
    """A sealed checkpoint as a save leaves it: full (and then light when its moments go), light, or weights."""
    path = vault.root / (name or f"checkpoint-{step}")
    fill(path, step, kind=kind, **sizes)
    without = {"full": {"full": (), "light": (MOMENTS,)}, "light": {"light": ()}, "weights": {"weights": ()}}[kind]
    seals.write(
        path,
        vault.seal_for(
            path,
            step,
            "transformers",
            without,
            metrics=metrics or {},
            lineage=lineage,
            created=1000.0 + step if created is None else created,
        ),
    )
    return path


def make_vault(
    root: Path,
    steps: Sequence[int] = (),
    *,
    budget: int | None = None,
    kind: str = "full",
    look: Callable[[Path], tuple[str, ...]] = lambda path: (),
    **sizes: int,
) -> Vault:
    """A vault with a sealed checkpoint for each step, in a volume of ``budget`` bytes; nobody has its files open."""
    budgets = [] if budget is None else [Budget(root.resolve(), budget)]
    vault = Vault(root, journal=journal.Journal(root), budgets=budgets, look=look)
    root.mkdir(parents=True, exist_ok=True)
    vault.prepare()
    for step in steps:
        put_checkpoint(vault, step, kind=kind, **sizes)
    return vault


def names(vault: Vault) -> list[str]:
    """Names of the sealed checkpoints, oldest first."""
    return [checkpoint.name for checkpoint in vault.checkpoints()]


def kinds(vault: Vault) -> dict[str, str | None]:
    """Each sealed checkpoint's kind."""
    return {checkpoint.name: checkpoint.kind for checkpoint in vault.checkpoints()}


def events(vault: Vault, *wanted: str) -> list[journal.Event]:
    """What the vault's journal says, of these names only when any are given."""
    found = journal.read(vault.journal.home, vault.journal.run)
    return [event for event in found if not wanted or event.name in wanted]


def flip_bit(path: Path, offset: int = 0) -> None:
    """Change one bit and nothing else: length and times stay as they were."""
    info = path.stat()
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))


def debris(folder: Path) -> list[str]:
    """Everything of a save under way that is still in a vault's folder."""
    own = folder / journal.FOLDER
    left = [*own.glob("stage/*"), *own.glob("trash/*"), *folder.rglob("*.part"), *folder.rglob(".reserved-*")]
    return sorted(path.relative_to(folder).as_posix() for path in left)


def needs(*, model: int = 3 * BLOCK, moments: int = 6 * BLOCK) -> Needs:
    """What a save of `writer` takes."""
    return Needs({"full": (model, moments), "light": (model,)}, 1024)


def writer(step: int, *, model: int = 3 * BLOCK, moments: int = 6 * BLOCK) -> Callable[[Stage], Draft]:
    """A framework's part of a save: writes the files of the asked kind into the reservation."""

    def write(stage: Stage) -> Draft:
        files = {MODEL: (step, model), SIDECAR: (step + 1, 64)}
        if stage.kind == "full":
            files[MOMENTS] = (step + 2, moments)
        for name, (value, size) in files.items():
            with reserved_file(stage, stage.path / name, size) as file:
                file.write(bytes([value % 251]) * size)
        without = {"full": (), "light": (MOMENTS,)} if stage.kind == "full" else {"light": ()}
        return Draft("transformers", without)

    return write


def make_saver(
    vault: Vault,
    *,
    keep: Keep | None = None,
    keep_exact: bool = False,
    forbid: Sequence[int] = (),
    save: str = "full",
    wait: Callable[[float], None] | None = None,
) -> Saver:
    """A saver whose pauses call ``wait``; without one a pause is a failure of the test."""

    def never(seconds: float) -> None:
        if seconds:
            pytest.fail("training was paused")

    policy = Policy(keep, keep_exact, frozenset(forbid), save=save)
    return Saver(vault, policy, lineage="one", wait=wait or never)


@contextmanager
def opened_by_another_process(path: Path) -> Iterator[int]:
    """Another process has a file open; yields its id."""
    code = f"file = open({str(path)!r}, 'rb'); print('open', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        try:
            yield child.pid
        finally:
            child.communicate("\n")


@contextmanager
def undeletable(folder: Path) -> Iterator[None]:
    """Nothing in a folder can be unlinked or renamed: immutable for root, read-only for others."""
    if os.geteuid():
        folder.chmod(0o555)
    elif subprocess.run(["chattr", "+i", folder], capture_output=True).returncode:
        pytest.skip("this file system has no chattr +i")
    try:
        yield
    finally:
        if os.geteuid():
            folder.chmod(0o755)
        else:
            subprocess.run(["chattr", "-i", folder], check=True)


def python(code: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a piece of Python in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def safetensors_bytes(length: int = 64) -> bytes:
    """A whole safetensors file with one tensor, made by hand from the format's description."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [length], "data_offsets": [0, length]}}).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + bytes(length)
