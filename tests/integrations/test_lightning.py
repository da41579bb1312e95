"""Lightning's plugin in one process: seals, the books of ModelCheckpoint, resume, what is left alone."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

lightning = pytest.importorskip("lightning.pytorch")

from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402
from lightning.pytorch.demos.boring_classes import BoringModel  # noqa: E402

from outlast.checkpoints import Keep, Vault, inspect  # noqa: E402
from outlast.integrations import lightning as guarded  # noqa: E402
from outlast.integrations.lightning import books, guard  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


class Model(BoringModel):
    """Logs a metric that grows: the first step is the best when less is better."""

    def training_step(self, batch: Any, index: int) -> Any:
        self.log("loss", float(self.trainer.global_step))
        return super().training_step(batch, index)


@pytest.fixture
def fit(tmp_path: Path) -> Callable[..., Any]:
    """Fit a tiny model with a guarded Trainer; gives back its ModelCheckpoint."""

    def run(steps: int = 4, keep: Keep | None = None, ckpt_path: str | None = None, **options: Any) -> Any:
        callback = ModelCheckpoint(tmp_path / "out", every_n_train_steps=1, **{"save_top_k": -1, **options})
        trainer = lightning.Trainer(
            max_steps=steps, max_epochs=-1, accelerator="cpu", logger=False, callbacks=[callback],
            plugins=[guarded.OutlastCheckpointIO(keep)], enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(Model(), ckpt_path=ckpt_path)
        return callback

    return run


@pytest.fixture(autouse=True)
def fresh_guards() -> None:
    """Each test starts as a new process would."""
    guard.GUARDS.clear()


def steps(root: Path) -> list[int]:
    vault = Vault(root)
    return [c.step for c in vault.checkpoints() if vault.check(c).is_whole]


def test_each_save_is_one_sealed_file_with_its_step_and_metrics(fit: Callable[..., Any], tmp_path: Path) -> None:
    fit(monitor="loss")
    assert steps(tmp_path / "out") == [1, 2, 3, 4]
    last = Vault(tmp_path / "out").checkpoints()[-1]
    assert last.path.is_file() and last.kind == "full"
    assert last.seal.metrics["loss"] == 3.0
    assert torch.load(last.path, weights_only=False)["global_step"] == 4


def test_light_saves_that_were_asked_for_are_said_to_stay_full(
    fit: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OUTLAST_SAVE", "light")
    fit()
    assert {c.kind for c in Vault(tmp_path / "out").checkpoints()} == {"full"}
    assert capsys.readouterr().err.count("has no light form: they stay full") == 1


def test_that_save_weights_only_is_no_way_back_is_said_once(
    fit: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(save_weights_only=True)
    assert {c.kind for c in Vault(tmp_path / "out").checkpoints()} == {"weights"}
    assert capsys.readouterr().err.count("checkpoints are bare weights: training cannot go on from them") == 1


def test_what_lightning_removes_goes_with_its_seal(fit: Callable[..., Any], tmp_path: Path) -> None:
    callback = fit(save_top_k=1)
    assert steps(tmp_path / "out") == [4]
    assert [path.name for path in (tmp_path / "out/.outlast/seals").iterdir()] == ["epoch=0-step=4.ckpt.json"]
    assert Path(callback.best_model_path).is_file()


def test_a_rule_of_the_users_own_stands_over_save_top_k(fit: Callable[..., Any], tmp_path: Path) -> None:
    fit(keep=Keep(last=3), save_top_k=1)
    assert steps(tmp_path / "out") == [2, 3, 4]


def test_best_k_models_names_no_checkpoint_that_retention_dropped(fit: Callable[..., Any], tmp_path: Path) -> None:
    callback = fit(steps=6, keep=Keep(last=2), monitor="loss", save_top_k=4)
    assert callback.best_model_path.endswith("step=1.ckpt"), "the best is protected"
    assert all(Path(path).is_file() for path in [callback.best_model_path, *callback.best_k_models])


@pytest.mark.parametrize("kind", [True, "link"])
def test_save_last_works_as_a_file_and_as_a_link(fit: Callable[..., Any], tmp_path: Path, kind: Any) -> None:
    fit(save_last=kind, save_top_k=1)
    assert torch.load(tmp_path / "out" / "last.ckpt", weights_only=False)["global_step"] == 4
    guard.GUARDS.clear()
    fit(steps=6, save_last=kind, save_top_k=1, ckpt_path="last")
    assert torch.load(tmp_path / "out" / "last.ckpt", weights_only=False)["global_step"] == 6


def test_resume_passes_over_a_damaged_one_that_was_asked_for(fit: Callable[..., Any], tmp_path: Path) -> None:
    fit()
    damaged = tmp_path / "out" / "epoch=0-step=4.ckpt"
    damaged.write_bytes(damaged.read_bytes()[:-100] + bytes(100))
    guard.GUARDS.clear()
    callback = fit(steps=5, ckpt_path=str(damaged))
    assert steps(tmp_path / "out") == [1, 2, 3, 4, 5]
    assert callback.best_model_path.endswith("step=5.ckpt")


@pytest.mark.parametrize("options", [{}, {"monitor": "step", "mode": "max", "save_last": "link"}, {"save_last": True}])
def test_what_a_fit_was_resumed_from_goes_when_its_time_comes_and_restarts_leave_nothing_behind(
    fit: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """Alone Lightning keeps it for ever; the first restart is as `outlast run` does it, the second as a script may."""
    fit(steps=2, save_top_k=1, **options)
    monkeypatch.setenv("OUTLAST_RESUME", "1")
    for steps_now, asked in ((4, None), (6, "last"), (8, None)):
        guard.GUARDS.clear()
        fit(steps=steps_now, save_top_k=1, ckpt_path=asked, **options)
    last = {"last.ckpt"} if "save_last" in options else set()
    assert {path.name for path in (tmp_path / "out").glob("*.ckpt")} == {"epoch=0-step=8.ckpt"} | last


def test_a_checkpoint_that_the_script_names_itself_is_not_removed(fit: Callable[..., Any], tmp_path: Path) -> None:
    """Attacks: the same command has to find it again."""
    fit(steps=2, save_top_k=1)
    fit(steps=4, save_top_k=1, ckpt_path=str(tmp_path / "out/epoch=0-step=2.ckpt"))
    assert steps(tmp_path / "out") == [2, 4]


def test_the_books_go_on_where_the_folder_has_another_name_of_its_own(
    fit: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attacks: a link to the folder, or a relative path: Lightning would begin new books, and keep the old files."""
    fit(steps=3, save_top_k=2, monitor="step", mode="max")
    (saved,) = torch.load(tmp_path / "out/epoch=0-step=3.ckpt", weights_only=False)["callbacks"].values()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("out")
    guarded.OutlastCheckpointIO()
    for other in ("out", "link", str(tmp_path / "link")):
        callback = ModelCheckpoint(monitor="step", mode="max", save_top_k=2)
        callback.dirpath = other
        callback.load_state_dict(dict(saved))
        assert sorted(callback.best_k_models) == [f"{other}/epoch=0-step={step}.ckpt" for step in (2, 3)]
        assert callback.best_model_path == f"{other}/epoch=0-step=3.ckpt"


