"""Mixed precision that is right for the device: which, with or without a gradient scaler, and why. Needs torch.

Not asked of ``torch.cuda.is_bf16_supported()``: it says True on a T4 and a V100, where bfloat16 is emulated and slow.
What a GPU does well is in `outlast.doctor.GENERATIONS`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from outlast.doctor import generation
from outlast.errors import BadInput

_log = logging.getLogger("outlast")
NAMES = ("auto", "fp32", "bf16", "fp16")
"""What can be asked for."""
_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Device:
    """What a choice of precision looks at."""

    kind: str
    """Type of the device as torch calls it: ``cuda``, ``cpu``, ``mps`` ..."""
    name: str
    """For the user."""
    capability: tuple[int, int] | None
    """Compute capability; None for all but NVIDIA's GPUs."""
    native_bf16: bool | None
    """It computes in bfloat16 itself; None where that is not known, or follows from the capability."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which precision, and why."""

    name: str
    """``fp32``, ``bf16`` or ``fp16``; the weights stay as they are."""
    why: str
    """A phrase for the user."""
    doubt: str | None = None
    """Why what was asked for is not what the device does well; None when it is, or nothing was asked for."""


def decide(device: Device, wanted: str = "auto") -> Verdict:
    """The precision to train in. Pure.

    Args:
        device: what is known of the device.
        wanted: one of `NAMES`; what is asked for is taken, also where it is slow, and that is said.

    Raises:
        BadInput: for a precision that there is not.
    """
    if wanted not in NAMES:
        raise BadInput(f"precision is {wanted!r}", hint=f"one of {', '.join(NAMES)}")
    best, why = _best(device)
    if wanted == "auto":
        return Verdict(best, why)
    is_doubtful = wanted not in ("fp32", best) and wanted not in _good(device)
    return Verdict(wanted, "asked for", f"{why}, and {wanted} was asked for" if is_doubtful else None)


def _best(device: Device) -> tuple[str, str]:
    if device.capability is not None:
        row = generation(device.capability)
        best = "fp32" if row.precisions[0] == "no" else row.precisions[0]
        number = f"{row.name}, {device.capability[0]}.{device.capability[1]}"
        return best, f"{device.name} ({number}) is best at {best}{row.note and '; ' + row.note}"
    if device.native_bf16:
        return "bf16", f"{device.name} computes in bf16 itself"
    unknown = "it is not known to gain by half precision" if device.native_bf16 is None else "it has no bf16 of its own"
    return "fp32", f"{device.name} is best at fp32: {unknown}"


def _good(device: Device) -> tuple[str, ...]:
    if device.capability is not None:
        return generation(device.capability).precisions
    return ("bf16",) if device.native_bf16 else ()


