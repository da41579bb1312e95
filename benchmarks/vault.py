"""How long do list, latest and retention take over many checkpoints, and how does it grow?

Folders of 10 to 10,000 checkpoints as a Trainer leaves them (seven small files and Outlast's seal each), on the disk of
``--dir``. Outlast: a fresh ``Vault`` reads every seal and every file's length (cold), then once more what has not
changed (warm: what each save of a running training costs). Peer: Transformers' ``rotate_checkpoints`` with a limit that
keeps all, and ``get_last_checkpoint``; they read names and times of folders and look into none. Rounds alternate;
figures are medians in milliseconds. The exponent is the slope of log(time) over log(count), from 100 checkpoints on.

    python benchmarks/vault.py
    python benchmarks/vault.py --counts 10,100,1000 --rounds 3
"""

from __future__ import annotations

import argparse
import math
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from transformers.trainer_utils import get_last_checkpoint, rotate_checkpoints

from outlast import durable
from outlast.checkpoints import Entry, Keep, Seal, Vault
from outlast.checkpoints import seal as seals

FILES = (
    "config.json",
    "model.safetensors",
    "optimizer.pt",
    "outlast-light.safetensors",
    "rng_state.pth",
    "scheduler.pt",
    "trainer_state.json",
)
KEEP = Keep(last=3, best=2, metric="eval_loss", every=1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="10,100,1000,10000", help="numbers of checkpoints (10,100,1000,10000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument("--dir", type=Path, default=Path(), help="where to make the folders (default: here)")
    options = parser.parse_args()
    counts = [int(text) for text in options.counts.split(",")]
    taken: dict[str, list[float]] = {}
    for count in counts:
        folder = Path(tempfile.mkdtemp(prefix="outlast-vault-", dir=options.dir))
        try:
            _fill(folder, count)
            for name, seconds in _measure(folder, count, options.rounds).items():
                taken.setdefault(name, []).append(seconds)
        finally:
            shutil.rmtree(folder)
    _print(counts, taken, options.rounds)


def _fill(folder: Path, count: int) -> None:
    """Checkpoints with seals; without their fsyncs, which would take longer than all that is measured."""
    durably = durable.write_bytes
    durable.write_bytes = lambda path, data: Path(path).write_bytes(data)  # type: ignore[assignment]
    try:
        entries = {name: Entry(100, "blake3:" + "0" * 64) for name in FILES}
        light = tuple(name for name in FILES if name != "optimizer.pt")
        for number in range(1, count + 1):
            place = folder / f"checkpoint-{10 * number}"
            place.mkdir()
            for name in FILES:
                (place / name).write_bytes(b" " * 100)
            metrics = {"eval_loss": 1 + math.sin(number)}
            kinds = {"full": FILES, "light": light}
            seals.write(place, Seal(10 * number, "transformers", entries, kinds, metrics, lineage="a", created=number))
    finally:
        durable.write_bytes = durably


def _measure(folder: Path, count: int, rounds: int) -> dict[str, float]:
    seconds: dict[str, list[float]] = {}

    def timed(name: str, call: Callable[[], object]) -> None:
        start = time.perf_counter()
        call()
        seconds.setdefault(name, []).append(time.perf_counter() - start)

    for _ in range(rounds):
        vault = Vault(folder)
        timed("Outlast list + latest, cold", lambda vault=vault: vault.checkpoints()[-1])
        timed("Outlast list + latest, warm", lambda vault=vault: vault.checkpoints()[-1])
        timed("Outlast retention, warm", lambda vault=vault: vault.verdicts(KEEP))
        timed("Transformers rotate (keeps all)", lambda: rotate_checkpoints(str(folder), save_total_limit=count))
        timed("Transformers get_last_checkpoint", lambda: get_last_checkpoint(str(folder)))
    return {name: statistics.median(values) for name, values in seconds.items()}


def _exponent(counts: list[int], seconds: list[float]) -> float:
    points = [(math.log(c), math.log(s)) for c, s in zip(counts, seconds, strict=True) if c >= 100]
    if len(points) < 2:
        return math.nan
    return statistics.linear_regression([x for x, _ in points], [y for _, y in points]).slope


def _print(counts: list[int], taken: dict[str, list[float]], rounds: int) -> None:
    print(f"median ms of {rounds} rounds")
    print(f"{'checkpoints':<34}" + "".join(f"{count:>10,}" for count in counts) + f"{'exponent':>10}{'us each':>9}")
    for name, seconds in taken.items():
        row = "".join(f"{1e3 * value:>10.2f}" for value in seconds)
        print(f"{name:<34}{row}{_exponent(counts, seconds):>10.2f}{1e6 * seconds[-1] / counts[-1]:>9.1f}")


if __name__ == "__main__":
    main()