def test_a_plain_checkpoint_is_adopted_and_a_cut_one_set_aside(fit: Callable[..., Any], tmp_path: Path) -> None:
    fit(steps=2)
    whole = (tmp_path / "out" / "epoch=0-step=2.ckpt").read_bytes()
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "last.ckpt").write_bytes(whole)
    (plain / "epoch=0-step=9.ckpt").write_bytes(whole[: len(whole) // 2])
    (plain / "mine.ckpt").write_bytes(b"a file of the user's own")
    Vault(plain).recover()
    assert [(c.name, c.step, c.kind) for c in Vault(plain).checkpoints()] == [("last.ckpt", 2, "full")]
    assert (plain / "mine.ckpt").exists() and not (plain / "epoch=0-step=9.ckpt").exists()


def test_weights_only_is_told_from_a_full_one_without_unpickling(fit: Callable[..., Any], tmp_path: Path) -> None:
    fit(steps=1, save_weights_only=True)
    found = inspect(tmp_path / "out" / "epoch=0-step=1.ckpt")
    assert (found.step, found.kind) == (1, "weights")


def test_a_save_of_the_users_own_is_whole_but_never_ours_to_delete(fit: Callable[..., Any], tmp_path: Path) -> None:
    io = guarded.OutlastCheckpointIO()
    io.save_checkpoint({"state_dict": {}, "global_step": 3}, tmp_path / "final.ckpt")
    assert torch.load(tmp_path / "final.ckpt")["global_step"] == 3
    assert Vault(tmp_path).checkpoints() == []


def test_the_plugin_goes_through_pickle() -> None:
    plugin = guarded.OutlastCheckpointIO(Keep(last=2))
    assert pickle.loads(pickle.dumps(plugin)).policy.keep == Keep(last=2)


@pytest.mark.parametrize("path", ["s3://bucket/a.ckpt", "gs://bucket/a.ckpt", b"bytes"])
def test_remote_paths_are_left_to_lightning(path: Any) -> None:
    assert guard.local_path(path) is None


def test_a_kill_between_the_two_renames_of_a_file_is_finished_by_the_next_start(tmp_path: Path) -> None:
    vault = Vault(tmp_path)
    for moved in (True, False):
        token = vault.own / "stage" / "1-x"
        (token / ".outlast" / "seals").mkdir(parents=True)
        staged = token / "last.ckpt"
        torch.save({"global_step": 5 + moved, "optimizer_states": []}, staged)
        from outlast.checkpoints import seal as seals

        seals.write(
            staged, vault.seal_for(staged, 5 + moved, "lightning", {"full": ()}, created=10.0**10 + (not moved))
        )
        if moved:
            staged.rename(tmp_path / "last.ckpt")
        vault.recover()
        (found,) = vault.checkpoints()
        assert (found.name, found.step) == ("last.ckpt", 5 + moved)
        assert vault.check(found).is_whole
        assert not list((vault.own / "stage").iterdir())


def test_an_async_save_that_waits_is_no_phantom(tmp_path: Path) -> None:
    callback = SimpleNamespace(
        best_k_models={str(tmp_path / "a.ckpt"): 1.0}, kth_best_model_path="", best_model_path=""
    )
    guard = SimpleNamespace(expected={"a.ckpt": [{}]})
    trainer = SimpleNamespace(strategy=SimpleNamespace(broadcast=lambda value: value))
    books.strike_phantoms(callback, trainer, guard)  # type: ignore[arg-type]
    assert callback.best_k_models
    guard.expected.clear()
    books.strike_phantoms(callback, trainer, guard)  # type: ignore[arg-type]
    assert not callback.best_k_models