def look(device: Any = None) -> Device:
    """What is known of a torch device; None is the GPU in use, or the CPU where there is none.

    Raises:
        BadInput: for a device that is not here.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        here = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise BadInput(f"no device called {device!r}", hint="'cuda', 'cuda:1', 'cpu' ...") from error
    if here.type == "cpu":
        return Device("cpu", "this CPU", None, _cpu_has_bf16())
    if here.type != "cuda":
        asks = getattr(getattr(torch, here.type, None), "is_bf16_supported", None)
        return Device(here.type, here.type, None, bool(asks()) if asks else None)
    if (here.index or 0) >= torch.cuda.device_count():
        raise BadInput(
            f"no device {here} here: {torch.cuda.device_count()} CUDA devices", hint="'cpu', or a smaller one"
        )
    name = torch.cuda.get_device_name(here)
    if torch.version.hip:  # its numbers are not NVIDIA's
        return Device("cuda", name, None, bool(torch.cuda.is_bf16_supported()))
    major, minor = torch.cuda.get_device_capability(here)
    return Device("cuda", name, (major, minor), None)


def _cpu_has_bf16() -> bool | None:
    """Instructions for bfloat16 (AVX-512 BF16, AMX); None where this torch cannot tell."""
    asks = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    known = [bool(ask()) for ask in asks if ask is not None]
    return any(known) if known else None


class Precision:
    """Autocast, and a gradient scaler where one is needed.

    A loop of one's own needs one line of it; `outlast.Run(precision=...)` none at all::

        with precision.autocast():
            loss = model(**batch).loss

    Args:
        verdict: which precision, and why.
        kind: type of the device as torch calls it.
    """

    def __init__(self, verdict: Verdict, kind: str) -> None:
        self.name, self.why, self.doubt = verdict.name, verdict.why, verdict.doubt
        self.kind = kind
        self.scaler = torch.amp.GradScaler(kind) if verdict.name == "fp16" else None
        """Scales the loss so that small gradients are not lost in fp16; None where the precision needs none."""

    @classmethod
    def for_device(cls, device: Any = None, wanted: str | None = None) -> Precision:
        """bf16 where the device computes in it, fp16 with a scaler on GPUs before Ampere, else fp32.

        Args:
            device: a torch device; None for the GPU in use, or the CPU where there is none.
            wanted: ``bf16``, ``fp16`` or ``fp32`` to have that; None or ``auto`` for what is best.

        Raises:
            BadInput: for a precision or a device that there is not.
        """
        found = look(device)
        return cls(decide(found, wanted or "auto"), found.kind)

    @classmethod
    def for_model(cls, model: Any, wanted: str | None = None) -> Precision:
        """As `for_device`, for where the model is.

        Raises:
            BadInput: for a precision that there is not, or fp16 for weights that are in fp16 themselves.
        """
        weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
        precision = cls.for_device(weights[0].device if weights else "cpu", wanted)
        if precision.scaler is not None and any(weight.dtype == torch.float16 for weight in weights):
            raise BadInput(
                "the model's weights are in float16: their gradients cannot be scaled",
                hint="leave the weights in float32 (model.float()); autocast computes in fp16",
            )
        return precision

    def autocast(self) -> AbstractContextManager[Any]:
        """Forward and loss go inside; backward outside."""
        half = _TYPES.get(self.name)
        return nullcontext() if half is None else torch.autocast(self.kind, dtype=half)

    def around(self, loss_fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """A loss function that computes under autocast."""

        def within(batch: Any) -> Any:
            with self.autocast():
                return loss_fn(batch)

        return within

    def __str__(self) -> str:
        scaled = " with a gradient scaler" if self.scaler is not None else ""
        return f"{self.name}{scaled}: {self.doubt or self.why}"


def precision_of(model: Any, asked: str | Precision | None) -> Precision | None:
    """What a `Run` was given as its precision.

    Raises:
        BadInput: when it is none of these, or the model cannot be trained in it.
    """
    if asked is None or isinstance(asked, Precision):
        return asked
    if not isinstance(asked, str):
        raise BadInput(f"precision is {asked!r}", hint=f"one of {', '.join(NAMES)}, or a Precision")
    return Precision.for_model(model, asked)


def tell(precision: Precision | None, before: str | None, *, is_resumed: bool, write: Callable[..., object]) -> None:
    """Say which precision a run is in, and that a resumed one is in another than its checkpoint.

    Args:
        precision: the run's; None where it was given none.
        before: that of the checkpoint; None where that was given none.
        is_resumed: there is a checkpoint.
        write: the journal's.
    """
    now = precision.name if precision else None
    if precision is not None:
        write("precision", name=now, why=precision.why, doubt=precision.doubt, has_scaler=precision.scaler is not None)
        _log.log(logging.WARNING if precision.doubt else logging.INFO, "outlast: precision %s", precision)
    if is_resumed and before != now:
        why = precision.why if precision else "this Run was given no precision"
        write("precision_changed", before=before, now=now, why=why)
        _log.warning(
            "outlast: the checkpoint was made in %s, this run goes on in %s (%s): its losses will differ a little",
            before or "a precision that was not said", now or "a precision that is not said", why,
        )  # fmt: skip
