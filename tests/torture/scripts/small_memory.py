"""An ordinary Transformers Trainer script on a machine that gets small: knows nothing of Outlast.

Sixteen samples a step take about 250 MiB; from step 2 on the process may take ROOM_MIB more than it has (RLIMIT_AS), so
that torch's own allocator fails.

Usage: small_memory.py OUTPUT LOG ROOM_MIB [--auto]
"""

import json
import resource
import sys
from pathlib import Path

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments


class Wide(torch.nn.Module):
    """Few weights, many activations: 4 MiB for each of a sample's tensors."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.wide = torch.nn.Parameter(torch.randn(16384) / 100)
        self.out = torch.nn.Linear(64, 1)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        wide = torch.tanh(x[:, :, None] * self.wide)
        out = self.out(wide.mean(-1)).squeeze(-1)
        return {"loss": (out - labels).pow(2).mean(), "logits": out}


class Small(TrainerCallback):
    """Logs the losses, and takes memory away."""

    def __init__(self, log: str, room_mib: int) -> None:
        self.log, self.room_mib = log, room_mib

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 2 and self.room_mib:
            has_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            limit = has_bytes + self.room_mib * 2**20
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in (logs or {}):
            with open(self.log, "a") as file:
                file.write(json.dumps([state.global_step, logs["loss"], logs["grad_norm"]]) + "\n")


def main() -> None:
    output, log, room_mib = sys.argv[1:4]
    torch.set_num_threads(1)
    rows = torch.randn(100, 64, generator=torch.Generator().manual_seed(0))
    arguments = TrainingArguments(
        output, max_steps=8, per_device_train_batch_size=16, learning_rate=0.01, logging_steps=1, save_steps=4,
        optim="sgd", report_to=[], use_cpu=True, disable_tqdm=True, auto_find_batch_size="--auto" in sys.argv,
    )  # fmt: skip
    trainer = Trainer(
        Wide(), arguments, train_dataset=[{"x": row, "labels": row.sum()} for row in rows],
        callbacks=[Small(log, int(room_mib))],
    )  # fmt: skip
    trainer.train()
    print("finished at step", trainer.state.global_step, "with batches of", trainer._train_batch_size)


if __name__ == "__main__":
    main()
