"""Which licence is a sentence of? Trained on 5 %, 20 % and all of the documents, then killed, out of time and resumed.

The text is that of /usr/share/common-licenses, cut into parts of four sentences; whole parts are held out. Everything
is written under demo-legal/. Exits with 0 only if what is promised came true.

Usage: python recipes/legal/demo.py [--epochs N]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
PLACE = Path("demo-legal").resolve()
WORDS = (
    "--model", "small", "--preset", "optimized", "--no-use-mixed-precision", "--learning-rate", "2e-3",
    "--max-length", "128", "--context", "2", "--validation", "0.25", "--seed", "1", "--log-every", "1",
    "--keep-only-best",
)  # fmt: skip
"""The same for every run here. Seed 1 holds out a part of each licence."""


def say(text: str) -> None:
    """A heading."""
    print(f"\n=== {text}", flush=True)


def command(name: str, *more: str) -> list[str]:
    """The command line of one session of a run."""
    words = [sys.executable, str(HERE / "train.py"), "--data", str(PLACE / "documents"), "--out", str(PLACE / name)]
    return [*words, *WORDS, *more]


def train(name: str, *more: str, kill_at: int | None = None) -> int:
    """One session, its output shown; with ``kill_at`` it is killed (kill -9) when it has logged so many steps."""
    words = command(name, *more)
    print("$", " ".join(["python", *words[1:]]), flush=True)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
    # One thread: so small a model gains nothing by more, and on a busy machine they wait for each other.
    environment.setdefault("OMP_NUM_THREADS", "1")
    log = PLACE / f"{name}.txt"
    with log.open("a") as output:
        began = output.tell()
        child = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, env=environment)
        try:
            while kill_at is not None and child.poll() is None and steps(name) < kill_at:
                time.sleep(0.05)
            if kill_at is not None and child.poll() is None:
                child.kill()
            code = child.wait()
        finally:
            child.kill()
    print("".join(f"  | {line}\n" for line in log.read_text()[began:].splitlines()), flush=True)
    return code


def lines(name: str) -> list[dict[str, float]]:
    """What a run has logged: losses of steps, scores of epochs."""
    path = PLACE / name / "log.jsonl"
    whole = [line for line in path.read_text().splitlines() if line.endswith("}")] if path.exists() else []
    return [json.loads(line) for line in whole]


def steps(name: str) -> int:
    """Steps that a run has logged."""
    return int(max((line["step"] for line in lines(name)), default=0))


def main() -> int:
    """Everything in turn; 0 when all of it came true."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    epochs = ["--num-epochs", str(parser.parse_args().epochs)]
    shutil.rmtree(PLACE, ignore_errors=True)
    PLACE.mkdir()
    promises: dict[str, bool] = {}

    say("Documents: licences of this machine")
    code = subprocess.run([sys.executable, str(HERE / "train.py"), "--licences", str(PLACE / "documents")]).returncode
    promises["documents are written"] = code == 0

    reports = {}
    for name, more in {"5 %": ("0.05",), "20 %": ("0.2",), "all": ()}.items():
        say(f"Train on {name} of the documents")
        flags = ["--use-subset", "--subset-ratio", *more] if more else []
        code = train(f"subset-{more[0]}" if more else "all", *epochs, *flags)
        path = PLACE / (f"subset-{more[0]}" if more else "all") / "report.json"
        promises[f"it trains on {name}"] = code == 0 and path.exists()
        if path.exists():
            reports[name] = json.loads(path.read_text())

    say("The same on all of them, killed (kill -9) in its second epoch, then in sessions that end before it is done")
    full = ["--save-frequency", "7", "--save-optimizer-state", *epochs]
    promises["it was killed"] = train("killed", *full, kill_at=45) == -9
    codes: list[int] = []
    while not (PLACE / "killed/report.json").exists() and len(codes) < 5:
        # The first session is short on purpose; the next one has time for the rest.
        codes.append(train("killed", *full, "--deadline", "5m" if codes else "7s"))
    promises[f"{len(codes)} more sessions were enough, each with exit code 0"] = len(codes) > 1 and not any(codes)
    is_same = lines("all") == lines("killed") != []
    promises["its losses and scores are those of the run that nobody stopped, to the bit"] = is_same

    say("How well it tells licences apart, by macro F1 on the held-out parts")
    print(f"{'documents':<12}{'this model':>12}{'TF-IDF':>12}{'commonest':>12}")
    for name, report in reports.items():
        print(f"{name:<12}" + "".join(f"{row['macro_f1']:>12.3f}" for row in report["scores"].values()))
    if "all" in reports:
        own, words, commonest = (row["macro_f1"] for row in reports["all"]["scores"].values())
        promises[f"macro F1 is far above the commonest class ({own:.2f} against {commonest:.2f})"] = own > 4 * commonest
        print(
            f"\nTF-IDF with logistic regression has {words:.2f}. On 500 sentences a BERT from random weights tries out"
        )
        print("the machinery; what it can do shows with published weights (--model law-ai/InLegalBERT).")

    say("What was promised")
    for promise, came_true in promises.items():
        print(f"  {'yes' if came_true else 'NO '}  {promise}")
    return 0 if all(promises.values()) else 1


if __name__ == "__main__":
    # Stopped from outside, it takes its training along.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
