"""Before the run: will it fit?

`predict` says the peak memory of one training step, from the user's own model code, with no GPU and no weights.
`choose` finds the fastest way to train a batch that fits; `apply` puts it into a plain configuration.
Importing this room does not import torch.
"""

from outlast.budget.apply import Applied, Change, apply
from outlast.budget.fit import Candidate, Estimate, Fit, Tried, Wanted, beside, choose
from outlast.budget.gpus import GPUS, Gpu, gpu_like, gpu_named
from outlast.budget.memory import PRECISIONS, Parts, Prediction, measure, predict
from outlast.budget.presets import PRESETS, Preset, preset_named
from outlast.budget.subject import Subject, Wishes, subject_named

__all__ = [
    "GPUS",
    "PRECISIONS",
    "PRESETS",
    "Applied",
    "Candidate",
    "Change",
    "Estimate",
    "Fit",
    "Gpu",
    "Parts",
    "Prediction",
    "Preset",
    "Subject",
    "Tried",
    "Wanted",
    "Wishes",
    "apply",
    "beside",
    "choose",
    "gpu_like",
    "gpu_named",
    "measure",
    "predict",
    "preset_named",
    "subject_named",
]
