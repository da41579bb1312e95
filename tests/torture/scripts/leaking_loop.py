"""A training loop with outlast.Run that leaks: each step keeps some megabytes for ever, as a list of losses does.

Usage: leaking_loop.py ROOT LOSSES [--steps N] [--leak BYTES] [--every N] [--burst STEP]
"""

import argparse
import os
import sys
import time

import torch

import outlast

parser = argparse.ArgumentParser()
parser.add_argument("root")
parser.add_argument("losses")
parser.add_argument("--steps", type=int, default=220)
parser.add_argument("--leak", type=int, default=0)
parser.add_argument("--every", type=int, default=1000)
parser.add_argument("--burst", type=int, help="in this step of a first attempt, take memory until killed")
options = parser.parse_args()

torch.set_num_threads(1)
torch.manual_seed(3)
inputs = torch.randn(100, 16)
data = torch.utils.data.TensorDataset(inputs, inputs.roll(1, 1))
loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)
model = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.Dropout(0.2), torch.nn.Linear(64, 16))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
run = outlast.Run(options.root, model=model, optimizer=optimizer, every=options.every, keep=outlast.Keep(last=2))
kept = []
for batch, target in run.steps(loader, total=options.steps):
    loss = run.step((batch, target), lambda pair: torch.nn.functional.mse_loss(model(pair[0]), pair[1]))
    with open(options.losses, "a") as file:
        file.write(f"{run.steps_done} {loss.item().hex()}\n")
    kept.append(bytearray(b"1" * options.leak))
    time.sleep(0.02)
    while run.steps_done == options.burst and os.environ.get("OUTLAST_ATTEMPT", "1") == "1":
        kept.append(bytearray(b"1" * 1_000_000))
        time.sleep(0.02)
    run.checkpoint()
weights = " ".join(p.double().sum().item().hex() for p in model.parameters())
sys.stdout.write(f"{run.steps_done} {weights}\n")
