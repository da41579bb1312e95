"""Before the run: will it fit?

The door is `predict`: the peak memory of one training step, from the user's own model code, with no GPU and no weights.
Importing this room does not import torch.
"""

from outlast.budget.gpus import GPUS, Gpu, gpu_named
from outlast.budget.memory import PRECISIONS, Parts, Prediction, measure, predict

__all__ = ["GPUS", "PRECISIONS", "Gpu", "Parts", "Prediction", "gpu_named", "measure", "predict"]
