"""Read a subset with outlast.Run and outlast.data, and log the rows of each step: FOLDER RUN LOG WORKERS EPOCHS.

Batch and rows of a step are one line, written at once, so that a kill tears none.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

import outlast
from outlast import data

BATCH = 32


def main() -> None:
    folder, root, log, workers, epochs = (*map(Path, sys.argv[1:4]), *map(int, sys.argv[4:6]))
    torch.set_num_threads(1)
    rows = data.open(folder, shuffle=True, seed=11, window="64KB", columns=["id"])
    loader = rows.loader(BATCH, workers=workers)
    model = torch.nn.Linear(1, 1)
    run = outlast.Run(root, model=model, optimizer=torch.optim.SGD(model.parameters(), 0.0), every=25)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(out, json.dumps({"began": run.steps_done}).encode() + b"\n")
    for batch in run.steps(loader, epochs=epochs):
        os.write(out, json.dumps({"step": run.steps_done, "rows": batch["id"].tolist()}).encode() + b"\n")
        run.checkpoint()


if __name__ == "__main__":
    main()
