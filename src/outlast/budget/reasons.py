"""Why a way to train was not chosen, and what would make a batch fit. Pure."""

from __future__ import annotations

from outlast.budget.fit import Fit, Tried
from outlast.budget.gpus import GPUS, Gpu
from outlast.errors import DoesNotFit
from outlast.host import show_bytes

OPTIMIZERS = {
    "adamw": "AdamW with float32 moments",
    "adamw-8bit": "8-bit AdamW: its moments are rounded, so training takes a close, but other course",
    "adafactor": "Adafactor: its second moment is factored and it has no first one: training takes another course",
}
"""What each optimizer is, and what it changes (bitsandbytes, Dettmers and others 2022; Shazeer and Stern 2018)."""


def why_not(one: Tried, fit: Fit) -> str:
    """Why this candidate is not the chosen one."""
    chosen = fit.chosen
    if chosen is not None and one.candidate == chosen.candidate:
        return "chosen"
    if not one.fits:
        return f"{show_bytes(one.estimate.needed_bytes - fit.wanted.allowed_bytes)} too much"
    if chosen is None:
        return "fits"
    if one.candidate.length != chosen.candidate.length:
        return "shorter than need be"
    if one.candidate.optimizer != chosen.candidate.optimizer:
        return "changes training without need"
    if fit.wanted.at_most is not None and one.candidate.micro_batch > fit.wanted.at_most:
        return f"more than {fit.wanted.at_most} at once: not allowed"
    ways = ["computes the forward twice"] if one.candidate.checkpointing and not chosen.candidate.checkpointing else []
    ways += ["smaller micro-batches"] if one.candidate.micro_batch < chosen.candidate.micro_batch else []
    return ", ".join(ways) or "slower"


def relative_time(one: Tried, fit: Fit) -> float | None:
    """How long it takes beside the chosen one, by the roofline; None when not known.

    Optimizers are not compared: what 8-bit AdamW computes is not traced.
    """
    if fit.chosen is None or not one.seconds or not fit.chosen.seconds:
        return None
    if one.candidate.optimizer != fit.chosen.candidate.optimizer:
        return None
    return one.seconds / fit.chosen.seconds


def refusal(fit: Fit, gpu: Gpu, what: str, *, can_shorten: bool = True, can_adapt: bool = True) -> DoesNotFit:
    """The error where nothing fits: what is short, by how much, and what would make it fit.

    Args:
        fit: a search that chose nothing.
        gpu: what it was for.
        what: name of the model.
        can_shorten: shorter sequences were not allowed, and could be.
        can_adapt: all weights are trained, so that LoRA would help.
    """
    wanted = fit.wanted
    least = min(fit.tried, key=lambda one: one.estimate.needed_bytes)
    needed, here = least.estimate.needed_bytes, least.candidate
    how = [f"micro-batch {here.micro_batch}", here.precision, here.optimizer]
    how += ["activation checkpointing"] if here.checkpointing else []
    how += [f"length {here.length}"] if here.length is not None else []
    message = (
        f"{what} does not fit a {gpu.name}: it needs {show_bytes(needed)} at least ({', '.join(how)}), "
        f"and {show_bytes(wanted.allowed_bytes)} may be used ({show_bytes(wanted.capacity_bytes)} less a margin of "
        f"{show_bytes(wanted.margin_bytes)}): {show_bytes(needed - wanted.allowed_bytes)} too much"
    )
    return DoesNotFit(message, hint="; ".join(_ways_out(fit, gpu, needed, can_shorten, can_adapt)))


def _ways_out(fit: Fit, gpu: Gpu, needed: int, can_shorten: bool, can_adapt: bool) -> list[str]:
    wanted = fit.wanted
    found = []
    if needed <= wanted.capacity_bytes:
        found.append(f"a margin below {show_bytes(wanted.capacity_bytes - needed)} (--margin)")
    if wanted.precision == "fp32":
        found.append(f"--precision {gpu.half}")
    if wanted.optimizers == ("adamw",):
        found.append("another optimizer (--optimizer adamw-8bit or adafactor)")
    if can_shorten and wanted.length is not None and not wanted.shorter:
        found.append("shorter sequences (--allow-shorter)")
    if can_adapt:
        found.append("train an adapter only (--lora 16)")
    share = 1 - wanted.margin_bytes / wanted.capacity_bytes
    larger = [row for row in GPUS if row.memory_bytes * share >= needed + max(0, row.context_bytes - gpu.context_bytes)]
    if larger:
        found.append(f"a GPU such as {min(larger, key=lambda row: row.memory_bytes).name}")
    return found or ["a smaller model: no GPU of the table holds it"]
