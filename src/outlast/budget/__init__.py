"""Before the run: will it fit?

`predict`: the peak memory of one training step, from the user's own model code, with no GPU and no weights.
`choose_backend`: which implementation of attention a GPU can take. `simulate`: disk over time; `look_ahead` does so
without Outlast, under it, and with deletions that fail. Importing this room does not import torch.
"""

from outlast.budget.attention import Attention, kernel_for
from outlast.budget.backends import FLASH_PACKAGES, AttentionChoice, FlashPackage, Package, choose_backend, unfit
from outlast.budget.course import Course, Lying, Saves, Thing, Volume
from outlast.budget.disk import least_bytes, simulate
from outlast.budget.gpus import GPUS, Gpu, gpu_named
from outlast.budget.habits import HABITS, Habit, habit_named
from outlast.budget.memory import PRECISIONS, Parts, Prediction, measure, predict
from outlast.budget.outlook import Outlook, Run, look_ahead
from outlast.budget.sizes import SaveBytes

__all__ = [
    "FLASH_PACKAGES",
    "GPUS",
    "HABITS",
    "PRECISIONS",
    "Attention",
    "AttentionChoice",
    "Course",
    "FlashPackage",
    "Gpu",
    "Habit",
    "Lying",
    "Outlook",
    "Package",
    "Parts",
    "Prediction",
    "Run",
    "SaveBytes",
    "Saves",
    "Thing",
    "Volume",
    "choose_backend",
    "gpu_named",
    "habit_named",
    "kernel_for",
    "least_bytes",
    "look_ahead",
    "measure",
    "predict",
    "simulate",
    "unfit",
]
