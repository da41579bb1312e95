"""Promises 1 and 5: among debris of every kind resume takes the newest good checkpoint, through every door."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from outlast.checkpoints import Vault, digest
from outlast.checkpoints import seal as seals
from outlast.journal import FOLDER

from .conftest import SCRIPTS
from .scripts import looks


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three sealed checkpoints of a Trainer: steps 10, 20 and 30."""
    home = tmp_path_factory.mktemp("template")
    root = home / "out"
    command = looks.python(looks.TRAINER, root, "--steps", 30, "--limit", 0)
    subprocess.run(command, check=True, capture_output=True, env=looks.hooked(home))
    assert set(looks.verifying(root)) == {"checkpoint-10", "checkpoint-20", "checkpoint-30"}
    return root


def _copy(template: Path, place: Path) -> Path:
    root = place / "out"
    shutil.copytree(template, root, ignore=shutil.ignore_patterns(FOLDER))
    return root


def _unsealed(root: Path, name: str) -> Path:
    """A further checkpoint as a plain Trainer leaves it."""
    path = root / name
    shutil.copytree(root / "checkpoint-30", path, ignore=shutil.ignore_patterns("outlast*"))
    return path


def _cut(path: Path, by: int = 1) -> None:
    os.truncate(path, path.stat().st_size - by)


