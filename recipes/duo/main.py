"""DUO: train a uniform-state diffusion language model, measure its perplexity, let it write.

    python main.py mode=train        data=offline model=toy trainer.max_steps=200
    python main.py mode=ppl_eval     data=offline model=toy
    python main.py mode=sample_eval  data=offline model=toy

`python main.py --help` prints every key with its value. Nothing here needs Outlast's command, and under
`outlast run -- python main.py ...` the training survives a full disk, a kill and the end of the session.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import hydra
from omegaconf import OmegaConf

from duo import overrides, settings
from outlast.errors import OutlastError

CONFIGS = Path(__file__).resolve().parent / "configs"
MODES = {
    "train": ("duo.train", "run"),
    "ppl_eval": ("duo.evaluate", "perplexity"),
    "sample_eval": ("duo.evaluate", "sample"),
}
"""Where each mode is; imported when it is asked for, since torch takes seconds."""


@hydra.main(version_base=None, config_path=str(CONFIGS), config_name="config")
def program(config: Any) -> None:
    """One run, from Hydra's configuration."""
    try:
        asked = settings.read(OmegaConf.to_container(config, resolve=True))  # type: ignore[arg-type]
        module, function = MODES[asked.mode]
        getattr(import_module(module), function)(asked)
    except OutlastError as error:  # here: Hydra would print a traceback
        leave(error)


def leave(error: OutlastError) -> None:
    """Say what is wrong and what to do, without a traceback."""
    print(f"duo: {error}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    try:
        sys.argv[1:] = overrides.checked(sys.argv[1:], CONFIGS)
    except OutlastError as error:
        leave(error)
    program()
