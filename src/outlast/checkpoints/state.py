"""The random generators of a training process: taken, and put back. Needs torch; numpy and CUDA where in use."""

from __future__ import annotations

import random
import sys
from typing import Any


def take_generators() -> dict[str, Any]:
    """State of every global random generator of this process: Python, numpy, torch on CPU and on each CUDA device."""
    import torch

    states: dict[str, Any] = {"python": random.getstate(), "torch": torch.get_rng_state()}
    if "numpy" in sys.modules:
        states["numpy"] = sys.modules["numpy"].random.get_state()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def put_generators(states: dict[str, Any]) -> None:
    """Put back what `take_generators` took; devices that are not here any more are left out."""
    import torch

    random.setstate(states["python"])
    torch.set_rng_state(states["torch"])
    if "numpy" in states:
        import numpy

        numpy.random.set_state(states["numpy"])
    if "cuda" in states and torch.cuda.is_available():
        for device, state in enumerate(states["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(state, device)
