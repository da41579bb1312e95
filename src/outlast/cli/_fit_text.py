"""What ``outlast fit`` prints: as text, and as a document for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from outlast.budget import Fit, Gpu, Preset, Subject, Tried
from outlast.budget.kinds import Kind
from outlast.budget.ready import lightning_lines, loop_lines, model_lines, trainer_lines
from outlast.budget.reasons import OPTIMIZERS, relative_time, why_not
from outlast.budget.straying import Strayed
from outlast.budget.tasks import TASKS
from outlast.budget.weights import Weights
from outlast.cli._table import table
from outlast.errors import BadInput
from outlast.host import show_bytes

_DESIGN = {"full": 0.0, "light": 0.016, "weights": 0.086}
"""What a GPT of 7.4 million parameters strays by over 100 steps, after 200 (DESIGN.md; benchmarks/light.py)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Everything that was found."""

    subject: Subject
    """The model."""
    weights: Weights
    """Its parameters."""
    gpu: Gpu
    """What it is to fit."""
    fit: Fit
    """The search, with a choice."""
    preset: Preset | None
    """What was named; None for none."""
    targets: tuple[str, ...]
    """Modules that LoRA was told to adapt."""
    transformers: str | None
    """Version that is installed here."""
    kinds: tuple[Kind, ...]
    """Kinds of checkpoint; empty when not asked for."""
    strayed: Strayed | BadInput | None
    """What resuming costs, or why that was not measured; None when not asked for."""

    @property
    def chosen(self) -> Tried:
        """The choice."""
        assert self.fit.chosen is not None
        return self.fit.chosen


def text(answer: Answer) -> Iterator[str]:
    """Lines for people."""
    yield from _what(answer)
    yield ""
    yield from _choice(answer)
    yield ""
    yield from _others(answer.fit)
    for title, lines in ready(answer).items():
        yield from ("", f"{title}:", *(f"    {line}" for line in lines))
    if answer.preset is not None:
        yield from ("", *_preset(answer.preset))
    if answer.kinds:
        yield from ("", *_checkpoints(answer))


def _what(answer: Answer) -> Iterator[str]:
    subject, weights = answer.subject, answer.weights
    trained = "all trained" if weights.trained == weights.count else f"{weights.trained:,} trained"
    facts = [f"{weights.count:,} parameters, {trained}"]
    facts += [f"weights in {subject.weights}"] if subject.weights else []
    facts += [f"length {answer.chosen.candidate.length}"] if answer.chosen.candidate.length is not None else []
    yield f"{subject.name}{f', {subject.task}' if subject.task else ''}: {'; '.join(facts)}"
    wanted = answer.fit.wanted
    yield (
        f"{answer.gpu.name}: {show_bytes(wanted.capacity_bytes)}, of which {show_bytes(wanted.margin_bytes)} stay free"
    )


def _choice(answer: Answer) -> Iterator[str]:
    chosen, wanted = answer.chosen, answer.fit.wanted
    here = chosen.candidate
    devices = f" x {here.world} devices" if here.world > 1 else ""
    again = ", activation checkpointing" if here.checkpointing else ""
    yield (
        f"batch {here.effective_batch} = {here.micro_batch} x {here.accumulation}{devices}, {here.precision}{again}, "
        f"{here.optimizer}"
    )
    if here.optimizer != "adamw":
        yield f"    {OPTIMIZERS[here.optimizer]}"
    if here.length != wanted.length:
        yield f"    sequences of {here.length} tokens where {wanted.length} were asked for: other data"
    needed = chosen.estimate.needed_bytes
    spare = wanted.allowed_bytes - needed
    yield f"needs {show_bytes(needed)}; {show_bytes(spare)} to spare beside the margin"
    yield "    " + ", ".join(f"{name} {show_bytes(size)}" for name, size in _parts(chosen).items() if size)
    said = chosen.estimate.prediction
    if said is not None:
        yield f"    the peak is in {said.phase}: {said.operation}"


def _parts(chosen: Tried) -> dict[str, int]:
    said = chosen.estimate.prediction
    if said is None:
        return {}
    parts = asdict(said.parts)
    return {
        **parts,
        "held in fragments": said.peak_reserved_bytes - said.peak_allocated_bytes,
        "CUDA context": said.context_bytes or 0,
        "DDP's buckets": chosen.estimate.needed_bytes - said.needed_bytes,
    }


def _others(fit: Fit) -> Iterator[str]:
    rows = []
    for one in sorted(fit.tried, key=lambda one: (one.candidate.length or 0, one.estimate.needed_bytes), reverse=True):
        here, time = one.candidate, relative_time(one, fit)
        row = [
            f"{here.micro_batch} x {here.accumulation}", "yes" if here.checkpointing else "no", here.optimizer,
            show_bytes(one.estimate.needed_bytes), f"{time:.2f}" if time is not None else "-", why_not(one, fit),
        ]  # fmt: skip
        rows.append([*row[:3], *([str(here.length)] if fit.wanted.shorter else []), *row[3:]])
    head = ["batch", "checkpointing", "optimizer", *(["length"] if fit.wanted.shorter else []), "needs", "time", ""]
    yield from table(head, rows).splitlines()
    yield "time: of one move of the optimizer beside the chosen one, by a roofline; ranks only, no forecast"


def ready(answer: Answer) -> dict[str, list[str]]:
    """Lines to copy, by what they are for."""
    subject, here = answer.subject, answer.chosen.candidate
    found: dict[str, list[str]] = {}
    if subject.task is not None and subject.weights is not None:
        found["the model"] = model_lines(TASKS[subject.task].auto, subject.weights, subject.rank, answer.targets)
    return {
        **found,
        "Transformers": trainer_lines(here, answer.transformers),
        "Lightning": lightning_lines(here, answer.transformers),
        "a loop of your own": loop_lines(here, answer.transformers),
    }


def _preset(preset: Preset) -> Iterator[str]:
    yield f"preset {preset.name}: {preset.meant}"
    settings: Mapping[str, Any] = {**preset.settings, **({"save": preset.save} if preset.save else {})}
    if settings:
        yield "    also: " + ", ".join(f"{key}={value!r}" for key, value in settings.items())


def _checkpoints(answer: Answer) -> Iterator[str]:
    full = answer.kinds[0].bytes
    strayed = answer.strayed if isinstance(answer.strayed, Strayed) else None
    rows = [
        [
            kind.name, show_bytes(kind.bytes), f"{100 * kind.bytes / full:.0f} %",
            f"{strayed.by_kind[kind.name]:.4f}" if strayed else "-", f"{_DESIGN[kind.name]:.3f}", kind.keeps,
        ]
        for kind in answer.kinds
    ]  # fmt: skip
    yield from table(["checkpoint", "bytes", "of full", "strays", "after 200 steps", "keeps"], rows).splitlines()
    if strayed:
        yield f"strays: mean |loss - uninterrupted loss| over {strayed.steps} steps after the resume, measured on"
        yield f"    {strayed.model}, trained here for some steps with AdamW: one run, its size of things only"
    elif answer.strayed is not None:
        yield f"strays: not measured: {answer.strayed}"


def document(answer: Answer) -> dict[str, Any]:
    """The same for programs: bytes, tokens, samples."""

    def one(tried: Tried) -> dict[str, Any]:
        return {
            **asdict(tried.candidate),
            "effective_batch": tried.candidate.effective_batch,
            "needed_bytes": tried.estimate.needed_bytes,
            "fits": tried.fits,
            "relative_time": relative_time(tried, answer.fit),
            "why": why_not(tried, answer.fit),
        }

    said = answer.chosen.estimate.prediction
    strayed = answer.strayed
    return {
        "model": answer.subject.name,
        "task": answer.subject.task,
        "parameters": answer.weights.count,
        "trained": answer.weights.trained,
        "weights": answer.subject.weights,
        "gpu": answer.gpu.name,
        "capacity_bytes": answer.fit.wanted.capacity_bytes,
        "margin_bytes": answer.fit.wanted.margin_bytes,
        "chosen": one(answer.chosen),
        "parts": _parts(answer.chosen),
        "peak": {"phase": said.phase, "operation": said.operation} if said else None,
        "tried": [one(tried) for tried in answer.fit.tried],
        "lines": ready(answer),
        "preset": answer.preset.name if answer.preset else None,
        "checkpoints": {kind.name: kind.bytes for kind in answer.kinds} or None,
        "strays": dict(strayed.by_kind) if isinstance(strayed, Strayed) else None,
        "strays_of": strayed.model if isinstance(strayed, Strayed) else strayed.message if strayed else None,
    }
