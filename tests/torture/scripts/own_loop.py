"""A training loop of one's own with outlast.Run: dropout, shuffled data, a schedule. Writes each step's loss.

Usage: own_loop.py ROOT LOSSES [--steps N] [--every N] [--workers N] [--pause SECONDS] [--deadline SPAN]
"""

import argparse
import sys
import time

import torch

import outlast

parser = argparse.ArgumentParser()
parser.add_argument("root")
parser.add_argument("losses")
parser.add_argument("--steps", type=int, default=60)
parser.add_argument("--every", type=int, default=5)
parser.add_argument("--workers", type=int, default=0)
parser.add_argument("--pause", type=float, default=0.0)
parser.add_argument("--deadline")
options = parser.parse_args()

torch.set_num_threads(1)
torch.manual_seed(3)
inputs = torch.randn(100, 16)
data = torch.utils.data.TensorDataset(inputs, inputs.roll(1, 1))
loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True, num_workers=options.workers)
model = torch.nn.Sequential(
    torch.nn.Linear(16, 64), torch.nn.Dropout(0.2), torch.nn.Linear(64, 64), torch.nn.Linear(64, 16)
)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
run = outlast.Run(
    options.root,
    model=model,
    optimizer=optimizer,
    scheduler=scheduler,
    every=options.every,
    keep=outlast.Keep(last=2),
    deadline=options.deadline,
)
for batch, target in run.steps(loader, total=options.steps):
    loss = torch.nn.functional.mse_loss(model(batch), target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
    time.sleep(options.pause)
    with open(options.losses, "a") as file:
        file.write(f"{run.steps_done} {loss.item().hex()}\n")
    run.checkpoint(metrics={"loss": loss.item()})
weights = " ".join(p.double().sum().item().hex() for p in model.parameters())
sys.stdout.write(f"{run.steps_done} {weights}\n")
