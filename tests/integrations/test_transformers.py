"""The Transformers Trainer with `OutlastCallback`: what it saves is sealed, what it resumes from verifies."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tests.builders import debris, flip_bit, kinds

from outlast import journal
from outlast.checkpoints import Keep, Vault, codec
from outlast.errors import BadInput
from outlast.integrations.transformers import OutlastCallback
from outlast.launch.rehearse import rehearse
from outlast.train import Stopped

ROWS = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
DATA = [{"x": row, "labels": row.sum()} for row in ROWS]


class Tiny(torch.nn.Module):
    """A model with dropout; its loss is in what it returns."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 1))

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        out = self.layers(x).squeeze(-1)
        return {"loss": (out - (0 if labels is None else labels)).pow(2).mean(), "logits": out}


class Losses(transformers.TrainerCallback):
    """Keeps the loss and the learning rate of each step."""

    def __init__(self) -> None:
        self.seen: dict[int, tuple[float, float]] = {}

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        if "loss" in (logs or {}):
            self.seen[state.global_step] = (logs["loss"], logs["learning_rate"])


class Remembers(transformers.trainer_callback.ExportableState, transformers.TrainerCallback):
    """A callback whose state goes into trainer_state.json."""

    def state(self) -> dict[str, Any]:
        return {"args": {}, "attributes": {"calls": 1}}


class Does(transformers.TrainerCallback):
    """Calls a function at each save."""

    def __init__(self, what: Callable[[Any, Any], None]) -> None:
        self.what = what

    def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.what(args, state)