def _flip(path: Path, at: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 1
    path.write_bytes(data)


def _reseal_with(checkpoint: Path, name: str) -> None:
    """A forged seal, right in itself, that lists a file outside of the checkpoint."""
    path = checkpoint / seals.NAME
    record = json.loads(path.read_bytes())
    record["files"][name] = {"bytes": 1, "digest": "blake3:00"}
    record["kinds"] = {kind: [*names, name] for kind, names in record["kinds"].items()}
    record.pop("check")
    record["check"] = digest.of_bytes(json.dumps(record, sort_keys=True, separators=(",", ":")).encode(), "blake2b")
    path.write_text(json.dumps(record))


def _replace_by_link(checkpoint: Path, other: Path, name: str) -> None:
    (checkpoint / name).unlink()
    (checkpoint / name).symlink_to(other / name)


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _no_state(root: Path) -> None:
    (_unsealed(root, "checkpoint-40") / "trainer_state.json").unlink()


def _no_optimizer(root: Path) -> None:
    (_unsealed(root, "checkpoint-40") / "optimizer.pt").unlink()


def _dangling_name(root: Path) -> None:
    (root / "checkpoint-50").write_text("a file")
    (root / "checkpoint-60").mkdir()
    (root / "checkpoint-70").symlink_to(root / "checkpoint-10")
    (root / "checkpoint-80-old").mkdir()
    (root / "checkpoint-").mkdir()


Damage = Callable[[Path], object]
DAMAGES: dict[str, tuple[int, Damage]] = {
    "a partial without trainer_state.json": (30, _no_state),
    "a partial without optimizer.pt": (30, _no_optimizer),
    "a partial, safetensors cut by a byte": (30, lambda r: _cut(_unsealed(r, "checkpoint-40") / "model.safetensors")),
    "a partial, optimizer.pt cut by a byte": (30, lambda r: _cut(_unsealed(r, "checkpoint-40") / "optimizer.pt")),
    "a partial with an empty json": (30, lambda r: _empty(_unsealed(r, "checkpoint-40") / "trainer_state.json")),
    "a partial with empty weights": (30, lambda r: os.truncate(_unsealed(r, "checkpoint-40") / "model.safetensors", 0)),
    "a partial that is a link inside": (
        30,
        lambda r: _replace_by_link(_unsealed(r, "checkpoint-40"), r / "checkpoint-30", "optimizer.pt"),
    ),
    "names that are no checkpoints": (30, _dangling_name),
    "sealed, one bit of optimizer.pt": (20, lambda r: _flip(r / "checkpoint-30" / "optimizer.pt")),
    "sealed, one bit of the weights": (20, lambda r: _flip(r / "checkpoint-30" / "model.safetensors", 0.9)),
    "sealed, weights cut by a byte": (20, lambda r: _cut(r / "checkpoint-30" / "model.safetensors")),
    "sealed, an empty json": (20, lambda r: os.truncate(r / "checkpoint-30" / "trainer_state.json", 0)),
    "sealed, weights gone": (20, lambda r: os.unlink(r / "checkpoint-30" / "model.safetensors")),
    "sealed, weights a link": (
        20,
        lambda r: _replace_by_link(r / "checkpoint-30", r / "checkpoint-20", "model.safetensors"),
    ),
    "a torn seal": (20, lambda r: _cut(r / "checkpoint-30" / seals.NAME, 200)),
    "an empty seal": (20, lambda r: os.truncate(r / "checkpoint-30" / seals.NAME, 0)),
    "a seal that is not text": (20, lambda r: (r / "checkpoint-30" / seals.NAME).write_bytes(b"\xff\x00" * 500)),
    "a seal that is a list": (20, lambda r: (r / "checkpoint-30" / seals.NAME).write_text("[1, 2]")),
    "a seal with one bit changed": (20, lambda r: _flip(r / "checkpoint-30" / seals.NAME)),
    "a seal that is a folder": (
        20, lambda r: ((r / "checkpoint-30" / seals.NAME).unlink(), (r / "checkpoint-30" / seals.NAME).mkdir()),
    ),
    "a seal that leads out": (20, lambda r: _reseal_with(r / "checkpoint-30", "../../etc/passwd")),
    "a seal with an absolute name": (20, lambda r: _reseal_with(r / "checkpoint-30", "/etc/passwd")),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGES, ids=lambda what: what.replace(" ", "-"))
def test_resume_takes_the_newest_good_one_and_sets_the_rest_aside(template: Path, tmp_path: Path, what: str) -> None:
    """Attacks: a partial or damaged checkpoint is never resumed from, nor left where another tool would pick it up."""
    step, damage = DAMAGES[what]
    root = _copy(template, tmp_path)
    damage(root)
    vault = Vault(root)
    vault.recover()
    choice = vault.take()
    assert choice is not None
    assert (choice.checkpoint.step, choice.kind) == (step, "full")
    offered = {path.name for path in root.iterdir() if path.is_dir() and not path.is_symlink()}
    assert not {"checkpoint-40", "checkpoint-60"} & offered, "what is not whole must not keep a checkpoint's name"
    if step == 20:
        assert "checkpoint-30" not in offered
    else:
        assert looks.verifying(root).get("checkpoint-30") == "full"
    told = looks.named(root, "quarantined", "passed_over")
    assert told and all(event["reason"] for event in told)


def test_an_unsealed_whole_one_is_adopted_and_steps_compare_as_numbers(template: Path, tmp_path: Path) -> None:
    """Attacks: checkpoint-10000 is newer than checkpoint-9000, whatever text order says; whole ones are adopted."""
    root = _copy(template, tmp_path)
    for name in ("checkpoint-10000", "checkpoint-9000"):
        _unsealed(root, name)
    for name in ("checkpoint-10", "checkpoint-20", "checkpoint-30"):
        shutil.rmtree(root / name)
    vault = Vault(root)
    vault.recover()
    assert [c.name for c in vault.checkpoints()] == ["checkpoint-9000", "checkpoint-10000"]
    choice = vault.take()
    assert choice is not None and choice.checkpoint.name == "checkpoint-10000"


def test_a_folder_in_which_nothing_verifies_is_said_to_be_so_and_nothing_is_deleted(
    template: Path, tmp_path: Path
) -> None:
    """Attacks: no silent fresh start over damaged checkpoints."""
    root = _copy(template, tmp_path)
    for step in (10, 20, 30):
        _flip(root / f"checkpoint-{step}" / "model.safetensors")
    before = sum(len(files) for _, _, files in os.walk(root))
    done = subprocess.run(
        looks.python(looks.TRAINER, root, "--steps", 31, "--resume"),
        capture_output=True, text=True, env=looks.hooked(tmp_path),
    )  # fmt: skip
    assert done.returncode != 0
    assert "none of 3 sealed checkpoints" in done.stderr
    left = [Path(f) for f, _, files in os.walk(root) for name in files if not name.startswith(("lock", "save.lock"))]
    assert len(left) >= before


def test_transformers_own_get_last_checkpoint_gives_the_newest_good_one(template: Path, tmp_path: Path) -> None:
    """Attacks: scripts that ask get_last_checkpoint themselves, over every kind of damage in one process."""
    expected = []
    folders = []
    for number, (step, damage) in enumerate(DAMAGES.values()):
        root = _copy(template, tmp_path / str(number))
        damage(root)
        folders.append(root)
        expected.append(str(root / f"checkpoint-{step}"))
    done = subprocess.run(
        looks.python(SCRIPTS / "last_checkpoint.py", *folders),
        capture_output=True,
        text=True,
        env=looks.hooked(tmp_path),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == expected


@pytest.mark.parametrize(
    "what",
    ["a partial without trainer_state.json", "a partial, safetensors cut by a byte", "sealed, one bit of optimizer.pt"],
)
def test_the_trainers_own_resume_from_checkpoint_true_takes_the_newest_good_one(
    template: Path, tmp_path: Path, what: str
) -> None:
    """Attacks: the unmodified script, started again with resume_from_checkpoint=True on debris."""
    step, damage = DAMAGES[what]
    root = _copy(template, tmp_path)
    damage(root)
    done = subprocess.run(
        looks.python(looks.TRAINER, root, "--steps", 40, "--resume"),
        capture_output=True, text=True, env=looks.hooked(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    resumed = looks.named(tmp_path, "resumed")
    assert [event["step"] for event in resumed] == [step]
    assert looks.verifying(root)["checkpoint-40"] == "full"
    looks.assert_only_whole_are_offered(root)


def test_without_outlast_the_trainer_resumes_from_the_partial_and_dies(template: Path, tmp_path: Path) -> None:
    """The contrast: checkpoint-40 without trainer_state.json is what a plain Trainer picks, again and again."""
    root = _copy(template, tmp_path)
    _no_state(root)
    environment = {k: v for k, v in looks.hooked(tmp_path).items() if not k.startswith(("OUTLAST", "PYTHONPATH"))}
    done = subprocess.run(
        looks.python(looks.TRAINER, root, "--steps", 40, "--resume"), capture_output=True, text=True, env=environment
    )
    assert done.returncode != 0
    assert "trainer_state.json" in done.stderr
