"""`Run.step`: when memory runs out the same batch goes in pieces, and the gradient is that of the whole."""

from __future__ import annotations

import gc
import random
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from tests.train.short_memory import MESSAGE, Short, quick_collections, tensors_of
from torch.nn.functional import cross_entropy

import outlast
from outlast import journal
from outlast.errors import BadInput, DoesNotFit

EXACT = 1e-12
PADDED = -100


@pytest.fixture(scope="module", autouse=True)
def _quickly() -> Any:
    with quick_collections():
        yield


@pytest.fixture(autouse=True)
def _in_double_precision() -> Any:
    threads = torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    yield
    torch.set_default_dtype(torch.float32)
    torch.set_num_threads(threads)


class Training:
    """A small model whose memory is short, and its Run."""

    def __init__(
        self,
        root: Path,
        room: Callable[[], int] | int = 10**9,
        where: str = "forward",
        *,
        dropout: float = 0.0,
        error: Callable[[], BaseException] = lambda: torch.OutOfMemoryError(MESSAGE),
        seed: int = 0,
        **options: Any,
    ) -> None:
        torch.manual_seed(seed)
        self.short = Short(room if callable(room) else lambda: room, where, error)
        self.model = torch.nn.Sequential(
            torch.nn.Embedding(20, 8), torch.nn.Dropout(dropout), torch.nn.Linear(8, 16), self.short,
            torch.nn.Tanh(), torch.nn.LayerNorm(16), torch.nn.Dropout(dropout), torch.nn.Linear(16, 20),
        )  # fmt: skip
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.5)
        self.run = outlast.Run(root, model=self.model, optimizer=self.optimizer, every=None, **options)

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Mean over the tokens that are not padding."""
        return cross_entropy(self.model(batch["ids"]).flatten(0, 1), batch["labels"].flatten(), ignore_index=PADDED)

    def loss_of_samples(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Mean over the samples of their sums."""
        logits, labels = self.model(batch["ids"]), batch["labels"]
        return cross_entropy(logits.mT, labels, ignore_index=PADDED, reduction="none").sum(1).mean()

    def step(self, batch: dict[str, torch.Tensor], **options: Any) -> float:
        return float(self.run.step(batch, self.loss, **{"mean_over": "tokens", **options}))

    def gradients(self) -> list[torch.Tensor]:
        return [parameter.grad.clone() for parameter in self.model.parameters() if parameter.grad is not None]

    def weights(self) -> torch.Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in self.model.parameters()])

    def events(self, name: str) -> list[journal.Event]:
        root = self.run.vault.root
        return [event for run in journal.runs(root) for event in journal.read(root, run) if event.name == name]


