"""Rows and their loader in Transformers' Trainer and in Lightning: each row once an epoch, exact after a resume."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
import transformers
from tests.data.parquets import make_rows

from outlast import data

ROWS, BATCH = 96, 8
STEPS = ROWS // BATCH


@pytest.fixture
def rows(tmp_path: Path) -> data.Rows:
    return data.open(make_rows(tmp_path / "rows", ROWS), columns=["id"], shuffle=True, seed=5, window=1000)


def expected(rows: data.Rows, epochs: int) -> list[list[int]]:
    flat = [row["id"] for epoch in range(epochs) for row in rows.epoch(epoch)]
    return [flat[at : at + BATCH] for at in range(0, len(flat), BATCH)]


class Seeing(torch.nn.Module):
    """A model that remembers the rows of each step."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[list[int]] = []

    def forward(self, id: torch.Tensor) -> dict[str, torch.Tensor]:
        self.seen.append(id.tolist())
        return {"loss": (self.weight * id.float()).mean() * 0}


def trained(rows: Any, out: Path, **options: Any) -> list[list[int]]:
    resume = options.pop("resume", None)
    arguments = transformers.TrainingArguments(
        str(out), per_device_train_batch_size=BATCH, report_to=[], disable_tqdm=True, use_cpu=True,
        remove_unused_columns=False, dataloader_pin_memory=False, logging_strategy="no",
        **{"num_train_epochs": 2, "save_strategy": "steps", "save_steps": 15} | options,
    )  # fmt: skip
    model = Seeing()
    transformers.Trainer(model, arguments, train_dataset=rows).train(resume_from_checkpoint=resume)
    return model.seen


def test_trainer_reads_rows_in_their_epochs_orders_and_goes_on_in_them(rows: data.Rows, tmp_path: Path) -> None:
    out, options = tmp_path / "out", {"train_sampling_strategy": "sequential"}
    straight = trained(rows, out, **options)
    assert straight == expected(rows, 2)
    rows.set_epoch(0)
    assert trained(rows, out, resume=str(out / "checkpoint-15"), **options) == straight[15:]


def test_trainer_takes_rows_with_its_own_sampler_too(rows: data.Rows, tmp_path: Path) -> None:
    # Not shuffled a second time: of two orders Accelerate puts back its own alone.
    out, rows = tmp_path / "out", data.open(tmp_path / "rows", columns=["id"])
    straight = trained(rows, out)
    assert sorted(sum(straight[:STEPS], [])) == list(range(ROWS))
    assert trained(rows, out, resume=str(out / "checkpoint-15")) == straight[15:]


def test_trainer_takes_the_iterable_form(rows: data.Rows, tmp_path: Path) -> None:
    stream = rows.stream(BATCH, rank=0, world=1)
    assert trained(stream, tmp_path / "out", dataloader_num_workers=2) == expected(rows, 2)


class Module(lightning.LightningModule):
    def __init__(self, seen: list[list[int]], die_at: int | None = None) -> None:
        super().__init__()
        self.net, self.seen, self.die_at = Seeing(), seen, die_at

    def training_step(self, batch: dict[str, torch.Tensor], number: int) -> torch.Tensor:
        if self.global_step == self.die_at:
            raise InterruptedError
        self.seen.append(batch["id"].tolist())
        return self.net(batch["id"])["loss"]

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.fixture
def quiet() -> Iterator[None]:
    os.environ["PL_DISABLE_FORK"] = "1"
    yield
    del os.environ["PL_DISABLE_FORK"]


def fitted(rows: data.Rows, root: Path, workers: int, die_at: int | None = None, **options: Any) -> list[list[int]]:
    keep = lightning.pytorch.callbacks.ModelCheckpoint(root, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    trainer = lightning.Trainer(
        accelerator="cpu", max_epochs=2, logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[keep], default_root_dir=root,
    )  # fmt: skip
    seen: list[list[int]] = []
    with suppress(InterruptedError):
        trainer.fit(Module(seen, die_at), rows.loader(BATCH, workers=workers), **options)
    return seen


@pytest.mark.usefixtures("quiet")
@pytest.mark.filterwarnings("ignore")  # Lightning's own, of its loggers and of torch
def test_lightning_goes_on_with_the_next_batch_also_with_other_workers(rows: data.Rows, tmp_path: Path) -> None:
    before = fitted(rows, tmp_path, 0, die_at=20)
    for step, workers in ((1, 0), (STEPS - 1, 0), (STEPS, 0), (STEPS + 1, 0), (15, 2)):
        after = fitted(rows, tmp_path, workers, ckpt_path=str(tmp_path / f"step={step}.ckpt"))
        assert before[:step] + after == expected(rows, 2), step
