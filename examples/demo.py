"""A training run on a volume that is too small for it: first without Outlast, then with it.

The volume is a real one where this user may mount one (as root, or in a user namespace), else a declared budget.
Everything is written under demo-run/. Exits with 0 only if what is promised came true.

Usage: python examples/demo.py [--megabytes N] [--steps N]
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
from pathlib import Path

HERE = Path(__file__).resolve().parent
PLACE = Path("demo-run").resolve()
IN_NAMESPACE = "OUTLAST_DEMO_IN_NAMESPACE"


def say(text: str) -> None:
    print(f"\n=== {text}", flush=True)


def may_unshare() -> bool:
    """True when this user can mount a volume in a namespace of their own."""
    command = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True, timeout=20).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def volume(name: str, megabytes: int, *, can_mount: bool) -> Path:
    """A folder for one run: a fresh tmpfs of that size where one can be mounted."""
    place = PLACE / name
    if place.is_mount():
        subprocess.run(["umount", place], check=True)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    if can_mount:
        size = f"size={megabytes * 10**6}"
        atexit.register(subprocess.run, ["umount", "-l", place], capture_output=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", size, "outlast-demo", place], check=True)
    return place


def train(place: Path, steps: int, *guard: str) -> subprocess.CompletedProcess[str]:
    """Run the training script, its output shown as it comes and kept."""
    command = [*guard, sys.executable, str(HERE / "demo/train.py"), str(place / "run"), "--steps", str(steps)]
    print("$", " ".join(command), flush=True)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    atexit.register(child.terminate)  # one that has ended takes no notice
    lines = []
    for line in child.stdout or ():
        lines.append(line)
        if "Writing model shards" not in line:
            print("  |", line.rstrip()[:150], flush=True)
    return subprocess.CompletedProcess(command, child.wait(), "".join(lines))


def command(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run one of Outlast's commands and show what it says."""
    print("$ outlast", *words, flush=True)
    done = subprocess.run([sys.executable, "-m", "outlast", *map(str, words)], capture_output=True, text=True)
    print(done.stdout + done.stderr, flush=True)
    return done


def losses(run: Path) -> list[float]:
    """Losses that the newest checkpoint's trainer state logged."""
    newest = max(run.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    log = json.loads((newest / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in log if "loss" in entry]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=45)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    is_root = os.geteuid() == 0
    if not is_root and may_unshare() and IN_NAMESPACE not in os.environ:
        words = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, *sys.argv]
        os.execvpe(words[0], words, {**os.environ, IN_NAMESPACE: "1"})
    promises: dict[str, bool] = {}

    say(f"Without Outlast, on a volume of {options.megabytes} MB (a checkpoint takes 13 MB, three are kept)")
    if is_root:
        place = volume("without", options.megabytes, can_mount=True)
        plain = train(place, options.steps)
        promises["without Outlast the run dies on the full volume"] = plain.returncode != 0
        subprocess.run(["umount", place], check=True)
    else:
        print("This user may not mount a volume, so the full disk cannot be shown; a budget stands in for it below.")

    say("The same script with Outlast")
    place = volume("with", options.megabytes, can_mount=is_root)
    budget = [] if is_root else ["--budget", f"{place}={options.megabytes}MB"]
    guarded = train(place, options.steps, sys.executable, "-m", "outlast", "run", "--dir", str(PLACE), *budget, "--")
    promises["with Outlast it finishes"] = guarded.returncode == 0
    command("checkpoints", "list", "--dir", place)
    promises["its checkpoints verify"] = command("checkpoints", "verify", "--dir", place).returncode == 0
    promises[f"the last is at step {options.steps}"] = (place / f"run/checkpoint-{options.steps}/outlast.json").exists()
    command("why", "--dir", PLACE)
    curve = losses(place / "run")
    promises[f"the loss falls ({curve[0]:.2f} to {curve[-1]:.2f})"] = curve[-1] < 0.8 * curve[0]
    if is_root:
        print(f"The volume is unmounted now, and its checkpoints with it; the run's journal stays in {PLACE}.")

    say("What was promised")
    for promise, came_true in promises.items():
        print(f"  {'yes' if came_true else 'NO '}  {promise}")
    return 0 if all(promises.values()) else 1


if __name__ == "__main__":
    # Stopped from outside, it takes its training and its volume along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
