"""Before the run: will it fit?

The door is `predict`: the peak memory of one training step, from the user's own model code, with no GPU and no weights;
and `choose_backend`: which implementation of attention a GPU can take. Importing this room does not import torch.
"""

from outlast.budget.attention import Attention, kernel_for
from outlast.budget.backends import FLASH_PACKAGES, AttentionChoice, FlashPackage, Package, choose_backend, unfit
from outlast.budget.gpus import GPUS, Gpu, gpu_named
from outlast.budget.memory import PRECISIONS, Parts, Prediction, measure, predict

__all__ = [
    "FLASH_PACKAGES",
    "GPUS",
    "PRECISIONS",
    "Attention",
    "AttentionChoice",
    "FlashPackage",
    "Gpu",
    "Package",
    "Parts",
    "Prediction",
    "choose_backend",
    "gpu_named",
    "kernel_for",
    "measure",
    "predict",
    "unfit",
]