def text(samples: int, length: int = 6, seed: int = 3) -> dict[str, torch.Tensor]:
    """Sequences of which each has another number of tokens; the last has none that counts."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 20, (samples, length), generator=generator)
    labels = torch.randint(0, 20, (samples, length), generator=generator)
    for row in range(samples):
        labels[row, 1 + row % length :] = PADDED
    if samples > 1:
        labels[-1] = PADDED
    return {"ids": ids, "labels": labels}


def far(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    assert len(ours) == len(theirs) > 0
    return max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))


# The gradient is that of the whole batch


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("room", [100, 8, 4, 2, 1], ids=lambda room: f"room for {room}")
@pytest.mark.parametrize("samples", [16, 13], ids=["16 samples", "ragged"])
def test_loss_gradient_and_weights_are_those_of_the_whole_batch(
    tmp_path: Path, room: int, samples: int, where: str
) -> None:
    whole, pieces = Training(tmp_path / "a"), Training(tmp_path / "b", room, where)
    batch = text(samples)
    assert abs(pieces.step(batch) - whole.step(batch)) < EXACT
    assert far(pieces.gradients(), whole.gradients()) < EXACT
    assert float((pieces.weights() - whole.weights()).abs().max()) < EXACT
    assert pieces.short.failed == (room < samples) * ((samples + room - 1) // room - 1).bit_length()


@pytest.mark.parametrize("room", [7, 3, 1])
def test_a_mean_over_samples_is_weighted_by_samples(tmp_path: Path, room: int) -> None:
    whole, pieces = Training(tmp_path / "a"), Training(tmp_path / "b", room)
    batch = text(13)
    losses = [float(one.run.step(batch, one.loss_of_samples)) for one in (whole, pieces)]
    assert abs(losses[0] - losses[1]) < EXACT and far(pieces.gradients(), whole.gradients()) < EXACT


def test_a_mean_over_tokens_weighted_by_samples_would_be_wrong(tmp_path: Path) -> None:
    """The tests above can tell one weighting from the other."""
    whole, pieces = Training(tmp_path / "a"), Training(tmp_path / "b", 4)
    whole.step(text(13)), pieces.step(text(13), mean_over="samples")
    assert far(pieces.gradients(), whole.gradients()) > 1e-3


def test_what_a_mean_is_over_can_be_counted_by_the_user_or_be_nothing(tmp_path: Path) -> None:
    whole, counted, summed = (Training(tmp_path / str(n), room) for n, room in enumerate((100, 3, 3)))
    batch = text(11)
    whole.step(batch)
    counted.step(batch, mean_over=lambda part: int((part["labels"] != PADDED).sum()))
    total = int((batch["labels"] != PADDED).sum())

    def of_sum(part: dict[str, torch.Tensor]) -> torch.Tensor:
        logits = summed.model(part["ids"]).flatten(0, 1)
        return cross_entropy(logits, part["labels"].flatten(), ignore_index=PADDED, reduction="sum") / total

    summed.run.step(batch, of_sum, mean_over="sum")
    assert far(counted.gradients(), whole.gradients()) < EXACT
    assert far(summed.gradients(), whole.gradients()) < EXACT


def test_a_model_that_shifts_its_labels_is_weighted_by_the_tokens_it_predicts(tmp_path: Path) -> None:
    whole, pieces = Training(tmp_path / "a"), Training(tmp_path / "b", 2)

    def shifted(training: Training) -> Callable[[Any], torch.Tensor]:
        def loss(batch: dict[str, torch.Tensor]) -> torch.Tensor:
            logits, labels = training.model(batch["ids"])[:, :-1], batch["labels"][:, 1:]
            return cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=PADDED)

        return loss

    for one in (whole, pieces):
        one.run.step(text(9), shifted(one), mean_over="next_tokens")
    assert far(pieces.gradients(), whole.gradients()) < EXACT


def test_a_batch_in_which_nothing_counts_is_no_number_split_or_not(tmp_path: Path) -> None:
    batch = text(8)
    batch["labels"][:] = PADDED
    losses = [Training(tmp_path / str(room), room).step(batch) for room in (100, 2)]
    assert all(loss != loss for loss in losses)


def test_fifty_steps_with_memory_running_out_at_ten_have_the_same_losses(tmp_path: Path) -> None:
    short = random.Random(5).sample(range(50), 10)
    now = [0]
    pieces = Training(tmp_path / "b", lambda: 3 if now[0] in short else 100, "backward")
    whole = Training(tmp_path / "a")
    for number in range(50):
        now[0], batch = number, text(8, seed=number)
        assert abs(pieces.step(batch) - whole.step(batch)) < 1e-10
    assert pieces.short.failed > 0


# Random state


def test_with_dropout_each_split_is_the_same_again_to_the_bit(tmp_path: Path) -> None:
    """Masks are drawn for each piece: the same split is the same step, another split other masks of the same kind."""
    first, second, other = (Training(tmp_path / str(n), room, dropout=0.5) for n, room in enumerate((4, 4, 2)))
    for one in (first, second, other):
        torch.manual_seed(9)
        one.step(text(16))
    assert torch.equal(first.weights(), second.weights())
    assert not torch.equal(first.weights(), other.weights())


def test_a_step_that_ran_out_is_the_one_that_was_split_from_the_start(tmp_path: Path) -> None:
    """Nothing of the failed tries is left in the random state: not in torch's, Python's or numpy's."""
    failed, planned = Training(tmp_path / "a", 4, dropout=0.5), Training(tmp_path / "b", dropout=0.5)
    drawn = []

    def with_noise(training: Training) -> Callable[[Any], torch.Tensor]:
        return lambda batch: training.loss(batch) * (1 + random.random() + numpy.random.rand())

    for one, options in ((failed, {}), (planned, {"micro_batch": 4})):
        torch.manual_seed(9), random.seed(9), numpy.random.seed(9)
        loss = one.run.step(text(16), with_noise(one), mean_over="tokens", **options)
        drawn.append((float(loss), float(torch.rand(1)), random.random(), float(numpy.random.rand())))
    assert drawn[0] == drawn[1] and torch.equal(failed.weights(), planned.weights())
    assert failed.short.failed == 2 and planned.short.failed == 0


