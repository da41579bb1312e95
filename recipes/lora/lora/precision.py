"""Which numbers to compute with on this machine: a decision, and what there is to say of it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from lora.settings import Settings


@dataclass(frozen=True, slots=True)
class Machine:
    """What counts for precision."""

    has_cuda: bool
    computes_bf16: bool
    """In hardware: from Ampere on. A T4 or P100 only imitates it."""
    has_bitsandbytes: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """How the frozen base is held and the step computed."""

    dtype: str
    """torch's name of the frozen weights' type."""
    mixed: str | None
    """``bf16`` or ``fp16`` autocast; None computes in the weights' type."""
    is_quantized: bool
    """The base is in 4 bits (NF4, double quantisation)."""
    uses_cpu: bool
    """There is no CUDA GPU."""
    said: tuple[str, ...]
    """What differs from what was asked for, and why."""


def look() -> Machine:
    """This machine."""
    import torch

    has_cuda = torch.cuda.is_available()
    return Machine(
        has_cuda,
        has_cuda and torch.cuda.get_device_capability()[0] >= 8,
        find_spec("bitsandbytes") is not None,
    )


def choose(settings: Settings, machine: Machine) -> Choice:
    """Precision for a machine. The adapter itself is always trained in float32 (PEFT's default)."""
    missing = [
        what
        for what, is_there in {"a CUDA GPU": machine.has_cuda, "bitsandbytes": machine.has_bitsandbytes}.items()
        if not is_there
    ]
    wants = settings.quantization == "nf4"
    is_quantized = wants and not missing
    said = (f"4-bit (nf4) needs {' and '.join(missing)}: LoRA without quantisation",) if wants and missing else ()
    half = "bfloat16" if machine.computes_bf16 else "float16"
    dtype = settings.dtype if settings.dtype != "auto" else half if machine.has_cuda else "float32"
    mixed = {"bfloat16": "bf16", "float16": "fp16"}.get(dtype)
    if not machine.has_cuda and mixed == "fp16":
        dtype, mixed, said = "float32", None, (*said, "float16 needs a GPU: float32")
    if machine.has_cuda and mixed == "bf16" and not machine.computes_bf16:
        dtype, mixed, said = "float16", "fp16", (*said, "this GPU only imitates bfloat16: float16")
    return Choice(dtype, mixed, is_quantized, not machine.has_cuda, said)
