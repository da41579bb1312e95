"""In a training process (needs torch): `Run`, for people with their own loop."""

from outlast.train.leaving import Stopped
from outlast.train.run import Run

__all__ = ["Run", "Stopped"]