def test_the_mean_gradient_under_dropout_is_that_of_the_whole_batch(tmp_path: Path) -> None:
    """What can be promised of masks that are drawn anew: the same expectation."""
    means = []
    for room in (100, 2):
        one = Training(tmp_path / str(room), room, dropout=0.3)
        one.optimizer.param_groups[0]["lr"] = 0.0
        torch.manual_seed(1)
        total = [torch.zeros_like(p) for p in one.model.parameters()]
        for _ in range(200):
            one.step(text(4, 3))
            total = [a + b / 200 for a, b in zip(total, one.gradients(), strict=True)]
        means.append(torch.cat([part.flatten() for part in total]))
    assert float((means[0] - means[1]).norm() / means[0].norm()) < 0.15


# What it leaves behind


def test_nothing_of_a_failed_try_is_held_when_the_next_begins(tmp_path: Path) -> None:
    held: list[int] = []

    def loss(batch: list[torch.Tensor]) -> torch.Tensor:
        if len(batch[0]) < 8:
            held.append(tensors_of((8, 6, 16)))
        hidden = training.model[2](training.model[0](batch[0]))
        return training.model[4:](training.short(hidden)).pow(2).mean()

    for where in ("forward", "backward"):
        training = Training(tmp_path / where, 4, where)
        training.run.step([text(8)["ids"]], loss)
    assert held == [0] * 4


@pytest.mark.parametrize("room", [100, 4])
def test_a_batch_that_is_done_is_not_held(tmp_path: Path, room: int) -> None:
    training, batch = Training(tmp_path, room), text(8)
    training.step(batch)
    kept = weakref.ref(batch["ids"])
    del batch
    gc.collect()
    assert kept() is None


def test_an_error_that_was_being_handled_keeps_its_frames(tmp_path: Path) -> None:
    training = Training(tmp_path, 4)
    try:
        raise ValueError("outer")
    except ValueError as outer:
        training.step(text(8))
        assert outer.__traceback__ is not None


@pytest.mark.parametrize(
    "error",
    [
        lambda: RuntimeError("CUDA error: out of memory"),
        lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        lambda: RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you"),
        lambda: RuntimeError("HIP out of memory. Tried to allocate 20.00 MiB"),
        lambda: torch.cuda.OutOfMemoryError(MESSAGE),
    ],
)
def test_what_libraries_say_when_memory_is_out_is_understood(tmp_path: Path, error: Any) -> None:
    training = Training(tmp_path, 4, error=error)
    training.step(text(8))
    assert training.short.failed == 1


@pytest.mark.parametrize(
    "error",
    [lambda: RuntimeError("CUDA error: an illegal memory access was encountered"), lambda: ValueError(MESSAGE),
     lambda: MemoryError("host")],
)  # fmt: skip
def test_another_error_goes_through_as_it_is(tmp_path: Path, error: Any) -> None:
    training = Training(tmp_path, 4, error=error)
    with pytest.raises(type(error())):
        training.step(text(8))
    assert training.short.failed == 1 and training.events("batch_split") == []


# What it remembers


