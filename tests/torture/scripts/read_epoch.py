"""Read one shuffled epoch and print rows, decoded bytes, and by how much RSS grew at most: FOLDER WINDOW."""

from __future__ import annotations

import resource
import sys

import torch

from outlast import data
from outlast.data.epochs import row_groups


def main() -> None:
    torch.set_num_threads(1)
    row_groups._MAPPED_BYTES = 16 << 20  # as small beside the set as the default is beside a large one
    folder, window = sys.argv[1], int(sys.argv[2])
    rows = data.open(folder, shuffle=True, seed=1, window=window)
    loader = rows.loader(32)
    next(iter(loader))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seen = 0
    for batch in loader:
        seen += sum(map(len, batch["text"]))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(len(rows), seen, (after - before) * 1024)


if __name__ == "__main__":
    main()
