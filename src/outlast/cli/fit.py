"""``outlast fit``: how to train a batch on a GPU so that it fits, as fast as can be, with the same effective batch."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from outlast.budget import Gpu, Preset, Subject, Wanted, Wishes, beside, choose, gpu_named, preset_named, subject_named
from outlast.budget.estimates import estimator
from outlast.budget.here import gpu_here
from outlast.budget.kinds import kinds_of
from outlast.budget.presets import at_most
from outlast.budget.reasons import OPTIMIZERS, refusal
from outlast.budget.straying import Strayed, measure_straying
from outlast.budget.weights import Weights, weights_of
from outlast.cli import _app
from outlast.cli._fit_text import Answer, document, text
from outlast.errors import BadInput
from outlast.host import parse_bytes

app = _app.new(__doc__ or "")
_EPILOG = "Exit codes: 0 it fits; 1 nothing fits (the hint says what would), or an error; 2 bad input."
_STEP = 64


@app.command(epilog=_EPILOG)
def fit(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A folder or file with a Transformers config, a well-known name (bert-base, llama-3.1-8b ...), a "
            "repository of the hub, or module:function of your own.",
        ),
    ],
    batch: Annotated[int, typer.Option(metavar="N", help="Samples of one move of the optimizer, over all devices.")],
    gpu: Annotated[str, typer.Option(metavar="GPU", help="T4, A100-40, H100 ...; default: the one that is here.")] = "",
    length: Annotated[int | None, typer.Option(metavar="TOKENS", help="Default: 512, or what the model can.")] = None,
    task: Annotated[str, typer.Option(metavar="TASK", help="causal-lm, sequence-classification ...")] = "auto",
    precision: Annotated[str, typer.Option(metavar="auto|fp32|fp16|bf16", help="auto: the GPU's half one.")] = "auto",
    weights: Annotated[
        str, typer.Option(metavar="auto|fp32|fp16|bf16", help="Type of the weights; auto: fp32, half with --lora.")
    ] = "auto",
    lora: Annotated[int | None, typer.Option(metavar="RANK", help="Train LoRA updates of this rank only.")] = None,
    lora_targets: Annotated[
        str, typer.Option(metavar="NAMES", help="Modules that LoRA adapts: q_proj,v_proj or all-linear.")
    ] = "",
    optimizer: Annotated[
        str, typer.Option(metavar="any|adamw|adamw-8bit|adafactor", help="any: AdamW unless it does not fit.")
    ] = "any",
    margin: Annotated[str, typer.Option(metavar="5%|1GB", help="To be left free.")] = "5%",
    allow_shorter: Annotated[bool, typer.Option("--allow-shorter", help="Shorten sequences if need be.")] = False,
    no_padding: Annotated[
        bool, typer.Option("--no-padding", help="All sequences are of full length: no mask.")
    ] = False,
    preset: Annotated[str, typer.Option(metavar="NAME", help="quick-test, low-memory, ultra-low or max-quality.")] = "",
    world: Annotated[int, typer.Option(metavar="N", help="GPUs that share the batch (DistributedDataParallel).")] = 1,
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="What each kind of checkpoint takes, and what resuming from it costs.")
    ] = False,
    as_json: _app.Json = False,
) -> None:
    """Find the fastest way to train this batch that fits, without a GPU and without weights."""
    row = _gpu(gpu)
    chosen_preset = preset_named(preset) if preset else None
    kind = _precision(precision, row)
    targets = tuple(name.strip() for name in lora_targets.split(",") if name.strip())
    wishes = Wishes(task, length, lora, targets, None if weights == "auto" else weights, kind, not no_padding)
    subject = subject_named(model, wishes)
    found = weights_of(subject)
    wanted = _wanted(batch, world, row, margin, kind, subject, found, optimizer, allow_shorter, chosen_preset)
    ask = estimator(subject, row, found)
    outcome = choose(wanted, ask)
    if outcome.chosen is None:
        can_adapt = subject.config is not None and lora is None
        raise refusal(outcome, row, subject.name, can_shorten=not allow_shorter, can_adapt=can_adapt)
    answer = Answer(
        subject=subject,
        weights=found,
        gpu=row,
        fit=beside(outcome, ask),
        preset=chosen_preset,
        targets=targets,
        transformers=_installed("transformers"),
        kinds=kinds_of(found, trained_only=lora is not None) if checkpoints else (),
        strayed=_strayed(subject, found) if checkpoints else None,
    )
    if as_json:
        _app.print_json(document(answer))
    else:
        print("\n".join(text(answer)))


def _gpu(name: str) -> Gpu:
    row = gpu_named(name) if name else gpu_here()
    if row is None:
        raise BadInput("this machine has no GPU that answers", hint="name the one to train on: --gpu T4")
    return row


def _precision(asked: str, gpu: Gpu) -> str:
    if asked == "auto":
        return gpu.half
    if asked not in ("fp32", "fp16", "bf16"):
        raise BadInput(f"no precision called {asked!r}", hint="auto, fp32, fp16 or bf16")
    if asked == "bf16" and gpu.half != "bf16":
        raise BadInput(
            f"a {gpu.name} has no bf16 arithmetic: it came with Ampere (compute capability 8.0)",
            hint="--precision fp16, with a loss scaler",
        )
    return asked


def _wanted(
    batch: int, world: int, gpu: Gpu, margin: str, precision: str, subject: Subject, weights: Weights, optimizer: str,
    allow_shorter: bool, preset: Preset | None,
) -> Wanted:  # fmt: skip
    if optimizer != "any" and optimizer not in OPTIMIZERS:
        raise BadInput(f"no optimizer called {optimizer!r}", hint="any, " + ", ".join(OPTIMIZERS))
    allowed = tuple(OPTIMIZERS) if preset is None else preset.optimizers
    if allow_shorter and subject.length is None:
        raise BadInput("--allow-shorter, and the samples have no length", hint="leave it out")
    per_device = max(batch // max(world, 1), 1)
    return Wanted(
        global_batch=batch,
        capacity_bytes=gpu.memory_bytes,
        margin_bytes=_margin(margin, gpu.memory_bytes),
        precision=precision,
        world=world,
        length=subject.length,
        shorter=tuple(range(_STEP, subject.length or 0, _STEP)) if allow_shorter else (),
        optimizers=allowed if optimizer == "any" else (optimizer,),
        checkpointing=(False, True) if weights.can_checkpoint else (False,),
        at_most=at_most(per_device, preset.share) if preset is not None else None,
    )


def _margin(written: str, memory: int) -> int:
    if re.fullmatch(r"\s*\d+(?:\.\d+)?\s*", written) and float(written):
        raise BadInput(f"a margin of {written.strip()}: of what?", hint="5% of the GPU's memory, or a size such as 1GB")
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", written)
    found = int(memory * float(match[1]) / 100) if match else 0 if written.strip() == "0" else parse_bytes(written)
    if found >= memory:
        raise BadInput(f"a margin of {written} leaves nothing", hint="5% is usual")
    return found


def _strayed(subject: Subject, weights: Weights) -> Strayed | BadInput:
    try:
        return measure_straying(subject, weights)
    except BadInput as error:  # the bytes are worth showing all the same
        return error


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
