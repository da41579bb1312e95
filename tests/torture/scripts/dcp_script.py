"""An ordinary loop that saves with torch.distributed.checkpoint: knows nothing of Outlast. 13.4 MB a save.

Usage: dcp_script.py OUTPUT_DIR [--steps N] [--save N] [--into NAME] [--async] [--pause SECONDS]

Saves to OUTPUT_DIR/step_N every 10 of 100 steps, or with --into always to OUTPUT_DIR/NAME. Works under torchrun too.
"""

import argparse
import os
import sysconfig
import time
import warnings
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from transformers import GPT2Config, GPT2LMHeadModel

warnings.filterwarnings("ignore")


def windows(length: int = 64, files: int = 40) -> torch.Tensor:
    """Windows of bytes of the Python library's own sources."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    data = b"".join(path.read_bytes() for path in sorted(folder.glob("*.py"))[:files])
    tokens = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    return tokens[: len(tokens) // length * length].view(-1, length).long()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("output")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--save", type=int, default=10)
    parser.add_argument("--into")
    parser.add_argument("--async", dest="is_async", action="store_true")
    parser.add_argument("--pause", type=float, default=0.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if "RANK" in os.environ:
        torch.distributed.init_process_group("gloo")
    model = GPT2LMHeadModel(GPT2Config(vocab_size=256, n_positions=128, n_embd=132, n_layer=5, n_head=4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    data = windows()
    pending = None
    for step in range(1, options.steps + 1):
        batch = data[torch.randint(len(data), (4,))]
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        time.sleep(options.pause)
        if step % options.save == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            place = os.path.join(options.output, options.into or f"step_{step}")
            if options.is_async:
                if pending:
                    pending.result()
                pending = dcp.async_save(state, checkpoint_id=place)
            else:
                dcp.save(state, checkpoint_id=place)
    if pending:
        pending.result()
    print("finished at step", step)
    if "RANK" in os.environ:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
