"""The training script that `step.py` times: an ordinary Trainer, which takes turns with the same script elsewhere.

Before each step it says that it is ready (its CPU seconds so far, into READY) and waits for its turn (a byte of TURN),
so that only one of the processes works at a time. It knows nothing of Outlast.

    step_loop.py OUTPUT READY TURN STEPS SAVE_EVERY
"""

import os
import struct
import sys
import sysconfig
import time
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments


class Text(torch.utils.data.Dataset):
    """Windows of bytes of the Python library's own sources."""

    def __init__(self, length: int = 64) -> None:
        files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:40]
        data = b"".join(path.read_bytes() for path in files)
        self.tokens = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        self.length = length

    def __len__(self) -> int:
        return len(self.tokens) // self.length - 1

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        window = self.tokens[index * self.length : (index + 1) * self.length].long()
        return {"input_ids": window, "labels": window}


class Turns(TrainerCallback):
    """Waits for its turn before each step."""

    def __init__(self, ready: str, turn: str) -> None:
        self.ready = os.open(ready, os.O_WRONLY)
        self.turn = os.open(turn, os.O_RDONLY)

    def on_step_begin(self, args, state, control, **kwargs):
        """Ready for the next step."""
        os.write(self.ready, struct.pack("d", time.process_time()))
        os.read(self.turn, 1)

    def on_train_end(self, args, state, control, **kwargs):
        """Ready with the last one."""
        os.write(self.ready, struct.pack("d", time.process_time()))


def main() -> None:
    output, ready, turn, steps, save = sys.argv[1:]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=256, n_positions=128, n_embd=132, n_layer=5, n_head=4)
    arguments = TrainingArguments(
        output, max_steps=int(steps), per_device_train_batch_size=4, logging_steps=1, save_total_limit=2,
        save_strategy="steps" if int(save) else "no", save_steps=int(save) or 500,
        use_cpu=True, report_to=[], disable_tqdm=True,
    )  # fmt: skip
    turns = Turns(ready, turn)
    Trainer(GPT2LMHeadModel(config), arguments, train_dataset=Text(), callbacks=[turns]).train()


if __name__ == "__main__":
    main()