class Out:
    """A trainer in a folder of its own, and what is in that folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.losses = Losses()

    def trainer(self, *callbacks: Any, steps: int = 6, guarded: bool = True, **arguments: Any) -> transformers.Trainer:
        guard = [OutlastCallback()] if guarded and not any(hasattr(c, "policy") for c in callbacks) else []
        defaults = {
            "max_steps": steps,
            "save_steps": 2,
            "per_device_train_batch_size": 4,
            "learning_rate": 0.05,
            "logging_steps": 1,
            "report_to": [],
            "disable_tqdm": True,
            "use_cpu": True,
            "dataloader_pin_memory": False,
            "seed": 3,
        }
        self.losses = Losses()
        trainer = transformers.Trainer(
            model=Tiny(),
            args=transformers.TrainingArguments(str(self.folder), **{**defaults, **arguments}),
            train_dataset=DATA,
            eval_dataset=DATA[:8],
            callbacks=[*guard, self.losses, *callbacks],
        )
        trainer.remove_callback(transformers.PrinterCallback)
        return trainer

    def train(self, *callbacks: Any, resume: Any = None, **arguments: Any) -> transformers.Trainer:
        trainer = self.trainer(*callbacks, **arguments)
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    @property
    def vault(self) -> Vault:
        return Vault(self.folder)

    @property
    def kinds(self) -> dict[str, str | None]:
        return kinds(self.vault)

    def state(self, step: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / f"checkpoint-{step}" / "trainer_state.json").read_text())
        return found

    def events(self, name: str) -> list[journal.Event]:
        runs = journal.runs(self.folder)
        return [event for run in runs for event in journal.read(self.folder, run) if event.name == name]


@pytest.fixture
def out(tmp_path: Path) -> Out:
    return Out(tmp_path / "out")


# Saving


def test_every_save_is_sealed_and_verifies_and_is_what_the_trainer_wrote(out: Out, tmp_path: Path) -> None:
    out.train()
    plain = Out(tmp_path / "plain")
    plain.train(guarded=False)
    assert out.kinds == {"checkpoint-2": "full", "checkpoint-4": "full", "checkpoint-6": "full"}
    assert all(out.vault.check(checkpoint).is_whole for checkpoint in out.vault.checkpoints())
    assert debris(out.folder) == []
    ours = {path.name for path in (out.folder / "checkpoint-6").iterdir()}
    theirs = {path.name for path in (plain.folder / "checkpoint-6").iterdir()}
    assert ours - theirs == {"outlast.json", codec.SIDECAR} and theirs <= ours
    model = "checkpoint-6/model.safetensors"
    assert (out.folder / model).read_bytes() == (plain.folder / model).read_bytes()


def test_a_trainer_without_the_callback_is_left_as_it_was(out: Out) -> None:
    OutlastCallback()
    out.train(guarded=False, save_total_limit=1)
    assert sorted(os.listdir(out.folder)) == ["checkpoint-6"]
    assert not (out.folder / "checkpoint-6" / "outlast.json").exists()


def test_retention_follows_save_total_limit_and_is_written_down(out: Out) -> None:
    out.train(save_total_limit=2)
    assert list(out.kinds) == ["checkpoint-4", "checkpoint-6"]
    assert [event.get("path") for event in out.events("deleted")] == [str(out.folder / "checkpoint-2")]


def test_rules_that_were_given_come_before_save_total_limit(out: Out) -> None:
    out.train(OutlastCallback(Keep(last=1, every=4)), save_total_limit=3)
    assert list(out.kinds) == ["checkpoint-4", "checkpoint-6"]


def test_the_best_model_stays_and_its_path_is_the_final_one(out: Out) -> None:
    # A metric that rises makes the first checkpoint the best.
    trainer = out.train(
        save_total_limit=2, load_best_model_at_end=True, eval_strategy="steps", eval_steps=2,
        metric_for_best_model="loss", greater_is_better=True, learning_rate=0.001,
    )  # fmt: skip
    best = trainer.state.best_model_checkpoint
    assert best is not None and Path(best).parent == out.folder and Path(best).name in out.kinds
    assert len(out.kinds) == 2 and "checkpoint-6" in out.kinds
    assert out.state(6)["best_model_checkpoint"] == best


def test_metrics_of_the_evaluation_are_in_the_seal(out: Out) -> None:
    out.train(steps=2, eval_strategy="steps", eval_steps=2)
    metrics = out.vault.get("checkpoint-2").seal.metrics
    assert metrics["eval_loss"] > 0 and metrics["loss"] > 0


def test_what_a_callback_writes_into_the_checkpoint_is_sealed_too(out: Out) -> None:
    def edit(args: Any, state: Any) -> None:
        folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
        (folder / "notes.json").write_text("{}")
        (folder / "training_args.bin").unlink()

    out.train(Does(edit), steps=4)
    for checkpoint in out.vault.checkpoints():
        assert "notes.json" in checkpoint.seal.files and "training_args.bin" not in checkpoint.seal.files
        assert out.vault.check(checkpoint).is_whole
    assert [event.get("name") for event in out.events("sealed_again")] == ["checkpoint-2", "checkpoint-4"]


def test_callbacks_see_the_checkpoint_under_its_final_name(out: Out) -> None:
    seen: list[bool] = []
    out.train(Does(lambda args, state: seen.append(Path(args.output_dir, f"checkpoint-{state.global_step}").is_dir())))
    assert seen == [True, True, True]


def test_a_full_volume_is_cured_and_no_callback_is_called_or_noted_twice(
    out: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves: list[int] = []
    trainer = out.trainer(Remembers(), Does(lambda args, state: saves.append(state.global_step)), steps=4)
    real, failures = trainer._save_scaler, [OSError(28, "No space left on device")]

    def save_scaler(folder: str) -> None:
        if failures and trainer.state.global_step == 4:
            raise failures.pop()
        real(folder)

    monkeypatch.setattr(trainer, "_save_scaler", save_scaler)
    trainer.train()
    assert not failures and saves == [2, 4] and out.kinds["checkpoint-4"] == "full"
    assert [event.get("cause") for event in out.events("save_failed")] == ["full"]
    noted = out.state(4)["stateful_callbacks"]["Remembers"]
    assert noted == out.state(2)["stateful_callbacks"]["Remembers"]


def test_an_error_of_the_save_itself_ends_the_training_and_leaves_no_partial(
    out: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = out.trainer(steps=4)

    def save_scaler(folder: str) -> None:
        if trainer.state.global_step == 4:
            raise ZeroDivisionError

    monkeypatch.setattr(trainer, "_save_scaler", save_scaler)
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    assert out.kinds == {"checkpoint-2": "full"} and debris(out.folder) == []


def test_with_save_only_model_the_small_state_is_kept_all_the_same(out: Out) -> None:
    out.train(steps=2, save_only_model=True)
    checkpoint = out.vault.get("checkpoint-2")
    assert checkpoint.kind == "light" and not (checkpoint.path / "optimizer.pt").exists()
    assert {"optimizer", "scheduler", "generators"} <= codec.unpack(checkpoint.path / codec.SIDECAR).keys()


def test_light_saves_by_choice_hold_no_optimizer_and_it_is_said_once(
    out: Out, capsys: pytest.CaptureFixture[str]
) -> None:
    out.train(OutlastCallback(save="light"), save_total_limit=2)
    assert out.kinds == {"checkpoint-4": "light", "checkpoint-6": "light"}
    assert not list(out.folder.rglob("optimizer.pt"))
    assert out.vault.get("checkpoint-6").seal.notes["why_light"] == "save=light"
    said = capsys.readouterr().err
    assert said.count("outlast: checkpoints are light (save=light):") == 1 and " instead of " in said


def test_that_save_only_model_is_light_is_said_once(out: Out, capsys: pytest.CaptureFixture[str]) -> None:
    out.train(steps=4, save_only_model=True)
    assert capsys.readouterr().err.count("outlast: checkpoints are light (save_only_model):") == 1


def test_light_saves_and_an_exact_way_back_are_refused(out: Out) -> None:
    with pytest.raises(BadInput, match="contradict"):
        OutlastCallback(save="light", keep_exact=True)


class OddSchedule(torch.optim.lr_scheduler.LRScheduler):
    """A schedule whose state has no safe form."""

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "odd": print}

    def get_lr(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]


def test_a_schedule_that_has_no_safe_form_keeps_saves_full_rather_than_bare(
    out: Out, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = out.trainer(OutlastCallback(save="light"), steps=2)
    trainer.create_optimizer()
    trainer.lr_scheduler = OddSchedule(trainer.optimizer)
    trainer.train()
    assert out.kinds == {"checkpoint-2": "full"}
    assert "has no light form: they stay full" in capsys.readouterr().err


# Resuming


def test_an_interrupted_training_goes_on_exactly(out: Out, tmp_path: Path) -> None:
    straight = Out(tmp_path / "straight")
    straight.train()
    out.train(steps=6, save_total_limit=None)
    os.rename(out.folder / "checkpoint-6", tmp_path / "as if it had not come so far")
    out.train(resume=True)
    assert out.losses.seen == {step: straight.losses.seen[step] for step in (5, 6)}


def test_resume_takes_the_newest_that_verifies_and_sets_the_rest_aside(out: Out) -> None:
    out.train()
    flip_bit(out.folder / "checkpoint-6" / "optimizer.pt", 300)
    (out.folder / "checkpoint-40").mkdir()
    (out.folder / "checkpoint-40" / "model.safetensors").write_bytes(b"debris of a save")
    out.train(resume=True, steps=8)
    assert list(out.losses.seen) == [5, 6, 7, 8]
    assert "checkpoint-40" not in os.listdir(out.folder)
    assert {Path(event.get("path")).name for event in out.events("quarantined")} == {"checkpoint-6", "checkpoint-40"}


def test_resume_by_name_is_held_to_the_seal_too(out: Out) -> None:
    out.train()
    flip_bit(out.folder / "checkpoint-6" / "model.safetensors", 300)
    out.train(resume=str(out.folder / "checkpoint-6"), steps=8)
    assert list(out.losses.seen) == [5, 6, 7, 8]


def test_get_last_checkpoint_offers_what_verifies(out: Out) -> None:
    trainer = out.train()
    flip_bit(out.folder / "checkpoint-6" / "model.safetensors", 300)
    found = transformers.trainer_utils.get_last_checkpoint(str(out.folder))
    assert found == str(out.folder / "checkpoint-4")
    del trainer


def test_get_last_checkpoint_of_a_folder_that_is_not_guarded_is_the_frameworks_own(tmp_path: Path) -> None:
    OutlastCallback()
    (tmp_path / "checkpoint-7").mkdir()
    assert transformers.trainer_utils.get_last_checkpoint(str(tmp_path)) == str(tmp_path / "checkpoint-7")
    assert os.listdir(tmp_path) == ["checkpoint-7"]


def test_without_being_asked_it_starts_afresh_and_the_new_training_counts_as_newer(out: Out) -> None:
    out.train()
    out.train(steps=4)
    assert list(out.losses.seen) == [1, 2, 3, 4]
    assert list(out.kinds)[-1] == "checkpoint-4"


@pytest.mark.parametrize("how", ["made light", "save_only_model", "light by choice"])
def test_from_a_light_checkpoint_step_and_schedule_go_on(out: Out, tmp_path: Path, how: str) -> None:
    straight = Out(tmp_path / "straight")
    straight.train(steps=6)
    # The schedule is that of six steps; the training ends early as if it had been killed after step 4.
    stop = Does(lambda args, state: setattr(control, "should_training_stop", state.global_step == 4))
    guard = OutlastCallback(save="light" if how == "light by choice" else None)
    trainer = out.trainer(stop, guard, steps=6, save_only_model=how == "save_only_model")
    control = trainer.control
    trainer.train()
    if how == "made light":
        out.vault.lighten("checkpoint-4", "test")
    assert out.kinds["checkpoint-4"] == "light"
    resumed = out.train(resume=True, steps=6)
    rates = {step: rate for step, (_, rate) in out.losses.seen.items()}
    assert rates == {step: straight.losses.seen[step][1] for step in (5, 6)}
    assert out.losses.seen[5][0] == straight.losses.seen[5][0], "weights, data and dropout of the next step are exact"
    assert {int(slots["step"]) for slots in resumed.optimizer.state_dict()["state"].values()} == {6}


def test_from_bare_weights_at_least_the_schedule_goes_on_and_it_is_said(out: Out, tmp_path: Path) -> None:
    straight = Out(tmp_path / "straight")
    straight.train(steps=6)
    out.train(steps=4, guarded=False, save_only_model=True)
    out.train(resume=True, steps=6)
    assert out.kinds["checkpoint-4"] == "weights"
    assert {s: rate for s, (_, rate) in out.losses.seen.items()} == {s: straight.losses.seen[s][1] for s in (5, 6)}


@pytest.mark.parametrize("limit", [1, 2, 3])
@pytest.mark.parametrize("loads_best", [True, False])
def test_what_is_kept_is_what_the_trainers_own_rotation_keeps(
    out: Out, tmp_path: Path, limit: int, loads_best: bool
) -> None:
    # A tiny rate and a metric that is best when it is high: the first checkpoint is the best one.
    best = {"load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": True}
    options = {"eval_strategy": "steps", "eval_steps": 2, "steps": 8, "learning_rate": 0.001, "save_total_limit": limit}
    plain = Out(tmp_path / "plain")
    plain.train(guarded=False, **options, **(best if loads_best else {}))
    out.train(**options, **(best if loads_best else {}))
    assert sorted(out.kinds) == sorted(os.listdir(plain.folder))


def test_a_deadline_of_the_callbacks_own_seals_the_last_step_and_leaves(tmp_path: Path) -> None:
    out = Out(tmp_path / "out")
    with pytest.raises(Stopped) as left:
        out.trainer(OutlastCallback(deadline="7s"), steps=100_000, save_steps=50_000).train()
    assert left.value.code == 0
    assert "the deadline of 7s" in str(left.value)
    sealed = [c for c in Vault(tmp_path / "out").checkpoints() if Vault(tmp_path / "out").check(c).is_whole]
    assert [c.step for c in sealed] == [left.value.step]
    assert 0 < left.value.step < 100_000


def test_a_deadline_that_cannot_be_read_is_bad_input() -> None:
    with pytest.raises(BadInput, match="cannot read the deadline 'soon'"):
        OutlastCallback(deadline="soon")


def test_a_script_that_guards_itself_writes_nothing_while_it_is_planned_for(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "from transformers import Trainer, TrainingArguments\n"
        "from outlast.integrations.transformers import OutlastCallback\n"
        "import torch\n"
        "class Model(torch.nn.Linear):\n"
        "    def forward(self, x, labels): return {'loss': (super().forward(x) - labels).pow(2).mean()}\n"
        "data = [{'x': torch.ones(2), 'labels': torch.ones(1)}] * 8\n"
        f"args = TrainingArguments({str(tmp_path / 'out')!r}, max_steps=4, report_to=[], use_cpu=True)\n"
        "Trainer(Model(2, 1), args, train_dataset=data, callbacks=[OutlastCallback(deadline='9h')]).train()\n"
    )
    found = rehearse([sys.executable, str(script)], 120)
    assert found["steps"] == 4
    assert not (tmp_path / "out").exists()
