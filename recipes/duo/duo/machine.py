"""What to train on: what was asked for, against what is here. Pure but for `here`."""

from __future__ import annotations

from dataclasses import dataclass

from duo.settings import Trainer
from outlast.errors import BadInput

PRECISIONS = {
    "16": "fp16", "16-mixed": "fp16", "fp16": "fp16",
    "bf16": "bf16", "bf16-mixed": "bf16",
    "32": "fp32", "32-true": "fp32", "fp32": "fp32",
    "auto": "auto",
}  # fmt: skip
"""What may be written, and which it is."""
_LIGHTNING = {"fp16": "16-mixed", "bf16": "bf16-mixed", "fp32": "32-true"}


@dataclass(frozen=True, slots=True)
class Facts:
    """What is here."""

    gpus: int
    """CUDA devices that torch can use."""
    best: str
    """Precision that suits the device: fp32, bf16 or fp16."""
    doubt: str | None
    """Why what was asked for is not what the GPU does well; None when it is."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What is trained on."""

    accelerator: str
    """gpu or cpu."""
    devices: int
    precision: str
    """As Lightning calls it."""
    notes: tuple[str, ...]
    """What differs from what was asked for, and why; for the user."""


def asked_precision(trainer: Trainer) -> str:
    """fp16, bf16, fp32 or auto.

    Raises:
        BadInput: for a precision that there is not.
    """
    if trainer.precision not in PRECISIONS:
        raise BadInput(f"trainer.precision is {trainer.precision!r}", hint=f"one of {', '.join(PRECISIONS)}")
    return PRECISIONS[trainer.precision]


def decide(trainer: Trainer, facts: Facts) -> Machine:
    """The device and precision to train in.

    Raises:
        BadInput: for a precision that there is not, or more GPUs than there are.
    """
    precision, notes = asked_precision(trainer), []
    wants_gpu = trainer.accelerator in ("gpu", "cuda")
    if trainer.accelerator == "cpu" or not facts.gpus:
        if wants_gpu:
            notes.append("no GPU here that torch can use (trainer.accelerator=gpu): this trains on the CPU, slowly")
        if precision == "fp16":
            notes.append("precision 16 is for GPUs: on the CPU this computes in 32")
        chosen = {"fp16": "fp32", "auto": "fp32"}.get(precision, precision)
        return Machine("cpu", trainer.devices, _LIGHTNING[chosen], tuple(notes))
    if trainer.devices > facts.gpus:
        raise BadInput(
            f"trainer.devices={trainer.devices}, and {facts.gpus} GPUs are here", hint=f"trainer.devices={facts.gpus}"
        )
    if precision == "auto":
        precision = facts.best
        notes.append(f"precision {precision}: what this GPU is best at")
    elif facts.doubt:
        notes.append(f"precision {precision}: {facts.doubt}")
    return Machine("gpu", trainer.devices, _LIGHTNING[precision], tuple(notes))


def here(trainer: Trainer) -> Facts:
    """What torch finds on this machine."""
    import torch

    from outlast.train import precision

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    device = precision.look("cuda" if gpus else "cpu")
    return Facts(gpus, precision.decide(device).name, precision.decide(device, asked_precision(trainer)).doubt)
