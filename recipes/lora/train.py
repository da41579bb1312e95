"""LoRA fine-tuning of a causal language model with Transformers and PEFT, guarded by Outlast.

    python train.py --preset toy                     # guards itself: the OutlastCallback
    outlast run -- python train.py --preset toy      # guarded from outside, restarted after a kill: the same otherwise

The same command goes on where it was. --help names every knob, README.md says more.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from lora.settings import changed, parse  # noqa: E402
from outlast.errors import OutlastError  # noqa: E402


def main(words: list[str]) -> int:
    """Train; returns the exit code."""
    try:
        settings = parse(words)
        print("lora:", ", ".join(f"{name} {value}" for name, value in changed(settings).items()), flush=True)
        from lora.training import run  # what costs seconds to import comes after --help

        run(settings)
    except OutlastError as error:
        print(f"lora: {error}", file=sys.stderr, flush=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
