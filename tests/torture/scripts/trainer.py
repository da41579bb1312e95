"""An ordinary Transformers Trainer script: knows nothing of Outlast. 13.3 MB a save, every 10 of 100 steps.

Usage: trainer.py OUTPUT_DIR [--steps N] [--stop N] [--save N] [--limit N] [--resume] [--only-model]
       [--best] [--words] [--plain] [--log FILE] [--threads N] [--pause SECONDS] [--leak BYTES]
"""

import argparse
import json
import re
import sysconfig
import time
from collections import Counter
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments


class Text(torch.utils.data.Dataset):
    """Windows of the Python library's own sources: bytes, or the most frequent words and marks."""

    def __init__(self, vocabulary: int, length: int = 64, files: int = 40) -> None:
        folder = Path(sysconfig.get_paths()["stdlib"])
        data = b"".join(path.read_bytes() for path in sorted(folder.glob("*.py"))[:files])
        self.tokens = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        if vocabulary > 256:
            words = re.findall(rb"\w+|\W", data)
            known = {word: rank for rank, (word, _) in enumerate(Counter(words).most_common(vocabulary - 1), 1)}
            self.tokens = torch.tensor([known.get(word, 0) for word in words], dtype=torch.int32)
        self.length = length

    def __len__(self) -> int:
        return len(self.tokens) // self.length - 1

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        window = self.tokens[index * self.length : (index + 1) * self.length].long()
        return {"input_ids": window, "labels": window}


class Losses(TrainerCallback):
    """Appends the loss of each step to a file, to compare runs."""

    def __init__(self, path: str) -> None:
        self.path = path

    def on_log(self, args, state, control, logs=None, **kwargs):
        if logs and "loss" in logs:
            with open(self.path, "a") as file:
                file.write(json.dumps([state.global_step, logs["loss"], logs["learning_rate"]]) + "\n")


class Pause(TrainerCallback):
    """Makes each step take longer."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_step_begin(self, args, state, control, **kwargs):
        time.sleep(self.seconds)


class StopAt(TrainerCallback):
    """Ends the training before its schedule does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop |= state.global_step >= self.step


class Leak(TrainerCallback):
    """Keeps memory for ever at each step, as a list of losses with their graphs does."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.kept: list[bytearray] = []

    def on_step_end(self, args, state, control, **kwargs):
        self.kept.append(bytearray(b"1" * self.size))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("output")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--stop", type=int)
    parser.add_argument("--save", type=int, default=10)
    parser.add_argument("--words", action="store_true", help="7.4 million parameters over words, not 1.1 over bytes")
    parser.add_argument("--plain", action="store_true", help="no dropout")
    parser.add_argument("--limit", type=int, default=3)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--only-model", action="store_true")
    parser.add_argument("--best", action="store_true")
    parser.add_argument("--log")
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--leak", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.words:
        size = {"vocab_size": 8192, "n_embd": 256, "n_layer": 4, "tie_word_embeddings": False}
    else:
        size = {"vocab_size": 256, "n_embd": 132, "n_layer": 5}
    if options.plain:
        size |= {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
    config = GPT2Config(**size, n_positions=128, n_head=4)
    best = {
        "load_best_model_at_end": True,
        "metric_for_best_model": "loss",
        "eval_strategy": "steps",
        "eval_steps": options.save,
    }
    arguments = TrainingArguments(
        output_dir=options.output,
        max_steps=options.steps,
        per_device_train_batch_size=8 if options.words else 4,
        learning_rate=1e-3,
        warmup_steps=10,
        logging_steps=1,
        save_steps=options.save,
        save_total_limit=options.limit or None,
        save_only_model=options.only_model,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=7,
        **(best if options.best else {}),
    )
    data = Text(size["vocab_size"])
    trainer = Trainer(
        model=GPT2LMHeadModel(config),
        args=arguments,
        train_dataset=data,
        eval_dataset=torch.utils.data.Subset(data, range(16)),
        callbacks=[
            *[Losses(options.log)] * bool(options.log),
            *[StopAt(options.stop)] * bool(options.stop),
            *[Leak(options.leak)] * bool(options.leak),
            Pause(options.pause),
        ],
    )
    trainer.train(resume_from_checkpoint=True if options.resume else None)
    print("finished at step", trainer.state.global_step)


if __name__ == "__main__":
    main()
