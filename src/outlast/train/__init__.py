"""In a training process (needs torch): `Run`, for people with their own loop, and `Precision`.

`outlast.train.attention` has the choice of attention for models of one's own and for Transformers.
"""

from outlast.train.leaving import Stopped
from outlast.train.precision import Precision
from outlast.train.run import Run

__all__ = ["Precision", "Run", "Stopped"]
