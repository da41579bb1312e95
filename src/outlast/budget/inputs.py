"""From settings to a run: what the frameworks take when nothing is said, and how large a save is. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from outlast.budget import sizes
from outlast.budget.course import Lying, Saves, Thing, Volume
from outlast.budget.habits import habit_named
from outlast.budget.outlook import Run
from outlast.budget.schedule import Every, save_steps, steps_per_epoch
from outlast.budget.settings import Said
from outlast.budget.sizes import SaveBytes
from outlast.checkpoints import Keep, Policy, codec
from outlast.errors import BadInput

DEFAULTS: Mapping[str, Mapping[str, object]] = {
    "transformers": {"every": 500.0, "strategy": "steps", "limit": 0, "epochs": 3.0, "batch": 8, "log_every": 500.0},
    "lightning": {"every_epochs": 1.0, "limit": 1},
    "": {"limit": 0},
}
"""What a framework takes when nothing is said (transformers 5.23 TrainingArguments, lightning 2.6 ModelCheckpoint)."""


_MOST_SAVES = 20_000
"""A simulation takes about a second for so many, and a plan is some twenty of them."""


def with_defaults(settings: Mapping[str, Said]) -> dict[str, Said]:
    """Settings with what the framework takes where nothing is said.

    Raises:
        BadInput: for a framework that is not known.
    """
    said = dict(settings)
    name = str(said.setdefault("framework", Said("transformers", "nothing else was said")).value)
    habit_named(name)
    defaults = dict(DEFAULTS.get(name, DEFAULTS[""]))
    if "every" in said:
        defaults.pop("every_epochs", None)
    if "every_epochs" in said:
        defaults.pop("every", None)
    for key, value in defaults.items():
        said.setdefault(key, Said(value, f"the default of {name}"))
    return said


def resolve(
    settings: Mapping[str, Said],
    volume: Volume,
    size: SaveBytes,
    *,
    lying: Sequence[Lying] = (),
    policy: Policy | None = None,
) -> tuple[Run, dict[str, Said]]:
    """A run from settings.

    Args:
        settings: as `settings.from_document` finds them, options above, `with_defaults` below.
        volume: where the checkpoints go.
        size: what one save takes.
        lying: checkpoints that are there already.
        policy: what Outlast may do.

    Returns:
        The run, and the settings with what was worked out from them.

    Raises:
        BadInput: when the number of steps, or how often it saves, is not known.
    """
    said = dict(settings)
    said["steps"], per_epoch = _length(said)
    total = int(said["steps"].value)
    start = max((one.step for one in lying), default=0)
    seconds = _value(said, "seconds_per_step")
    strategy = str(_value(said, "strategy", "steps")).lower().removeprefix("savestrategy.")
    every = _interval(said, strategy, total, per_epoch, seconds)
    if (total - start) // every > _MOST_SAVES:
        raise BadInput(f"{(total - start) // every:,} saves are too many to walk through", hint="plan a part: --steps")
    at_end = said["framework"].value == "transformers" and strategy == "steps"
    steps = () if strategy in ("no", "none") else save_steps(total, every, at_end=at_end, start=start)
    if not steps:
        raise BadInput(
            f"no save lies ahead: step {start} of {total}, saves every {every} ({strategy})",
            hint="give --steps or --save-every, or a configuration that saves",
        )
    limit = int(_value(said, "limit", 0))
    log_every = _value(said, "log_every")
    saves = Saves(
        steps,
        size,
        habit_named(str(said["framework"].value)),
        Keep(last=limit or None),
        only_model=bool(_value(said, "only_model", False)),
        best_is_old=bool(_value(said, "best", False)),
        copies_last=bool(_value(said, "copies_last", False)),
        deletes=not _value(said, "deletions_fail", False),
        logs_per_step=1 / (log_every if log_every >= 1 else max(1.0, total * log_every)) if log_every else 0.0,
        lying=tuple(lying),
    )
    if _value(said, "pushes", False) and _value(said, "push_strategy", "every_save") != "end":
        copy = Thing("the weights' copy for the Hub", size.weights, steps[0])
        volume = replace(volume, things=(*volume.things, copy))
    said["every"] = replace(said.get("every") or said["every_epochs"], value=every)
    run = Run(saves, every, total, volume, policy or Policy(), seconds, _value(said, "seconds_per_save"))
    return run, said


def _value(said: Mapping[str, Said], name: str, default: Any = None) -> Any:
    return said[name].value if name in said else default


def _length(said: Mapping[str, Said]) -> tuple[Said, int | None]:
    """Steps of the run and of an epoch; the latter None when unknown."""
    per_epoch = _per_epoch(said)
    steps = said.get("steps")
    if steps is not None and steps.value > 0:
        return steps, per_epoch
    if per_epoch is None or _value(said, "epochs", -1) <= 0:
        raise BadInput(
            "how many steps the run has is not known: nothing says max_steps",
            hint="give --steps 28000, or --samples and the number of epochs",
        )
    epochs = said["epochs"]
    # The Trainer rounds up (set_initial_training_values).
    total = -(-int(epochs.value * per_epoch * 10**6) // 10**6)
    return Said(total, f"{epochs.value:g} epochs of {per_epoch} steps ({epochs.source})"), per_epoch


def _per_epoch(said: Mapping[str, Said]) -> int | None:
    if "steps_per_epoch" in said:
        return int(said["steps_per_epoch"].value)
    if "samples" not in said or "batch" not in said:
        return None
    accumulation, devices = _value(said, "accumulation", 1), _value(said, "devices", 1)
    return steps_per_epoch(int(said["samples"].value), int(said["batch"].value), int(accumulation), int(devices))


def _interval(said: Mapping[str, Said], strategy: str, total: int, per_epoch: int | None, seconds: float | None) -> int:
    if strategy == "epoch":
        return Every(1, "epochs").steps(total, per_epoch, seconds)
    if strategy == "best" and _value(said, "eval_every"):
        return Every(float(said["eval_every"].value)).steps(total, per_epoch, seconds)
    if "every" in said:
        return Every.parse(f"{said['every'].value}").steps(total, per_epoch, seconds)
    if "every_epochs" in said:
        return Every(float(said["every_epochs"].value), "epochs").steps(total, per_epoch, seconds)
    raise BadInput("how often it saves is not known", hint="give --save-every 1000, 1epoch or 30min")


def size_of(settings: Mapping[str, Said], found: SaveBytes | None) -> SaveBytes:
    """How large a save is: said, measured, captured from the script, or counted; in that order.

    Args:
        settings: with ``save_bytes``, or ``weights_bytes`` and ``moments_bytes``, or ``params``.
        found: from a checkpoint that is there.

    Raises:
        BadInput: when none of these is known.
    """
    if "save_bytes" in settings:
        return sizes.said(int(settings["save_bytes"].value), source=f"said with {settings['save_bytes'].source}")
    if found is not None:
        return found
    if "params" in settings:
        trained = settings.get("trainable")
        return sizes.counted(
            int(settings["params"].value),
            int(trained.value) if trained else None,
            optimizer=str(_value(settings, "optimizer", "adamw")),
            dtype=str(_value(settings, "dtype", "fp32")),
            small=int(_value(settings, "small_bytes", sizes.SMALL_BYTES)),
        )
    if "weights_bytes" in settings:
        return _captured(settings)
    raise BadInput(
        "how large a save is is not known",
        hint="give --save-bytes 3GB, or --params 8B --trainable 40M, or --output-dir with a checkpoint in it",
    )


def _captured(settings: Mapping[str, Said]) -> SaveBytes:
    """From what the script itself holds: bytes of what is saved, and of what is trained."""
    name = str(_value(settings, "optimizer", "adamw"))
    known = sizes.optimizer_named(name)
    row = sizes.OPTIMIZERS[known or "adamw"]
    numbers, trained = int(settings["trained"].value), int(settings["trained_bytes"].value)
    tensors = int(_value(settings, "tensors", 0))
    moments = int(trained * row.moments + numbers * row.fixed_bytes)
    moments += tensors * sizes.PER_TENSOR["moments"] if moments else 0
    light = int(_value(settings, "sidecar_bytes", codec.sidecar_bytes(numbers)))
    guess = "" if known else f" ({name} is not known: taken for AdamW)"
    return SaveBytes(
        int(settings["weights_bytes"].value) + tensors * sizes.PER_TENSOR["weights"],
        moments,
        int(_value(settings, "small_bytes", sizes.SMALL_BYTES)),
        light if row.moments else 0,
        f"counted, {settings['weights_bytes'].source}: {numbers:,} numbers trained, {known or name}{guess}",
        has_log=False,
    )
