"""The Trainer's steps when memory runs out: split, with the loss curve of a run that had enough."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tests.train.short_memory import MESSAGE, Short, quick_collections

from outlast import journal
from outlast.checkpoints import Vault, seal
from outlast.errors import DoesNotFit
from outlast.integrations.transformers import OutlastCallback
from outlast.integrations.transformers.step import NOTE

CLOSE = 2e-5
PADDED = -100
Room = Callable[[], int]


@pytest.fixture(scope="module", autouse=True)
def _quickly() -> Any:
    with quick_collections():
        yield


class Text(torch.utils.data.Dataset):
    """Sequences of different lengths: what a mean is over differs from sample to sample."""

    def __init__(self, labels: str = "tokens") -> None:
        generator = torch.Generator().manual_seed(0)
        self.rows = torch.randint(2, 64, (200, 12), generator=generator)
        self.lengths = torch.randint(2, 13, (200,), generator=generator)
        self.labels = labels

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids, mask = self.rows[index].clone(), (torch.arange(12) < self.lengths[index]).long()
        ids[mask == 0] = 0
        labels = ids.masked_fill(mask == 0, PADDED) if self.labels == "tokens" else ids[0] % 2
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def shorten(model: Any, room: Room, where: str) -> Short:
    """Let a model's embedding run out of memory."""
    short = Short(room, where)
    embedding = model.get_input_embeddings()
    model.set_input_embeddings(torch.nn.Sequential(embedding, short))
    return short


def gpt2(room: Room, where: str) -> tuple[Any, Short]:
    torch.manual_seed(1)
    config = transformers.GPT2Config(
        vocab_size=64, n_positions=16, n_embd=16, n_layer=1, n_head=2, tie_word_embeddings=False,
        attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0, bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config)
    return model, shorten(model, room, where)


def bert_classifier(room: Room, where: str) -> tuple[Any, Short]:
    """Takes num_items_in_batch, and its loss is a mean all the same."""
    torch.manual_seed(1)
    config = transformers.BertConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config)
    return model, shorten(model, room, where)


class TokenMean(torch.nn.Module):
    """A model of one's own whose loss is a mean over tokens, and which takes no count."""

    def __init__(self, room: Room, where: str) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embedding, self.short = torch.nn.Embedding(64, 8), Short(room, where)
        self.out = torch.nn.Linear(8, 64)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor) -> dict[str, Any]:
        logits = self.out(self.short(self.embedding(input_ids)))
        return {"loss": torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()), "logits": logits}


def token_mean(room: Room, where: str) -> tuple[Any, Short]:
    model = TokenMean(room, where)
    return model, model.short


class Losses(transformers.TrainerCallback):
    """Keeps what was logged, and counts steps for the memory."""

    def __init__(self, now: list[int]) -> None:
        self.seen: dict[int, float] = {}
        self.norms: dict[int, float] = {}
        self.now = now

    def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        self.now[0] = state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        if "loss" in (logs or {}):
            self.seen[state.global_step] = logs["loss"]
            self.norms[state.global_step] = logs["grad_norm"]


class Training:
    """A Trainer in a folder, with a device on which memory may be short."""

    def __init__(
        self,
        folder: Path,
        build: Any = gpt2,
        room: Callable[[int], int] = lambda step: 10**9,
        where: str = "forward",
        *,
        kind: Any = transformers.Trainer,
        labels: str = "tokens",
        guarded: bool = True,
        **options: Any,
    ) -> None:
        self.folder, now = folder, [0]
        self.losses = Losses(now)
        self.model, self.short = build(lambda: room(now[0]), where)
        defaults = {
            "max_steps": 10, "per_device_train_batch_size": 8, "learning_rate": 0.1, "logging_steps": 1,
            "report_to": [], "disable_tqdm": True, "use_cpu": True, "dataloader_pin_memory": False, "seed": 3,
            "save_strategy": "no", "lr_scheduler_type": "constant", "max_grad_norm": 1.0,
            "optim": "sgd",
        }  # fmt: skip
        self.trainer = kind(
            model=self.model,
            args=transformers.TrainingArguments(str(folder), **{**defaults, **options}),
            train_dataset=Text(labels),
            callbacks=[*([OutlastCallback()] if guarded else []), self.losses],
        )
        self.trainer.remove_callback(transformers.PrinterCallback)

    def train(self, **options: Any) -> Training:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            self.trainer.train(**options)
        finally:
            torch.set_num_threads(threads)
        return self

    def weights(self) -> torch.Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in self.model.parameters()])

    def events(self, name: str) -> list[journal.Event]:
        runs = journal.runs(self.folder)
        return [event for run in runs for event in journal.read(self.folder, run) if event.name == name]