def test_the_size_that_worked_is_used_from_then_on(tmp_path: Path) -> None:
    training = Training(tmp_path, 4)
    training.step(text(16))
    training.short.seen.clear()
    for _ in range(3):
        training.step(text(16))
    assert training.short.seen == [4] * 12 and training.short.failed == 2


def test_when_room_came_back_it_grows_again_and_says_so(tmp_path: Path) -> None:
    room = [4]
    training = Training(tmp_path, lambda: room[0])
    for _ in range(5):
        training.step(text(16))
    room[0] = 16
    for _ in range(70):
        training.step(text(16))
    assert training.short.seen[-1] == 16 and training.short.failed == 2
    assert [event.get("micro_batch") for event in training.events("batch_grown")] == [8, 16]


def test_a_resumed_run_goes_on_with_the_size_that_worked_to_the_bit(tmp_path: Path) -> None:
    straight = Training(tmp_path / "straight", 4, dropout=0.2)
    losses = [straight.step(text(16, seed=n)) for n in range(40)]
    first = Training(tmp_path / "killed", 4, dropout=0.2)
    early = []
    for batch in first.run.steps([text(16, seed=n) for n in range(40)], total=21):
        early.append(first.step(batch))
    second = Training(tmp_path / "killed", 4, dropout=0.2, seed=8)
    late = [second.step(batch) for batch in second.run.steps([text(16, seed=n) for n in range(40)], total=40)]
    assert early + late == losses
    assert second.short.failed == 1, "the larger try that was due, and no other"


def test_each_split_is_in_the_journal_with_the_effective_batch(tmp_path: Path) -> None:
    training = Training(tmp_path, 4, "backward")
    training.step(text(13))
    facts = [dict(event.facts) for event in training.events("batch_split")]
    assert [fact["pieces"] for fact in facts] == [[7, 6], [4, 3, 3, 3]]
    assert facts[1] == {
        "step": 0, "samples": 13, "effective_batch": 13, "pieces": [4, 3, 3, 3], "micro_batch": 4,
        "where": "backward", "reason": MESSAGE,
    }  # fmt: skip


# What the step moves


def test_it_is_the_loop_that_one_would_write(tmp_path: Path) -> None:
    ours, theirs = Training(tmp_path / "a"), Training(tmp_path / "b")
    schedules = [torch.optim.lr_scheduler.StepLR(one.optimizer, 2, 0.5) for one in (ours, theirs)]
    run = outlast.Run(tmp_path / "c", model=ours.model, optimizer=ours.optimizer, scheduler=schedules[0])
    for number in range(6):
        batch = text(8, seed=number)
        ours_loss = run.step(batch, ours.loss, mean_over="tokens", clip_norm=0.1)
        theirs.optimizer.zero_grad()
        loss = theirs.loss(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.model.parameters(), 0.1)
        theirs.optimizer.step()
        schedules[1].step()
        assert float(ours_loss) == loss.item() and not ours_loss.requires_grad
    assert torch.equal(ours.weights(), theirs.weights())
    assert schedules[0].get_last_lr() == schedules[1].get_last_lr()


def test_with_a_scaler_a_step_of_infinite_gradients_moves_neither_weights_nor_schedule(tmp_path: Path) -> None:
    training = Training(tmp_path / "a")
    scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    schedule = torch.optim.lr_scheduler.StepLR(training.optimizer, 1, 0.5)
    run = outlast.Run(
        tmp_path / "b", model=training.model, optimizer=training.optimizer, scheduler=schedule, scaler=scaler
    )
    before = training.weights()
    run.step(text(8), lambda batch: training.loss(batch) * float("inf"))
    assert torch.equal(training.weights(), before) and schedule.last_epoch == 0 and scaler.get_scale() == 8.0
    plain = Training(tmp_path / "c", 3)
    run.step(text(8), training.loss, mean_over="tokens", clip_norm=0.1)
    plain.step(text(8), clip_norm=0.1)
    assert schedule.last_epoch == 1 and float((training.weights() - plain.weights()).abs().max()) < EXACT


