"""The training itself: data, base, adapter, Trainer, and the adapter at the end."""

from __future__ import annotations

import difflib
import os
import sys
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainingArguments

from lora import adapter, base, offline, precision, records, sameness
from lora.masking import Pad, prepare
from lora.precision import Choice
from lora.records import Conversation
from lora.settings import KNOBS, OFFLINE, Settings
from outlast import durable
from outlast.errors import BadInput
from outlast.integrations.transformers import OutlastCallback

FINAL = "final"

# PEFT asks Transformers for gradient checkpointing by its old name; nothing that a user could change.
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)


def run(settings: Settings) -> Path:
    """Train to the end, going on from the newest checkpoint that verifies.

    Returns:
        The folder of the finished adapter.

    Raises:
        BadInput: when something that was asked for cannot be had.
        NoWayBack: when there are checkpoints and none of them is whole.
        Stopped: (a SystemExit with code 0) when a deadline came; the last step is sealed then.
    """
    root = Path(settings.output_dir)
    train, validation = conversations(settings)
    source = base.source_of(settings)
    tokenizer, said = base.tokenizer_of(source, settings, train)
    samples, tally = prepare(train, tokenizer, settings.max_length)
    held, held_tally = prepare(validation, tokenizer, settings.max_length) if validation else (None, None)
    choice = precision.choose(settings, precision.look())
    arguments = training_arguments(settings, choice, has_validation=held is not None)
    model = adapter.put_on(base.model_of(source, settings, choice, tokenizer), settings, choice, source.place)
    if source.is_ours:
        said = ["no --model: a tiny Llama with random weights stands in, in base/ beside the checkpoints", *said]
    _tell(*choice.said, *said, f"training data: {tally}", *([f"validation data: {held_tally}"] if held else []))
    _tell(_trained(model), f"base: {source.place}, {'4-bit nf4, ' * choice.is_quantized}{choice.dtype}")
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=samples,
        eval_dataset=held,
        data_collator=Pad(tokenizer.pad_token_id),
        processing_class=tokenizer,
        callbacks=[
            # Under `outlast run` the hooks are there already; the callback then adds this run's deadline alone.
            OutlastCallback(deadline=settings.deadline),
            _Remember(root, settings, samples),
            *([_KeepBase(settings, tokenizer, source.place)] if source.is_ours and not source.is_there else []),
        ],
    )
    found = adapter.newest(root)
    if found is not None:
        _may_go_on(settings, found)
        adapter.check_same(found, model)
        sameness.check(root, settings, samples, arguments.world_size)
    trainer.train(resume_from_checkpoint=str(found) if found else None)
    _tell(f"finished at step {trainer.state.global_step:,}")
    return save_final(trainer, root / FINAL)


def _may_go_on(settings: Settings, found: Path) -> None:
    """A fresh start among another run's checkpoints would lose one of the two: the higher steps count as newer."""
    is_restart = os.environ.get("OUTLAST_RESUME") == "1"  # `outlast run` starts the same command again
    if settings.resume == "never" and not is_restart:
        raise BadInput(
            f"--resume never, and {found} is there", hint="another --output-dir, or move the old checkpoints away"
        )


def conversations(settings: Settings) -> tuple[list[Conversation], list[Conversation]]:
    """Training and validation data."""
    if settings.data == OFFLINE:
        train = offline.conversations(settings.limit or 4000)
    else:
        train = records.load(settings.data, "train", settings.limit)
    asked = settings.validation
    if asked is None:
        has_own = settings.data != OFFLINE and Path(settings.data, "validation").is_dir()
        return train, records.load(settings.data, "validation") if has_own else []
    try:
        share = float(asked)
    except ValueError:
        return train, records.load(asked, "validation")
    if not 0 <= share < 1:
        raise BadInput(f"--validation {asked}: expected a share of 0 to 1", hint="0.05, or a file or a folder")
    train, validation = records.held_out(train, share)
    if not train or (share and not validation):
        raise BadInput(
            f"--validation {asked} leaves {len(train)} conversations to train on and {len(validation)} to validate",
            hint="another share, or more data",
        )
    return train, validation


def training_arguments(settings: Settings, choice: Choice, *, has_validation: bool) -> TrainingArguments:
    """The Trainer's arguments from ours.

    Raises:
        BadInput: for one that Transformers does not know, or refuses.
    """
    known = {field.name for field in fields(TrainingArguments)}
    for name in settings.others:
        if name not in known:
            close = difflib.get_close_matches(name, known, 3)
            raise BadInput(
                f"training.{name} is not a knob, and no field of TrainingArguments",
                hint=f"did you mean {', '.join(close)}?" if close else "see --help",
            )
    ours = {knob.name: getattr(settings, knob.name) for knob in KNOBS if knob.metadata["section"] == "training"}
    derived = {
        "bf16": choice.mixed == "bf16",
        "fp16": choice.mixed == "fp16",
        "eval_strategy": "steps" if has_validation and settings.eval_steps else "no",
        "save_strategy": "steps",
        "report_to": [],
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "ddp_find_unused_parameters": False,  # every update of an adapter is used in each step
        "dataloader_pin_memory": not choice.uses_cpu,
        "use_cpu": choice.uses_cpu and choice.mixed is not None,  # the Trainer wants bf16 on a CPU to be asked for
        "disable_tqdm": not sys.stderr.isatty(),
    }
    if ours.pop("gradient_checkpointing"):
        # Transformers 6 knows the second name only.
        word = next(word for word in ("activation_checkpointing", "gradient_checkpointing") if word in known)
        derived |= {word: True, f"{word}_kwargs": {"use_reentrant": False}}
    try:
        return TrainingArguments(**{**ours, **derived, **settings.others})
    except (TypeError, ValueError) as error:
        raise BadInput(f"Transformers refuses these settings: {error}", hint="see --help") from None


def save_final(trainer: Trainer, final: Path) -> Path:
    """The finished adapter with its tokenizer, whole or not at all; Outlast makes room for it."""
    part = final.with_name(f".{final.name}-part")
    if trainer.is_world_process_zero() and part.exists():
        durable.remove_tree(part)  # of a run that was killed while it wrote it
    trainer.save_model(str(part))
    if trainer.is_world_process_zero():
        adapter.finish(part)
        base.publish(part, final)
        _tell(f"the adapter is in {final}")
    return final


class _Remember(TrainerCallback):
    """Writes down what this run is, before the first step; not earlier, for the same reason as below."""

    def __init__(self, *what: Any) -> None:
        self._what = what

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            sameness.remember(*self._what, args.world_size)


class _KeepBase(TrainerCallback):
    """Saves our own base before the first step; not earlier, so that `outlast plan` leaves nothing behind."""

    def __init__(self, settings: Settings, tokenizer: Any, place: str) -> None:
        self._what = (settings, tokenizer, place)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            base.keep(*self._what)


def _trained(model: Any) -> str:
    trained, every = model.get_nb_trainable_parameters()
    return f"adapter: {trained:,} of {every:,} parameters ({trained / every:.2%})"


def _tell(*lines: str) -> None:
    """Say something once, however many processes train."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        for line in lines:
            print(f"lora: {line}", flush=True)
