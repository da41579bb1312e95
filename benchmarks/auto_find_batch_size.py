"""What Transformers' own auto_find_batch_size does to a training when memory runs out, and what Outlast does.

One unmodified script (tests/torture/scripts/shortages.py: GPT-2, 50 steps of 32 samples on a fake device whose memory
is short at ten random steps), four ways: with enough memory, bare, with ``auto_find_batch_size=True``, and under
`outlast run`. Of each: starts of its loop, steps of the optimizer in all passes, samples of the last step, samples
trained on in all and how many of them again, how far the losses of its last pass are from those of the run with enough
(largest difference, same step number), seconds of training in its last pass, and of the whole command. The medians
over seeds.

    python benchmarks/auto_find_batch_size.py
    python benchmarks/auto_find_batch_size.py --seeds 1
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "tests/torture/scripts/shortages.py"
ARMS: dict[str, tuple[bool, list[str]]] = {
    "enough memory": (False, ["--enough"]),
    "bare": (False, []),
    "auto_find_batch_size": (False, ["--auto"]),
    "outlast run": (True, []),
}
"""Under `outlast run` or not, and the script's options."""


@dataclass(frozen=True)
class Run:
    """What one run left in its diary."""

    code: int
    starts: int
    steps: int
    """Optimizer steps that were made, in all passes."""
    batch: int
    """Samples of the last step."""
    samples: int
    again: int
    """Samples that were trained on a second time or more often."""
    losses: dict[int, float]
    """Of the last pass, by step."""
    train_seconds: float | None
    """As the Trainer prints it, of its last pass."""
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="draws of the ten steps (default: 5)")
    options = parser.parse_args()
    found: dict[str, list[Run]] = {arm: [] for arm in ARMS}
    with tempfile.TemporaryDirectory(prefix="outlast-auto-") as folder:
        for seed in range(options.seeds):
            for arm in ARMS:
                found[arm].append(_run(Path(folder) / f"{seed}-{arm.replace(' ', '-')}", arm, seed))
                print(f"seed {seed}: {arm}", file=sys.stderr)
    _print(found, options.seeds)


def _run(folder: Path, arm: str, seed: int) -> Run:
    folder.mkdir()
    is_guarded, more = ARMS[arm]
    words = [sys.executable, SCRIPT, folder / "out", folder / "diary", "--seed", seed, *more]
    if is_guarded:
        words = [sys.executable, "-m", "outlast", "run", "--dir", folder, "--", *words]
    began = time.perf_counter()
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    lines = [json.loads(line) for line in (folder / "diary").read_text().splitlines()]
    steps = [line for line in lines if "step" in line]
    last = max(number for number, line in enumerate(lines) if "begins" in line)
    seen = Counter(row for step in steps for row in step["rows"])
    told = re.findall(r"'train_runtime': '?([\d.]+)", done.stdout)
    return Run(
        done.returncode, len(lines) - len(steps), len(steps), len(steps[-1]["rows"]), sum(seen.values()),
        sum(count - 1 for count in seen.values()), {line["step"]: line["loss"] for line in lines[last + 1 :]},
        float(told[-1]) if told else None, seconds,
    )  # fmt: skip


def _print(found: dict[str, list[Run]], seeds: int) -> None:
    print(f"50 steps of 32 samples, memory short at ten of them, {seeds} seeds; medians")
    head = (
        "",
        "ends",
        "starts",
        "steps made",
        "last batch",
        "samples",
        "twice",
        "losses differ",
        "last pass",
        "in all",
    )
    print("{:<22}{:>7}{:>8}{:>12}{:>12}{:>9}{:>8}{:>15}{:>11}{:>9}".format(*head))
    enough = found["enough memory"]
    for arm, runs in found.items():
        middle = {name: statistics.median(getattr(run, name) for run in runs) for name in ("starts", "steps", "batch")}
        samples, again = (statistics.median(getattr(run, name) for run in runs) for name in ("samples", "again"))
        apart = statistics.median(
            max(abs(loss - whole.losses[step]) for step, loss in run.losses.items())
            for run, whole in zip(runs, enough, strict=True)
        )
        passes = [run.train_seconds for run in runs if run.train_seconds is not None]
        last = f"{statistics.median(passes):.1f} s" if passes else "-"
        ends = "dies" if all(run.code for run in runs) else "step 50"
        print(
            f"{arm:<22}{ends:>7}{middle['starts']:>8.0f}{middle['steps']:>12.0f}{middle['batch']:>12.0f}"
            f"{samples:>9.0f}{again:>8.0f}{apart:>15.1e}{last:>11}"
            f"{statistics.median(run.seconds for run in runs):>7.1f} s"
        )


if __name__ == "__main__":
    main()
