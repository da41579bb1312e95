"""Before the run: will it fit?

`predict` says the peak memory of one training step, from the user's own model code, with no GPU and no weights.
`choose` finds the fastest way to train a batch that fits; `apply` puts it into a plain configuration; `choose_backend`
says which implementation of attention a GPU can take. `simulate` is disk over time; `look_ahead` does so without
Outlast, under it, and with deletions that fail. Importing this room does not import torch.
"""

from outlast.budget.apply import Applied, Change, apply
from outlast.budget.attention import Attention, kernel_for
from outlast.budget.backends import FLASH_PACKAGES, AttentionChoice, FlashPackage, Package, choose_backend, unfit
from outlast.budget.course import Course, Lying, Saves, Thing, Volume
from outlast.budget.disk import least_bytes, simulate
from outlast.budget.fit import Candidate, Estimate, Fit, Tried, Wanted, beside, choose
from outlast.budget.gpus import GPUS, Gpu, gpu_like, gpu_named
from outlast.budget.habits import HABITS, Habit, habit_named
from outlast.budget.memory import PRECISIONS, Parts, Prediction, measure, predict
from outlast.budget.outlook import Outlook, Run, look_ahead
from outlast.budget.presets import PRESETS, Preset, preset_named
from outlast.budget.sizes import SaveBytes
from outlast.budget.subject import Subject, Wishes, subject_named

__all__ = [
    "Applied",
    "Attention",
    "AttentionChoice",
    "Candidate",
    "Change",
    "Course",
    "Estimate",
    "FLASH_PACKAGES",
    "Fit",
    "FlashPackage",
    "GPUS",
    "Gpu",
    "HABITS",
    "Habit",
    "Lying",
    "Outlook",
    "PRECISIONS",
    "PRESETS",
    "Package",
    "Parts",
    "Prediction",
    "Preset",
    "Run",
    "SaveBytes",
    "Saves",
    "Subject",
    "Thing",
    "Tried",
    "Volume",
    "Wanted",
    "Wishes",
    "apply",
    "beside",
    "choose",
    "choose_backend",
    "gpu_like",
    "gpu_named",
    "habit_named",
    "kernel_for",
    "least_bytes",
    "look_ahead",
    "measure",
    "predict",
    "preset_named",
    "simulate",
    "subject_named",
    "unfit",
]
