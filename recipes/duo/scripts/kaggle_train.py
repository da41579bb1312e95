"""All of it in one go: check the machine, train, measure the perplexity, let it write.

Usage: python scripts/kaggle_train.py [--subset 11000] [--steps 500] [--model small] [--length 512] [--skip WORD ...]
                                      [-- KEY=VALUE ...]      further keys of main.py, for all three parts

What the seeds' notebooks do by hand: caches on the roomy volume, a subset of the text, and a training
that goes on where the last session stopped. Start the same command again to go on.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PARTS = {
    "check": [sys.executable, str(HERE / "check_setup.py")],
    "train": ["bash", str(HERE / "train_owt_kaggle.sh")],
    "eval": ["bash", str(HERE / "eval_owt_kaggle.sh")],
    "gen": ["bash", str(HERE / "gen_owt_kaggle.sh")],
}
"""What is run, in this order."""


def main() -> int:
    """Run the parts; the first that fails ends it, with its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subset", type=int, default=11000, metavar="N", help="documents of OpenWebText")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--model", default="small", choices=("toy", "tiny", "small", "medium"))
    parser.add_argument("--length", type=int, default=512, help="tokens of a block")
    parser.add_argument("--skip", action="append", default=[], choices=tuple(PARTS), help="leave out; repeatable")
    parser.add_argument("keys", nargs="*", metavar="KEY=VALUE", help="further keys of main.py")
    options = parser.parse_args()
    environment = {
        **os.environ,
        "OWT_SUBSET_NUM": str(options.subset),
        "MODEL": options.model,
        "LENGTH": str(options.length),
        "PYTHON": sys.executable,
    }
    for name, command in PARTS.items():
        if name in options.skip:
            continue
        words = [] if name == "check" else list(options.keys)
        words += [f"trainer.max_steps={options.steps}"] if name == "train" else []
        print(f"\n=== {name}", flush=True)
        code = subprocess.run([*command, *words], env=environment).returncode
        if code:
            print(f"=== {name} ended with exit code {code}; what it said is above", file=sys.stderr)
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