def same(ours: Training, theirs: Training) -> None:
    assert ours.losses.seen.keys() == theirs.losses.seen.keys()
    for step, loss in theirs.losses.seen.items():
        assert abs(ours.losses.seen[step] - loss) < CLOSE, step
        assert abs(ours.losses.norms[step] - theirs.losses.norms[step]) < 10 * CLOSE * max(1, loss), step
    assert float((ours.weights() - theirs.weights()).abs().max()) < 1e-3


@pytest.mark.parametrize(("accumulation", "where"), [(1, "forward"), (3, "backward")])
@pytest.mark.parametrize(
    ("build", "labels"),
    [(gpt2, "tokens"), (bert_classifier, "classes"), (token_mean, "tokens")],
    ids=["a sum over the count of tokens", "a mean that ignores the count", "a mean over tokens"],
)
def test_losses_and_gradient_norms_are_those_of_a_run_with_enough_memory(
    tmp_path: Path, build: Any, labels: str, accumulation: int, where: str
) -> None:
    options = {"labels": labels, "gradient_accumulation_steps": accumulation, "max_steps": 6}
    whole = Training(tmp_path / "a", build, **options).train()
    pieces = Training(tmp_path / "b", build, lambda step: 3 if step > 1 else 100, where, **options).train()
    same(pieces, whole)
    assert pieces.short.failed == 2 and pieces.short.seen.count(2) >= 4 * accumulation * 4
    assert whole.events("batch_split") == []


def test_fifty_steps_with_memory_running_out_at_ten_have_the_same_losses(tmp_path: Path) -> None:
    short = random.Random(11).sample(range(50), 10)
    options = {"max_steps": 50, "optim": "adamw_torch", "learning_rate": 0.003, "adam_epsilon": 1e-4}
    whole = Training(tmp_path / "a", **options).train()
    pieces = Training(tmp_path / "b", room=lambda step: 3 if step in short else 8, **options).train()
    same(pieces, whole)
    assert pieces.short.failed > 1


def test_a_batch_in_the_middle_of_an_accumulation_undoes_and_repeats_those_before_it(tmp_path: Path) -> None:
    """Its backward has added to their gradient already: all of the window is computed again, nothing counts twice."""
    forwards = [0]

    def room(step: int) -> int:
        forwards[0] += 1
        return 3 if step == 1 and forwards[0] in (6, 7) else 100  # the second batch of the second step

    options = {"gradient_accumulation_steps": 4, "max_steps": 3}
    whole = Training(tmp_path / "a", **options).train()
    pieces = Training(tmp_path / "b", room=room, where="backward", **options).train()
    same(pieces, whole)
    assert pieces.short.seen[4:14] == [8, 8, 8, 1, 1, 2, 4, 4, 4, 4], "failed; again, failed; asked; both in halves"


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_label_smoothing_and_a_loss_function_of_the_users_are_split_rightly(tmp_path: Path, smoothing: float) -> None:
    def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        logits = outputs["logits"].flatten(0, 1)
        total = torch.nn.functional.cross_entropy(logits, labels.flatten(), reduction="sum")
        return total / num_items_in_batch

    class WithLoss(transformers.Trainer):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options, compute_loss_func=None if smoothing else loss)

    options = {"kind": WithLoss, "label_smoothing_factor": smoothing, "max_steps": 4}
    whole = Training(tmp_path / "a", **options).train()
    pieces = Training(tmp_path / "b", room=lambda step: 2, where="backward", **options).train()
    same(pieces, whole)


class Unshifted(transformers.Trainer):
    """A loss of one's own: a mean over all labels, where Transformers says that the model shifts them."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels = inputs.pop("labels")
        logits = model(**inputs).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return (loss, logits) if return_outputs else loss


class OfSamples(transformers.Trainer):
    """A mean over samples of sums over tokens."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        labels = inputs.pop("labels")
        logits = model(**inputs).logits
        return torch.nn.functional.cross_entropy(logits.mT, labels, reduction="none").sum(1).mean()


