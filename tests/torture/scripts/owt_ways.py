"""Every way of asking that scripts use. Knows no Outlast. Usage: owt_ways.py NAME; prints one JSON line a way."""

import json
import sys

from datasets import ReadInstruction, Split, load_dataset

NAME = sys.argv[1]


def show(way, *parts):
    print(json.dumps({way: [[row["text"].split()[1] for row in part][:: max(1, len(part) - 1)] for part in parts]}))


show("head", load_dataset(NAME, split="train[:900]"))
show("rest", load_dataset(NAME, split="train[900:]"))
show("percent", *load_dataset(NAME, split=["train[:90%]", "train[-10%:]"]))
show("instruction", load_dataset(NAME, split=ReadInstruction("train", from_=0, to=50, unit="%")))
show("named", load_dataset(path=NAME, split=Split.TRAIN))
show("sum", load_dataset(NAME, split="train[:10]+train[-100000:]"))
both = load_dataset(NAME, split={"fit": "train[:-100000]", "check": "train[-100000:]"})
show("dict", both["fit"], both["check"])
all_splits = load_dataset(NAME)
show(f"all splits: {type(all_splits).__name__} of {sorted(all_splits)}", all_splits["train"])
stream = load_dataset(NAME, split="train", streaming=True)
show(f"stream: {type(stream).__name__}", list(stream.take(950)), list(stream.skip(950)))
show("streams", list(load_dataset(NAME, streaming=True)["train"]))
for bad in ("train[:5", "nothing", "train[50000:60000]"):
    try:
        load_dataset(NAME, split=bad)
    except ValueError as error:
        print(json.dumps({bad: str(error)}))
