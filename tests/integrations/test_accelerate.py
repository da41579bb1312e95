"""Accelerate's save_state and load_state in one process: naming, counters, retention, light states, foreign files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

accelerate = pytest.importorskip("accelerate")

from accelerate.utils import ProjectConfiguration  # noqa: E402

from outlast.checkpoints import Keep, Vault, codec  # noqa: E402
from outlast.integrations import accelerate as guarded  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def fresh_guards() -> None:
    """Each test starts as a new process would."""
    guarded._GUARDS.clear()


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Any]:
    """A guarded Accelerator with a tiny model; ``.train()`` makes a step."""

    def build(automatic: bool = True, keep: Keep | None = None, **options: Any) -> Any:
        config = ProjectConfiguration(str(tmp_path / "run"), automatic_checkpoint_naming=automatic, **options)
        accelerator = guarded.guard(accelerate.Accelerator(cpu=True, project_config=config), keep)
        model = torch.nn.Linear(64, 64)
        model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters()))

        def train() -> None:
            model(torch.randn(2, 64)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()

        accelerator.train, accelerator.model, accelerator.adam = train, model, optimizer
        return accelerator

    return build


def names(tmp_path: Path) -> list[str]:
    return [checkpoint.name for checkpoint in Vault(tmp_path / "run" / "checkpoints").checkpoints()]


def save(accelerator: Any, times: int, place: Any = None) -> Any:
    for _ in range(times):
        accelerator.train()
        result = accelerator.save_state(place)
    return result


def test_numbered_states_are_sealed_under_the_names_that_accelerate_gives(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    accelerator = make()
    assert save(accelerator, 2) == tmp_path / "run" / "checkpoints" / "checkpoint_1"
    assert names(tmp_path) == ["checkpoint_0", "checkpoint_1"]
    assert accelerator.save_iteration == 2
    assert accelerator.project_configuration.automatic_checkpoint_naming


def test_total_limit_is_honoured_after_the_seal(make: Callable[..., Any], tmp_path: Path) -> None:
    save(make(total_limit=2), 12)
    assert names(tmp_path) == ["checkpoint_10", "checkpoint_11"]


def test_nothing_of_ours_is_in_the_folder_whose_names_accelerate_reads_as_numbers(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    save(make(), 1)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["checkpoint_0"]
    assert Vault(tmp_path / "run" / "checkpoints").own == tmp_path / "run" / ".outlast" / "beside" / "checkpoints"


def test_a_save_that_failed_does_not_count(make: Callable[..., Any], tmp_path: Path) -> None:
    accelerator = make()
    tries = []

    def fail_once(models: Any, weights: Any, folder: str) -> None:
        tries.append(folder)
        if len(tries) == 1:
            raise OSError(28, "No space left on device")

    accelerator.register_save_state_pre_hook(fail_once)
    save(accelerator, 1)
    assert len(tries) == 2
    assert names(tmp_path) == ["checkpoint_0"]
    assert accelerator.save_iteration == 1


def test_a_numbered_state_that_is_there_is_refused_and_nothing_deleted(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    save(make(total_limit=2), 2)
    with pytest.raises(ValueError, match="already exists"):
        save(make(total_limit=2), 1)
    assert names(tmp_path) == ["checkpoint_0", "checkpoint_1"]


def test_load_takes_the_newest_that_verifies_and_counts_on(make: Callable[..., Any], tmp_path: Path) -> None:
    first = make()
    save(first, 11)
    damaged = tmp_path / "run" / "checkpoints" / "checkpoint_10" / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    guarded._GUARDS.clear()
    again = make()
    again.load_state()
    assert again.save_iteration == 10
    assert guarded._optimizer_steps(again) == 10


def test_a_light_state_is_expanded(make: Callable[..., Any], tmp_path: Path) -> None:
    first = make()
    save(first, 3)
    folder = tmp_path / "run" / "checkpoints" / "checkpoint_2"
    (folder / "optimizer.bin").unlink()
    assert (folder / codec.SIDECAR).is_file()
    again = make()
    again.load_state()
    assert torch.equal(again.model.weight, first.model.weight)
    assert guarded._optimizer_steps(again) == 3
    assert len(again._optimizers) == 1


def test_light_states_by_choice_hold_no_optimizer_and_go_on_at_their_step(
    make: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = guarded.guard(make(), save="light")
    save(first, 3)
    checkpoints = Vault(tmp_path / "run" / "checkpoints").checkpoints()
    assert {checkpoint.kind for checkpoint in checkpoints} == {"light"}
    assert not list(tmp_path.rglob("optimizer.bin"))
    assert capsys.readouterr().err.count("checkpoints are light (save=light)") == 1
    guarded._GUARDS.clear()
    again = make()
    again.load_state()
    assert torch.equal(again.model.weight, first.model.weight)
    assert guarded._optimizer_steps(again) == 3


def test_a_fixed_folder_carries_small_files_along(make: Callable[..., Any], tmp_path: Path) -> None:
    place = tmp_path / "out" / "state"
    place.mkdir(parents=True)
    (place / "arguments.json").write_text("{}")
    save(make(automatic=False), 2, place)
    assert (place / "arguments.json").read_text() == "{}"
    (checkpoint,) = Vault(tmp_path / "out").checkpoints()
    assert (checkpoint.name, checkpoint.step, checkpoint.kind) == ("state", 2, "full")


def test_a_folder_that_holds_other_things_is_not_replaced(make: Callable[..., Any], tmp_path: Path) -> None:
    place = tmp_path / "out" / "state"
    (place / "logs").mkdir(parents=True)
    inode = place.stat().st_ino
    save(make(automatic=False), 1, place)
    assert place.stat().st_ino == inode and (place / "model.safetensors").is_file()
    assert Vault(tmp_path / "out").checkpoints() == []


def test_an_optimizer_made_anew_does_not_make_a_newer_state_seem_older(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    accelerator = make()
    save(accelerator, 3)
    accelerator.adam.optimizer.state.clear()
    save(accelerator, 2)
    assert names(tmp_path) == [f"checkpoint_{number}" for number in range(5)]