def test_a_cap_of_the_users_is_accumulation_without_running_out(tmp_path: Path) -> None:
    whole, capped = Training(tmp_path / "a"), Training(tmp_path / "b")
    whole.step(text(16)), capped.step(text(16), micro_batch=5)
    assert capped.short.seen == [4, 4, 4, 4] and far(capped.gradients(), whole.gradients()) < EXACT


def test_an_object_is_cut_by_the_users_own_function(tmp_path: Path) -> None:
    class Graphs:
        def __init__(self, ids: torch.Tensor) -> None:
            self.ids = ids

    whole, pieces = Training(tmp_path / "a"), Training(tmp_path / "b", 3)
    for one in (whole, pieces):
        one.run.step(
            Graphs(text(8)["ids"]), lambda batch, one=one: one.model(batch.ids).pow(2).mean(),
            samples=8, split=lambda batch, start, stop: Graphs(batch.ids[start:stop]),
        )  # fmt: skip
    assert far(pieces.gradients(), whole.gradients()) < EXACT and pieces.short.seen == [8, 4, 2, 2, 2, 2]


# What it refuses


def test_a_single_sample_that_does_not_fit_says_what_would_help(tmp_path: Path) -> None:
    training = Training(tmp_path, 0)
    before = training.weights()
    with pytest.raises(DoesNotFit, match="a single sample does not fit the memory .CUDA out of memory") as caught:
        training.step(text(4, 50))
    for what in ("bf16", "activation checkpointing", "shorter sequences (now 50)", "LoRA"):
        assert what in caught.value.hint
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError) and isinstance(caught.value, MemoryError)
    assert training.gradients() == [] and torch.equal(training.weights(), before)
    assert len(training.events("batch_does_not_fit")) == 1


def test_a_batch_that_cannot_be_split_says_how_it_could(tmp_path: Path) -> None:
    training = Training(tmp_path, 4)
    batch = {**text(8), "weights": torch.ones(20)}
    with pytest.raises(DoesNotFit, match=r"do not share a first dimension: .*batch.weights \(20,\)") as caught:
        training.step(batch)
    assert "split=lambda batch, start, stop" in caught.value.hint


def test_a_batch_that_cannot_be_split_is_trained_on_while_it_fits(tmp_path: Path) -> None:
    assert Training(tmp_path).step({**text(8), "weights": torch.ones(20)}) > 0


def test_an_optimizer_whose_state_does_not_fit_is_told_apart(tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.optimizer.register_step_pre_hook(lambda *_: training.short.fail())
    with pytest.raises(DoesNotFit, match="the optimizer's own state did not") as caught:
        training.step(text(8))
    assert "activation" not in caught.value.hint


@pytest.mark.parametrize(
    ("options", "what"),
    [({"mean_over": "words"}, "mean_over is 'words'"), ({"micro_batch": 0}, "micro_batch is 0"),
     ({"samples": 8}, "samples is 8, split is None"), ({"split": lambda *_: _}, "samples is None")],
)  # fmt: skip
def test_arguments_that_mean_nothing_are_refused(tmp_path: Path, options: dict[str, Any], what: str) -> None:
    with pytest.raises(BadInput, match=what):
        Training(tmp_path).step(text(8), **options)


@pytest.mark.parametrize("loss", [lambda _: 1.0, lambda _: torch.ones(3, requires_grad=True) * 2])
def test_a_loss_that_is_not_one_number_is_refused(tmp_path: Path, loss: Any) -> None:
    with pytest.raises(BadInput, match="loss_fn returned a"):
        Training(tmp_path).run.step(text(8), loss)


def test_a_run_without_an_optimizer_cannot_step(tmp_path: Path) -> None:
    run = outlast.Run(tmp_path, model=torch.nn.Linear(2, 2))
    with pytest.raises(BadInput, match="no optimizer"):
        run.step(torch.ones(2, 2), lambda batch: run.model(batch).sum())
