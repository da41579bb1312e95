"""What lies in a folder of checkpoints says how large one is, and how fast the training goes."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.builders import make_vault, put_checkpoint

from outlast.budget.found import look

MODEL, OPTIMIZER = 3 * 4096, 6 * 4096


def trainer_folder(root: Path, step: int, *, optimizer: bool = True) -> Path:
    """A Trainer's checkpoint without a seal."""
    folder = root / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(MODEL))
    (folder / "trainer_state.json").write_text("{}")
    if optimizer:
        (folder / "optimizer.pt").write_bytes(bytes(OPTIMIZER))
    return folder


def test_nothing_is_there_and_nothing_is_made(tmp_path: Path) -> None:
    found = look(tmp_path / "none")
    assert (found.size, found.lying, found.seconds_per_step) == (None, (), None)
    assert list(tmp_path.iterdir()) == []


def test_a_trainers_folders_are_measured_and_ordered_by_step(tmp_path: Path) -> None:
    for step in (500, 1000, 20):
        trainer_folder(tmp_path, step)
    found = look(tmp_path)
    assert [one.step for one in found.lying] == [20, 500, 1000]
    assert found.size is not None
    assert (found.size.weights, found.size.moments, found.size.small) == (MODEL, OPTIMIZER, 4096)
    assert found.size.source == "measured from checkpoint-1000"
    assert [one.light_bytes for one in found.lying] == [None] * 3, "without a seal nothing can be made light"


def test_one_without_an_optimizer_is_no_measure_of_a_full_save(tmp_path: Path) -> None:
    trainer_folder(tmp_path, 500)
    trainer_folder(tmp_path, 1000, optimizer=False)
    found = look(tmp_path)
    assert [one.kind for one in found.lying] == ["full", "weights"]
    assert found.size is not None and found.size.source == "measured from checkpoint-500"


def test_sealed_ones_tell_their_light_form_and_the_pace(tmp_path: Path) -> None:
    vault = make_vault(tmp_path)
    for step, created in ((10, 1000.0), (20, 1025.0)):
        put_checkpoint(vault, step, created=created)
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    found = look(tmp_path)
    assert [one.kind for one in found.lying] == ["full", "full"]
    assert all(one.light_bytes is not None and one.light_bytes < one.bytes for one in found.lying)
    assert found.seconds_per_step == pytest.approx(2.5)
    assert found.paced_by == "measured between checkpoint-10 and checkpoint-20"
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before, "looking writes nothing"


def test_two_trainings_have_no_common_pace(tmp_path: Path) -> None:
    vault = make_vault(tmp_path)
    put_checkpoint(vault, 10, lineage="one", created=1000.0)
    put_checkpoint(vault, 20, lineage="two", created=1025.0)
    assert look(tmp_path).seconds_per_step is None
