"""A script whose map makes much of little. Knows no Outlast.

Usage: map_script.py FOLDER NUMBERS PROCESSES CALLS: each of 6,000 rows becomes NUMBERS numbers, by PROCESSES processes;
each call of the function adds its rows to the file CALLS.
"""

import os
import sys

import datasets

folder, numbers, processes, calls = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]


def rows():
    for number in range(6_000):
        yield {"text": f"row {number}"}


def widen(batch):
    fd = os.open(calls, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, "".join(f"{text}\n" for text in batch["text"]).encode())
    os.close(fd)
    return {"numbers": [[7] * numbers for _ in batch["text"]]}


whole = datasets.Dataset.from_generator(rows, cache_dir=folder)
wide = whole.map(widen, batched=True, num_proc=processes or None)
few = wide.filter(lambda row: row["text"].endswith("7"))
print("mapped", len(wide), len(few), wide._fingerprint)
