"""An ordinary Accelerate script: knows nothing of Outlast. 13.4 MB a save, every 10 of 100 steps, four kept.

Usage: accelerate_script.py OUTPUT_DIR [--steps N] [--save N] [--limit N] [--into DIR] [--resume] [--log FILE]
       [--pause SECONDS]

With --into each save goes to that one folder; else to OUTPUT_DIR/checkpoints/checkpoint_N.
"""

import argparse
import json
import sysconfig
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, set_seed
from transformers import GPT2Config, GPT2LMHeadModel


class Text(torch.utils.data.Dataset):
    """Windows of bytes of the Python library's own sources."""

    def __init__(self, length: int = 64, files: int = 40) -> None:
        folder = Path(sysconfig.get_paths()["stdlib"])
        data = b"".join(path.read_bytes() for path in sorted(folder.glob("*.py"))[:files])
        self.tokens = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        self.length = length

    def __len__(self) -> int:
        return len(self.tokens) // self.length - 1

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.tokens[index * self.length : (index + 1) * self.length].long()


def has_state(options: argparse.Namespace) -> bool:
    if options.into:
        return Path(options.into).is_dir()
    return any(Path(options.output, "checkpoints").glob("checkpoint_*"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("output")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--save", type=int, default=10)
    parser.add_argument("--limit", type=int, default=4)
    parser.add_argument("--into")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--log")
    parser.add_argument("--pause", type=float, default=0.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    set_seed(0)
    config = ProjectConfiguration(
        project_dir=options.output, automatic_checkpoint_naming=not options.into, total_limit=options.limit or None
    )
    accelerator = Accelerator(cpu=True, project_config=config)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=256, n_positions=128, n_embd=132, n_layer=5, n_head=4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, 1.0, 10)
    loader = torch.utils.data.DataLoader(Text(), batch_size=4, shuffle=True)
    model, optimizer, schedule, loader = accelerator.prepare(model, optimizer, schedule, loader)
    step = 0
    if options.resume and has_state(options):
        accelerator.load_state(options.into)
        step = schedule.scheduler.last_epoch
        print("resumed at step", step, flush=True)
    for batch in accelerator.skip_first_batches(loader, step):
        if step >= options.steps:
            break
        loss = model(input_ids=batch, labels=batch).loss
        accelerator.backward(loss)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        step += 1
        time.sleep(options.pause)
        if options.log:
            with open(options.log, "a") as file:
                file.write(json.dumps([step, loss.item(), schedule.get_last_lr()[0]]) + "\n")
        if step % options.save == 0:
            accelerator.save_state(options.into)
    print("finished at step", step)


if __name__ == "__main__":
    main()