class Comparing(transformers.Trainer):
    """Each sample against the others of its batch."""

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        inputs.pop("labels")
        vectors = model(**inputs).logits.mean(1)
        return torch.nn.functional.cross_entropy(vectors @ vectors.T, torch.arange(len(vectors)))


@pytest.mark.parametrize("kind", [Unshifted, OfSamples])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_loss_of_the_users_own_is_asked_what_it_is_a_mean_of(tmp_path: Path, kind: Any, accumulation: int) -> None:
    options = {"kind": kind, "max_steps": 4, "gradient_accumulation_steps": accumulation}
    whole = Training(tmp_path / "a", **options).train()
    pieces = Training(tmp_path / "b", room=lambda step: 3, **options).train()
    same(pieces, whole)


def test_a_loss_that_compares_the_samples_of_a_batch_is_not_split(tmp_path: Path) -> None:
    with pytest.raises(DoesNotFit, match="the loss of two samples together is not made of theirs") as caught:
        Training(tmp_path, room=lambda step: 4, kind=Comparing).train()
    assert "per_device_train_batch_size" in caught.value.hint


def test_the_step_after_an_interruption_goes_on_with_the_size_that_worked(tmp_path: Path) -> None:
    options = {"room": lambda step: 3, "save_strategy": "steps", "save_steps": 4, "max_steps": 8}
    straight = Training(tmp_path / "a", **options).train()
    Training(tmp_path / "b", **{**options, "max_steps": 4}).train()
    note = seal.read(tmp_path / "b" / "checkpoint-4").notes[NOTE]
    assert note == {"fits": 72, "fails": 144, "held": 3, "wait": 32}
    second = Training(tmp_path / "b", **options).train(resume_from_checkpoint=True)
    assert second.short.failed == 0 and set(second.short.seen) <= {1, 2}
    assert second.losses.seen.items() <= straight.losses.seen.items()
    assert [checkpoint.step for checkpoint in Vault(tmp_path / "b").checkpoints()] == [4, 8]


def test_each_split_is_in_the_journal_with_the_effective_batch(tmp_path: Path) -> None:
    training = Training(tmp_path, room=lambda step: 4, gradient_accumulation_steps=2, max_steps=2).train()
    facts = [dict(event.facts) for event in training.events("batch_split")]
    assert facts == [
        {"step": 1, "effective_batch": 16, "samples": 8, "pieces": [4, 4], "micro_batch": 4, "where": "forward",
         "reason": MESSAGE}
    ]  # fmt: skip


def test_a_single_sample_that_does_not_fit_names_the_arguments_that_help(tmp_path: Path) -> None:
    training = Training(tmp_path, room=lambda step: 0, optim="adamw_torch")
    with pytest.raises(DoesNotFit, match="a single sample does not fit") as caught:
        training.train()
    for what in ("bf16=True", "gradient_checkpointing=True", "max_length below 12", "adafactor"):
        assert what in caught.value.hint
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)


def test_a_batch_that_cannot_be_split_names_the_arguments_that_can(tmp_path: Path) -> None:
    training = Training(tmp_path, token_mean, room=lambda step: 4)
    collate = training.trainer.data_collator
    training.trainer.data_collator = lambda rows: {**collate(rows), "labels": collate(rows)["labels"].flatten()}
    with pytest.raises(DoesNotFit, match="do not share a first dimension") as caught:
        training.train()
    assert "per_device_train_batch_size" in caught.value.hint and "run.step" not in caught.value.hint


def test_a_trainer_that_is_not_guarded_meets_its_error_as_it_is(tmp_path: Path) -> None:
    OutlastCallback()  # installs the wrappers
    with pytest.raises(torch.OutOfMemoryError):
        Training(tmp_path, room=lambda step: 4, guarded=False).train()


def test_the_trainers_own_search_for_a_batch_size_has_nothing_left_to_do(tmp_path: Path) -> None:
    training = Training(tmp_path, room=lambda step: 3, auto_find_batch_size=True, max_steps=4).train()
    assert training.trainer._train_batch_size == 8 and list(training.losses.seen) == [1, 2, 3, 4]
