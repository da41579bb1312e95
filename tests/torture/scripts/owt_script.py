"""A training script's data, as the seeds have it: all of OpenWebText but the tail, and the tail. Knows no Outlast.

Usage: owt_script.py NAME. Prints one JSON line: rows, first and last document of both, and what type they are of.
"""

import json
import sys

import datasets

train = datasets.load_dataset(sys.argv[1], split="train[:-100000]")
valid = datasets.load_dataset(sys.argv[1], split="train[-100000:]")


def tokenise(batch):
    return {"input_ids": [list(text.encode()[:64]) for text in batch["text"]]}


blocks = train.map(tokenise, batched=True, remove_columns=["text"])
print(
    json.dumps(
        {
            "types": [type(train).__module__ + "." + type(train).__qualname__, type(valid).__name__],
            "columns": [train.column_names, valid.column_names, blocks.column_names],
            "features": str(train.features),
            "rows": [len(train), len(valid), len(blocks)],
            "ends": [part[i]["text"].split()[1] for part in (train, valid) for i in (0, -1)],
        }
    )
)
