"""The DUO recipe at toy size, on real text, on a volume that is nearly full: killed once, resumed, measured, sampled.

Without network and GPU. The text is this Python's own library. The volume is a real one where this user may mount one,
else a declared budget. Everything is written under demo-run/duo. Exits with 0 only if what is promised came true.

Usage: python recipes/duo/demo.py [--steps N] [--megabytes N]
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PLACE = Path("demo-run/duo").resolve()
TOY = (
    "data=offline", "model=toy", "model.length=64", "loader.batch_size=16", "loader.eval_batch_size=16",
    "trainer.accelerator=cpu", "trainer.precision=32", "trainer.limit_val_batches=20", "data.vocab_size=2048",
)  # fmt: skip


def say(text: str) -> None:
    """A heading."""
    print(f"\n=== {text}", flush=True)


def volume(place: Path, megabytes: int) -> list[str]:
    """A fresh folder on a tmpfs of that size; where none can be mounted, the budget that stands in for it."""
    if place.is_mount():
        subprocess.run(["umount", place], check=True)
    shutil.rmtree(PLACE, ignore_errors=True)
    place.mkdir(parents=True)
    size = f"size={megabytes * 10**6}"
    command = ["mount", "-t", "tmpfs", "-o", size, "outlast-demo", str(place)]
    if os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0:
        return []
    print("This user may not mount a volume: a budget stands in for it.")
    return ["--budget", f"{place}={megabytes}MB"]


def leave() -> None:
    """The volume goes with the demo, however that ends."""
    if (PLACE / "volume").is_mount():
        subprocess.run(["umount", "-l", PLACE / "volume"], check=False)


def command(mode: str, run: Path, *keys: str) -> list[str]:
    """The program's command line."""
    words = [*TOY, f"data.cache_dir={PLACE / 'cache'}", f"checkpointing.save_dir={run}", *keys]
    return [sys.executable, str(HERE / "main.py"), f"mode={mode}", *words]


def guarded(words: list[str], budget: list[str], kill_at: int | None = None) -> int:
    """A training under `outlast run`, its lines shown; kill -9 of its whole group once it has done so many steps."""
    words = [sys.executable, "-m", "outlast", "run", "--dir", str(PLACE), *budget, "--", *words]
    print("$", " ".join(words), flush=True)
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    try:
        for line in child.stdout or ():
            print("  |", line.rstrip()[:150], flush=True)
            if kill_at is not None and f"step {kill_at}/" in line:
                os.killpg(child.pid, signal.SIGKILL)
                print("  | kill -9, as a machine that goes away does", flush=True)
                break
        return child.wait()
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)


def lines(run: Path, key: str) -> list[float]:
    """Figures that the training wrote down."""
    found = (json.loads(line) for line in (run / "log.jsonl").read_text().splitlines())
    return [facts[key] for facts in found if key in facts]


def perplexity(run: Path, out: Path, *keys: str) -> float:
    """What `mode=ppl_eval` finds."""
    words = command("ppl_eval", run, f"eval.perplexity_path={out}", *keys)
    subprocess.run(words, check=True)
    return float(json.loads(out.read_text())["perplexity"])


def main() -> int:
    """The whole story."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--megabytes", type=int, default=32)
    options = parser.parse_args()
    os.environ.setdefault("OWT_SUBSET_NUM", "120")
    os.environ["PYTHONUNBUFFERED"] = "1"
    began, promises = time.monotonic(), dict[str, bool]()
    place = PLACE / "volume"
    run = place / "run"

    say(f"Training on a volume of {options.megabytes} MB (a checkpoint takes 6 MB), killed on the way")
    budget = volume(place, options.megabytes)
    keys = (
        f"trainer.max_steps={options.steps}",
        "optim.lr=3e-3",
        f"trainer.val_check_interval={options.steps // 4}",
        f"checkpointing.every_n_train_steps={options.steps // 10}",
    )
    train = command("train", run, *keys)
    kill_at = options.steps // 2 // 10 * 10
    promises["it was killed by kill -9 on the way"] = guarded(train, budget, kill_at) == -signal.SIGKILL
    say("The same command again: it goes on from the newest checkpoint that verifies")
    promises["the same command finishes it"] = guarded(train, budget) == 0
    first, last = lines(run, "val/nll")[0], lines(run, "val/nll")[-1]
    promises[f"the loss on held-out text falls ({first:.2f} to {last:.2f} nats)"] = last < first
    kept = sorted(path.name for path in (run / "checkpoints").glob("*.ckpt") if not path.is_symlink())
    promises[f"it kept {', '.join(kept)} and no more"] = len(kept) <= 3
    verify = [sys.executable, "-m", "outlast", "checkpoints", "verify", "--dir", str(run / "checkpoints")]
    promises["they verify"] = subprocess.run(verify).returncode == 0

    say("Perplexity on held-out text, of the trained network and of an untrained one")
    trained = perplexity(run, PLACE / "trained.json")
    tokenizer = f"data.tokenizer={run / 'tokenizer.json'}"
    untrained = perplexity(PLACE / "untrained", PLACE / "untrained.json", "algo.backbone=hf_dit", tokenizer)
    promises[f"perplexity {trained:.0f}, untrained {untrained:.0f}"] = trained < 0.5 * untrained

    say("Text")
    out = PLACE / "samples.json"
    keys = ("sampling.steps=64", "sampling.noise_removal=ancestral", "loader.eval_batch_size=2")
    subprocess.run(command("sample_eval", run, *keys, f"eval.generated_samples_path={out}"), check=True)
    for sample in json.loads(out.read_text())["samples"]:
        print("  |", repr(sample["text"])[:300])
    promises["samples.json has text"] = all(s["text"].strip() for s in json.loads(out.read_text())["samples"])

    say(f"What was promised ({time.monotonic() - began:.0f} s)")
    for promise, came_true in promises.items():
        print(f"  {'yes' if came_true else 'NO '}  {promise}")
    return 0 if all(promises.values()) else 1


if __name__ == "__main__":
    # Stopped from outside, it takes its training and its volume along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    atexit.register(leave)
    sys.exit(main())
