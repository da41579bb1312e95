"""How fast rows are read shuffled, and how much packing adds to tokenising, beside what people use.

Reading: the Python library's own sources three times, cut into rows of up to 4,000 characters, in batches of 32. Each
reader has the rows in its own form: ours zstd Parquet as `outlast data fetch` writes it, `datasets` its memory-mapped
Arrow, MosaicML Streaming its MDS shards, LitData its chunks (both not compressed, their default). Each round is one
process for each reader, in a drawn order: the first epoch gives the time from opening to the first batch (modules are
imported before, workers are started in it), the following ones, in the same process, rows per second with the workers'
start counted, and CPU time, with that of the workers, which other work on the machine disturbs less.

Tokenising: `outlast.data.blocks` from Parquet to durable, packed shards, beside `tokenizers.encode_batch` alone on the
same texts in memory (a list of a thousand at a time), in turns; BPE of 16,000 trained on the same text.

    python benchmarks/data.py                                # ours and `datasets`
    python benchmarks/data.py --peers /tmp/peers             # makes a venv there with MosaicML Streaming and LitData
    python benchmarks/data.py --only tokens --rounds 3
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

BATCH, ROW_CHARACTERS, ROW_GROUP = 32, 4000, 1000
PACKAGES = {"mosaic": "mosaicml-streaming", "litdata": "litdata"}


def texts() -> list[str]:
    found = []
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")):
        if "site-packages" not in path.parts:
            text = path.read_text(errors="replace")
            found += [text[at : at + ROW_CHARACTERS] for at in range(0, len(text), ROW_CHARACTERS)]
    return 3 * found


def write_parquet(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    (folder / "train").mkdir(parents=True)
    rows = texts()
    for part, at in enumerate(range(0, len(rows), 4 * ROW_GROUP)):
        table = pa.table({"text": rows[at : at + 4 * ROW_GROUP]})
        name = folder / "train" / f"part-{part:05d}.parquet"
        parquet.write_table(table, name, compression="zstd", row_group_size=ROW_GROUP)


# Each arm: make its own form of the rows once, then give a loader.


def ours(rows: Path, own: Path, workers: int) -> Any:
    from outlast import data

    return data.open(rows, shuffle=True, seed=1).loader(BATCH, workers=workers)


def arrow(rows: Path, own: Path, workers: int) -> Any:
    import datasets
    from torch.utils.data import DataLoader

    datasets.disable_progress_bars()
    files = sorted(str(path) for path in (rows / "train").iterdir())
    table = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(own))
    return DataLoader(table.shuffle(seed=1), batch_size=BATCH, num_workers=workers)


def mosaic(rows: Path, own: Path, workers: int) -> Any:
    from streaming import MDSWriter, StreamingDataset
    from torch.utils.data import DataLoader

    if not own.exists():
        with MDSWriter(out=str(own), columns={"text": "str"}) as writer:
            for text in texts():
                writer.write({"text": text})
    data = StreamingDataset(local=str(own), shuffle=True, batch_size=BATCH, shuffle_seed=1)
    return DataLoader(data, batch_size=BATCH, num_workers=workers)


def as_sample(text: str) -> dict[str, str]:
    return {"text": text}


def litdata(rows: Path, own: Path, workers: int) -> Any:
    from litdata import StreamingDataLoader, StreamingDataset, optimize

    if not own.exists():
        optimize(fn=as_sample, inputs=texts(), output_dir=str(own), chunk_bytes="64MB", num_workers=1)
    return StreamingDataLoader(StreamingDataset(str(own), shuffle=True, seed=1), batch_size=BATCH, num_workers=workers)


ARMS: dict[str, tuple[str, Callable[[Path, Path, int], Any]]] = {
    "ours": ("Outlast, Parquet", ours),
    "datasets": ("datasets, Arrow", arrow),
    "mosaic": ("MosaicML Streaming", mosaic),
    "litdata": ("LitData", litdata),
}

MODULES = {
    "ours": ("outlast.data.epochs.rows", "outlast.data.epochs.loader", "pyarrow.parquet"),
    "datasets": ("datasets",),
    "mosaic": ("streaming",),
    "litdata": ("litdata",),
}


def cpu() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def measure(arm: str, rows: Path, own: Path, workers: int, epochs: int) -> dict[str, float]:
    import torch

    torch.set_num_threads(1)
    for module in MODULES[arm]:
        import_module(module)
    began = time.perf_counter()
    loader = ARMS[arm][1](rows, own, workers)
    batches = iter(loader)
    next(batches)
    first = time.perf_counter() - began
    for _ in batches:
        pass
    count, began, before = 0, time.perf_counter(), cpu()
    for _ in range(epochs):
        count += sum(len(batch["text"]) for batch in loader)
    took = time.perf_counter() - began
    # Workers that are gone have been waited for, so their time is counted.
    return {"first": first, "rows": count / took, "cpu": (cpu() - before) / count * 1e6, "count": count / epochs}


def reading(place: Path, peers: Path | None, rounds: int, epochs: int) -> None:
    rows = place / "rows"
    arms = [arm for arm in ARMS if arm not in PACKAGES or peers]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    for workers in (0, 2):
        found: dict[str, list[dict[str, float]]] = {arm: [] for arm in arms}
        why: dict[str, str] = {}
        for number in range(rounds + 1):
            for arm in random.Random(number).sample(arms, len(arms)):
                python = str(peers / "bin" / "python") if arm in PACKAGES and peers else sys.executable
                words = [python, __file__, "--arm", arm, "--place", str(place), "--workers", str(workers)]
                done = subprocess.run(
                    [*words, "--epochs", str(epochs)], capture_output=True, text=True, env=environment, timeout=300
                )
                if done.returncode:
                    why[arm] = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
                elif number:  # the first one makes its form of the rows, and warms the page cache
                    found[arm].append(json.loads(done.stdout.splitlines()[-1]))
        show_reading(rows, workers, found, why)


def show_reading(rows: Path, workers: int, found: dict[str, list[dict[str, float]]], why: dict[str, str]) -> None:
    count = next((int(one["count"]) for ones in found.values() for one in ones), 0)
    print(f"\n{count} rows, batches of {BATCH}, {workers} workers, {max(map(len, found.values()))} rounds")
    print(f"{'reader':<20}{'rows/s':>9}{'quartiles':>18}{'CPU us a row':>14}{'first batch s':>15}")
    for arm, ones in found.items():
        if not ones:
            print(f"{ARMS[arm][0]:<20}does not run: {why.get(arm, '')}")
            continue
        speeds = sorted(one["rows"] for one in ones)
        low, high = speeds[len(speeds) // 4], speeds[-1 - len(speeds) // 4]
        used, first = (statistics.median(one[key] for one in ones) for key in ("cpu", "first"))
        span = f"{low:.0f} to {high:.0f}"
        print(f"{ARMS[arm][0]:<20}{statistics.median(speeds):>9.0f}{span:>18}{used:>14.1f}{first:>15.3f}")


def tokens(place: Path, rounds: int) -> None:
    """Paired rounds; what is printed is the median of the ratios."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from outlast import data

    rows = data.open(place / "rows")
    held = [row["text"] for row in rows]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=16_000, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(held[:3000], trainer)

    def alone() -> Iterator[int]:
        for at in range(0, len(held), 1000):
            yield sum(len(one) for one in tokenizer.encode_batch(held[at : at + 1000], add_special_tokens=False))

    ratios, seconds = [], []
    for number in range(rounds):
        took = {}
        for arm in random.Random(number).sample(["alone", "blocks"], 2):
            shutil.rmtree(place / "cache", ignore_errors=True)
            began = time.perf_counter()
            if arm == "alone":
                count = sum(alone())
            else:
                made = data.blocks(rows, tokenizer, length=512, cache=place / "cache")
            took[arm] = time.perf_counter() - began
        ratios.append(took["blocks"] / took["alone"])
        seconds.append(took)
    began = time.perf_counter()
    data.blocks(rows, tokenizer, length=512, cache=place / "cache")
    again = time.perf_counter() - began
    alone_s, blocks_s = (statistics.median(took[arm] for took in seconds) for arm in ("alone", "blocks"))
    print(f"\n{count} tokens of {sum(map(len, held)) / 1e6:.1f} MB, {len(made)} blocks of 512, {rounds} rounds")
    print(f"encode_batch alone      {alone_s:7.2f} s   {count / alone_s / 1e6:5.2f} million tokens/s")
    print(f"outlast.data.blocks     {blocks_s:7.2f} s   {count / blocks_s / 1e6:5.2f} million tokens/s")
    print(f"blocks / encode_batch   {statistics.median(ratios):7.3f}     ({min(ratios):.3f} to {max(ratios):.3f})")
    print(f"found in the cache      {again:7.3f} s")


def make_venv(folder: Path) -> None:
    """A venv with the peers; with them come the torch and numpy that they ask for."""
    if (folder / "bin" / "python").exists():
        return
    venv.create(folder, with_pip=True)
    for package in PACKAGES.values():
        words = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", package]
        subprocess.run([str(word) for word in words], check=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["reading", "tokens"])
    parser.add_argument("--peers", type=Path, help="venv with MosaicML Streaming and LitData; made where it is missing")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--arm", choices=list(ARMS), help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.arm:
        place: Path = options.place
        own = place / options.arm
        print(json.dumps(measure(options.arm, place / "rows", own, options.workers, options.epochs)))
        return
    with tempfile.TemporaryDirectory(prefix="outlast-data-") as folder:
        place = Path(folder)
        write_parquet(place / "rows")
        if options.peers:
            make_venv(options.peers.absolute())
        if options.only != "tokens":
            reading(place, options.peers and options.peers.absolute(), options.rounds, options.epochs)
        if options.only != "reading":
            tokens(place, options.rounds)


if __name__ == "__main__":
    main()
