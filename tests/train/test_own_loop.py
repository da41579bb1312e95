"""`outlast.Run`: a loop of one's own that is interrupted goes on as if it had not been."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.builders import flip_bit

import outlast
from outlast.checkpoints import Keep, Vault
from outlast.errors import BadInput, NoWayBack

SAMPLES, BATCH = 20, 4
STEPS_AN_EPOCH = SAMPLES // BATCH
DATA = torch.utils.data.TensorDataset(torch.randn(SAMPLES, 6, generator=torch.Generator().manual_seed(0)))
Loader = Callable[[], Any]


def shuffled() -> Any:
    return torch.utils.data.DataLoader(DATA, batch_size=BATCH, shuffle=True)


def with_its_own_generator() -> Any:
    return torch.utils.data.DataLoader(DATA, batch_size=BATCH, shuffle=True, generator=torch.Generator())


def sampled_by_its_own_generator() -> Any:
    sampler = torch.utils.data.RandomSampler(DATA, generator=torch.Generator().manual_seed(5))
    return torch.utils.data.DataLoader(DATA, batch_size=BATCH, sampler=sampler)


def with_workers() -> Any:
    return torch.utils.data.DataLoader(DATA, batch_size=BATCH, shuffle=True, num_workers=2)


class Lists:
    """No DataLoader: anything that can be gone through again."""

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        order = random.sample(range(SAMPLES), SAMPLES)
        for start in range(0, SAMPLES, BATCH):
            yield [DATA.tensors[0][order[start : start + BATCH]]]


class Training:
    """A model with dropout, a schedule and shuffled data, as a script would build it."""

    def __init__(
        self,
        root: Path,
        *,
        optimizer: Callable[[Any], Any] = lambda p: torch.optim.AdamW(p, lr=0.05),
        loader: Loader = shuffled,
        seed: int = 1,
        **options: Any,
    ) -> None:
        torch.manual_seed(seed)
        random.seed(seed)
        self.model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Dropout(0.3), torch.nn.Linear(8, 6))
        self.optimizer = optimizer(self.model.parameters())
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 40)
        self.loader = loader()
        options = {"every": 3, "model": self.model, "optimizer": self.optimizer, "scheduler": self.schedule} | options
        self.run = outlast.Run(root, **options)
        self.losses: dict[int, str] = {}
        self.rates: dict[int, float] = {}

    def step(self, batch: list[torch.Tensor]) -> None:
        loss = (self.model(batch[0]) - batch[0]).pow(2).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        self.losses[self.run.steps_done] = loss.item().hex()
        self.rates[self.run.steps_done] = self.schedule.get_last_lr()[0]

    def go(self, *, total: int, die_after: int | None = None) -> Training:
        """Train; ``die_after`` so many steps the process is gone, without a word."""
        for batch in islice(self.run.steps(self.loader, total=total), die_after):
            self.step(batch)
            self.run.checkpoint(metrics={"loss": float.fromhex(self.losses[self.run.steps_done])})
        return self

    def weights(self) -> list[list[float]]:
        return [parameter.flatten().tolist() for parameter in self.model.parameters()]


# Exact resume


LOADERS = [shuffled, with_its_own_generator, sampled_by_its_own_generator, with_workers, Lists]


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("every", [3, STEPS_AN_EPOCH], ids=["mid-epoch", "at the end of an epoch"])
def test_losses_and_weights_of_an_interrupted_run_are_those_of_an_uninterrupted_one(
    tmp_path: Path, loader: Loader, every: int
) -> None:
    straight = Training(tmp_path / "straight", loader=loader, every=every).go(total=13)
    losses: dict[int, str] = {}
    for seed, die_after in ((1, 7), (2, 3), (3, None)):
        life = Training(tmp_path / "killed", loader=loader, every=every, seed=seed).go(total=13, die_after=die_after)
        losses |= life.losses
    assert losses == straight.losses and len(losses) == 13
    assert life.weights() == straight.weights() and life.rates.items() <= straight.rates.items()


def test_a_second_life_does_only_what_the_first_left_to_do(tmp_path: Path) -> None:
    Training(tmp_path).go(total=10, die_after=8)
    second = Training(tmp_path).go(total=10)
    assert list(second.losses) == [7, 8, 9, 10]
    assert second.run.resumed is not None and second.run.resumed.checkpoint.step == 6


def test_a_run_that_was_over_has_nothing_left_to_do(tmp_path: Path) -> None:
    Training(tmp_path).go(total=10)
    again = Training(tmp_path).go(total=10)
    assert again.losses == {} and again.run.steps_done == 10
    assert [checkpoint.step for checkpoint in Vault(tmp_path).checkpoints()][-1] == 10


def test_a_run_that_was_over_can_be_made_longer(tmp_path: Path) -> None:
    straight = Training(tmp_path / "straight").go(total=12)
    Training(tmp_path / "longer").go(total=7)
    assert Training(tmp_path / "longer", seed=9).go(total=12).losses.items() <= straight.losses.items()


def test_a_fresh_folder_starts_at_the_first_step(tmp_path: Path) -> None:
    training = Training(tmp_path / "not" / "there")
    assert training.run.resumed is None and training.run.steps_done == 0


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path: Path) -> None:
    def build() -> tuple[torch.nn.ModuleDict, outlast.Run]:
        net = torch.nn.ModuleDict({"a": torch.nn.Linear(50, 50), "b": torch.nn.Linear(50, 50)})
        net["b"].weight = net["a"].weight
        return net, outlast.Run(tmp_path, model=net)

    first, run = build()
    sealed = run.checkpoint(now=True)
    assert sealed is not None
    assert (sealed.path / "model.safetensors").stat().st_size < 2 * 50 * 50 * 4
    second, _ = build()
    assert second["b"].weight is second["a"].weight and torch.equal(second["a"].weight, first["a"].weight)


def test_parts_of_ones_own_are_put_back(tmp_path: Path) -> None:
    class Counter:
        def __init__(self) -> None:
            self.count = 0

        def state_dict(self) -> dict[str, Any]:
            return {"count": self.count, "seen": (1, 2)}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.count = state["count"]

    first, second = Counter(), Counter()
    first.count = 7
    Training(tmp_path, also={"counter": first}).run.checkpoint(now=True)
    Training(tmp_path, also={"counter": second})
    assert second.count == 7


def test_a_model_in_half_precision_comes_back_in_it(tmp_path: Path) -> None:
    first = torch.nn.Linear(3, 3).to(torch.bfloat16)
    outlast.Run(tmp_path, model=first).checkpoint(now=True)
    second = torch.nn.Linear(3, 3).to(torch.bfloat16)
    outlast.Run(tmp_path, model=second)
    assert torch.equal(first.weight, second.weight) and second.weight.dtype == torch.bfloat16


def test_what_does_not_verify_is_passed_over(tmp_path: Path) -> None:
    straight = Training(tmp_path / "straight").go(total=10)
    Training(tmp_path / "killed").go(total=10, die_after=8)
    flip_bit(tmp_path / "killed" / "step-6" / "optimizer.safetensors", 200)
    second = Training(tmp_path / "killed", seed=5).go(total=10)
    assert list(second.losses) == [4, 5, 6, 7, 8, 9, 10] and second.losses.items() <= straight.losses.items()


def test_when_nothing_verifies_it_does_not_start_afresh_in_silence(tmp_path: Path) -> None:
    Training(tmp_path).go(total=3)
    flip_bit(tmp_path / "step-3" / "model.safetensors", 200)
    with pytest.raises(NoWayBack):
        Training(tmp_path)


# Light and poor


def test_from_a_light_checkpoint_step_rate_and_schedule_go_on_and_the_loss_falls(tmp_path: Path) -> None:
    straight = Training(tmp_path / "straight").go(total=13)
    Training(tmp_path / "light").go(total=13, die_after=6)
    Vault(tmp_path / "light").lighten("step-6", "test")
    second = Training(tmp_path / "light").go(total=13)
    assert second.run.resumed is not None and second.run.resumed.kind == "light"
    assert list(second.losses) == list(range(7, 14)) and second.rates.items() <= straight.rates.items()
    assert second.optimizer.state_dict()["state"][0]["step"] == 13
    assert second.losses[7] == straight.losses[7], "weights, data and dropout of the next step are exact"


def test_light_saves_by_choice_are_a_third_of_the_bytes_also_the_last_one(tmp_path: Path) -> None:
    def build(root: Path, **options: Any) -> tuple[Any, outlast.Run]:
        torch.manual_seed(0)
        net = torch.nn.Sequential(*(torch.nn.Linear(256, 256) for _ in range(8)))
        run = outlast.Run(root, model=net, optimizer=torch.optim.AdamW(net.parameters()), every=3, **options)
        for _ in run.steps([torch.randn(2, 256)] * 4):
            run.step(torch.randn(2, 256), lambda batch: net(batch).pow(2).mean())
            run.checkpoint()
        return net, run

    _, full = build(tmp_path / "full")
    net, light = build(tmp_path / "light", save="light")
    assert [(c.step, c.kind) for c in light.vault.checkpoints()] == [(3, "light"), (4, "light")]
    sizes = [run.vault.checkpoints()[-1].bytes for run in (full, light)]
    assert 0.34 < sizes[1] / sizes[0] < 0.37, "docs/checkpoints.md says 35 %"
    again = outlast.Run(tmp_path / "light", model=net, optimizer=torch.optim.AdamW(net.parameters()))
    assert again.resumed is not None and (again.resumed.kind, again.steps_done) == ("light", 4)


def test_from_light_saves_by_choice_step_rate_and_the_next_loss_are_exact(tmp_path: Path) -> None:
    straight = Training(tmp_path / "straight").go(total=13)
    Training(tmp_path / "light", save="light").go(total=13, die_after=7)
    second = Training(tmp_path / "light", save="light", seed=5).go(total=13)
    assert second.run.resumed is not None and second.run.resumed.kind == "light"
    assert list(second.losses) == list(range(7, 14)) and second.rates.items() <= straight.rates.items()
    assert second.losses[7] == straight.losses[7]


def test_light_saves_follow_the_command_unless_the_script_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTLAST_SAVE", "light")
    for name, options, kind in (("a", {}, "light"), ("b", {"save": "full"}, "full")):
        sealed = Training(tmp_path / name, **options).go(total=3).run.vault.get("step-3")
        assert sealed.kind == kind


@pytest.mark.parametrize("options", [{"save": "light", "keep_exact": True}, {"save": "half"}])
def test_light_saves_with_an_exact_way_back_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="contradict|save is 'half'"):
        Training(tmp_path, **options)
    assert not (tmp_path / ".outlast").exists()


def test_an_optimizer_of_unknown_state_stays_full_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Own(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            super().step()
            for parameter in self.param_groups[0]["params"]:
                self.state[parameter]["codes"] = torch.zeros(parameter.shape, dtype=torch.uint8)

    Training(tmp_path, save="light", optimizer=lambda p: Own(p, lr=0.1)).go(total=3)
    assert Vault(tmp_path).get("step-3").kind == "full"
    assert "has no light form: they stay full" in capsys.readouterr().err


def test_an_optimizer_without_any_state_is_exact_too(tmp_path: Path) -> None:
    def sgd(parameters: Any) -> Any:
        return torch.optim.SGD(parameters, lr=0.1)

    straight = Training(tmp_path / "straight", optimizer=sgd).go(total=8)
    Training(tmp_path / "killed", optimizer=sgd).go(total=8, die_after=4)
    assert Training(tmp_path / "killed", optimizer=sgd).go(total=8).losses.items() <= straight.losses.items()


def test_a_model_alone_can_be_kept(tmp_path: Path) -> None:
    net = torch.nn.Linear(2, 2)
    sealed = outlast.Run(tmp_path, model=net).checkpoint(now=True)
    assert sealed is not None and sealed.kind == "full"


def test_a_full_checkpoint_is_light_once_its_optimizer_is_gone(tmp_path: Path) -> None:
    sealed = Training(tmp_path).go(total=3).run.vault.get("step-3")
    assert set(sealed.seal.kinds) == {"full", "light"}
    assert set(sealed.seal.kinds["full"]) - set(sealed.seal.kinds["light"]) == {"optimizer.safetensors"}


# When to save, and how long to train


def test_it_saves_when_due_and_at_the_end(tmp_path: Path) -> None:
    Training(tmp_path, every=4).go(total=10)
    assert [checkpoint.step for checkpoint in Vault(tmp_path).checkpoints()] == [4, 8, 10]


def test_without_a_number_of_steps_it_saves_at_the_end_alone(tmp_path: Path) -> None:
    Training(tmp_path, every=None).go(total=10)
    assert [checkpoint.step for checkpoint in Vault(tmp_path).checkpoints()] == [10]


def test_it_saves_by_the_clock_when_that_is_sooner(tmp_path: Path) -> None:
    Training(tmp_path, every=None, every_seconds=1e-9).go(total=3)
    Training(tmp_path / "slow", every=2, every_seconds=1e9).go(total=3)
    assert [checkpoint.step for checkpoint in Vault(tmp_path).checkpoints()] == [1, 2, 3]
    assert [checkpoint.step for checkpoint in Vault(tmp_path / "slow").checkpoints()] == [2, 3]


def test_a_save_that_is_not_due_is_none(tmp_path: Path) -> None:
    assert Training(tmp_path).run.checkpoint() is None


def test_retention_is_by_the_metrics_that_were_given(tmp_path: Path) -> None:
    training = Training(tmp_path, keep=Keep(last=1, best=1, metric="score", mode="max"))
    for number, score in enumerate((0.1, 0.9, 0.5, 0.2), 1):
        training.run.steps_done = number
        training.run.checkpoint(metrics={"score": score}, now=True)
    assert [checkpoint.name for checkpoint in Vault(tmp_path).checkpoints()] == ["step-2", "step-4"]


@pytest.mark.parametrize(
    ("asked", "steps"),
    [({}, 5), ({"epochs": 2}, 10), ({"total": 7}, 7), ({"epochs": 1, "total": 7}, 5), ({"epochs": 3, "total": 7}, 7)],
)
def test_it_ends_after_the_epochs_or_steps_that_were_asked_for(
    tmp_path: Path, asked: dict[str, int], steps: int
) -> None:
    run = outlast.Run(tmp_path, model=torch.nn.Linear(2, 2))
    assert sum(1 for _ in run.steps(shuffled(), **asked)) == steps == run.steps_done


def test_epochs_count_those_of_earlier_lives(tmp_path: Path) -> None:
    first = outlast.Run(tmp_path, model=torch.nn.Linear(2, 2))
    list(first.steps(shuffled(), epochs=1))
    second = outlast.Run(tmp_path, model=torch.nn.Linear(2, 2))
    assert sum(1 for _ in second.steps(shuffled(), epochs=3)) == 2 * STEPS_AN_EPOCH


# What is refused


def test_a_changed_batch_size_is_refused(tmp_path: Path) -> None:
    Training(tmp_path).go(total=3)
    with pytest.raises(BadInput, match="batches of 4, the loader gives 5") as caught:
        Training(tmp_path, loader=lambda: torch.utils.data.DataLoader(DATA, batch_size=5)).go(total=6)
    assert "never changes silently" in caught.value.hint


@pytest.mark.parametrize("parts", [{"scheduler": None}, {"also": {"more": torch.nn.Linear(1, 1)}}])
def test_changed_parts_are_refused(tmp_path: Path, parts: dict[str, Any]) -> None:
    Training(tmp_path).go(total=3)
    with pytest.raises(BadInput, match="the checkpoint holds"):
        Training(tmp_path, **parts)


@pytest.mark.parametrize("times", [{"every": 0}, {"every": -1}, {"every_seconds": 0}, {"every_seconds": -2.0}])
def test_times_that_cannot_be_kept_are_refused(tmp_path: Path, times: dict[str, float]) -> None:
    with pytest.raises(BadInput, match="every"):
        Training(tmp_path, **times)


def test_an_iterator_that_can_be_gone_through_once_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    run = outlast.Run(tmp_path, model=torch.nn.Linear(2, 2))
    with pytest.raises(BadInput, match="gave no batch"):
        list(run.steps(iter([1, 2]), epochs=2))


def test_a_part_whose_state_has_no_safe_form_is_named(tmp_path: Path) -> None:
    class Odd:
        def state_dict(self) -> dict[str, Any]:
            return {"hook": print}

        def load_state_dict(self, state: dict[str, Any]) -> None: ...

    training = Training(tmp_path, also={"odd": Odd()})
    with pytest.raises(BadInput, match=r"\['odd'\]\['hook'\] is a builtin_function"):
        training.run.checkpoint(now=True)
    assert Vault(tmp_path).checkpoints() == []


def test_nothing_in_a_checkpoint_is_pickled(tmp_path: Path) -> None:
    Training(tmp_path).go(total=3)
    suffixes = {path.suffix for path in (tmp_path / "step-3").iterdir()}
    assert suffixes == {".safetensors", ".json"}
