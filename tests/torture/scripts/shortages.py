"""An ordinary Transformers Trainer script on a device whose memory gets short at ten random steps. Knows no Outlast.

The device is a fake: a layer that raises what CUDA's allocator raises when a forward or a backward holds more samples
than there is room for. Each step is logged with its loss, the norm of its gradient, the rows it was made from, and the
most samples that were in memory at once.

Usage: shortages.py OUTPUT LOG [--seed N] [--enough] [--auto] [--steps N] [--batch N]
"""

import argparse
import json
import random
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

MESSAGE = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 14.58 GiB"
LENGTH, ROWS, POINTS = 16, 4096, 10


class Device:
    """How many samples fit, step by step.

    Args:
        seed: draws the steps at which memory is short, and how short; None for never.
        steps: of the training.
        batch: samples of a whole batch.
    """

    def __init__(self, seed: int | None, steps: int, batch: int) -> None:
        draw = random.Random(seed)
        points = [] if seed is None else sorted(draw.sample(range(1, steps), POINTS))
        self.rooms = {
            point: (draw.randint(batch // 16, batch // 2), draw.choice(["forward", "backward"])) for point in points
        }
        self.step = 0
        self.rows: set[int] = set()
        self.most = self.failures = 0

    def takes(self, x: torch.Tensor) -> torch.Tensor:
        """Passes on what fits."""
        room, where = self.rooms.get(self.step, (len(x), "forward"))
        if len(x) <= room:
            self.most = max(self.most, len(x))
            return x
        if where == "forward":
            self.fail()
        x = x + 0
        x.register_hook(self.fail)
        return x

    def fail(self, *_: Any) -> None:
        """What the allocator says."""
        self.failures += 1
        raise torch.OutOfMemoryError(MESSAGE)


class Model(torch.nn.Module):
    """GPT-2 in double precision, so that what is left of a difference is rounding; rows are noted as they pass."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        torch.manual_seed(1)
        config = GPT2Config(
            vocab_size=64, n_positions=LENGTH, n_embd=32, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=1,
            attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0,
        )  # fmt: skip
        self.inner = GPT2LMHeadModel(config).double()
        self.memory = device

    def forward(self, input_ids: torch.Tensor, row: torch.Tensor, labels: torch.Tensor) -> Any:
        embedded = self.memory.takes(self.inner.transformer.wte(input_ids))
        self.memory.rows.update(row.tolist())
        return self.inner(inputs_embeds=embedded, labels=labels)


class Diary(TrainerCallback):
    """A line for each step, and for each time that the training begins."""

    def __init__(self, log: str, device: Device) -> None:
        self.log, self.memory = log, device

    def _write(self, **facts: Any) -> None:
        with open(self.log, "a") as file:
            file.write(json.dumps(facts) + "\n")

    def on_train_begin(self, args, state, control, **kwargs):
        self.memory.rows.clear()
        self._write(begins=state.global_step)

    def on_step_begin(self, args, state, control, **kwargs):
        self.memory.step, self.memory.most = state.global_step, 0
        self.memory.rows.clear()

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in (logs or {}):
            self._write(
                step=state.global_step, loss=logs["loss"], norm=logs["grad_norm"], most=self.memory.most,
                room=self.memory.rooms.get(self.memory.step, (None,))[0], rows=sorted(self.memory.rows),
                failures=self.memory.failures,
            )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("output")
    parser.add_argument("log")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--enough", action="store_true", help="memory is never short")
    parser.add_argument("--auto", action="store_true", help="with the Trainer's own auto_find_batch_size")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = Device(None if options.enough else options.seed, options.steps, options.batch)
    # A text that repeats itself, so that there is something to learn.
    words = torch.randint(2, 64, (ROWS, LENGTH // 4), generator=torch.Generator().manual_seed(0)).repeat(1, 4)
    arguments = TrainingArguments(
        options.output, max_steps=options.steps, per_device_train_batch_size=options.batch, learning_rate=3e-3,
        warmup_steps=5, logging_steps=1, save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True, seed=3,
        auto_find_batch_size=options.auto, remove_unused_columns=False, dataloader_pin_memory=False,
    )  # fmt: skip
    rows = [{"input_ids": ids, "labels": ids, "row": number} for number, ids in enumerate(words)]
    trainer = Trainer(Model(device), arguments, train_dataset=rows, callbacks=[Diary(options.log, device)])
    trainer.train()
    print("finished at step", trainer.state.global_step, "with batches of", trainer._train_batch_size)


if __name__ == "__main__":
    main()
