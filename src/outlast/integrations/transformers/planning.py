"""The Trainer's part of `outlast plan -- COMMAND`: its arguments, where its training would begin."""

from __future__ import annotations

import functools
import inspect
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from outlast.integrations.planning import counted, leave
from outlast.integrations.torch_save import tensor_bytes

_BLOCK = 4096
_TRAINERS_OWN = 32 * 1024
"""Schedule, random states, arguments and state, in whole blocks (measured)."""


def install(module: ModuleType) -> None:
    """Let every Trainer tell and leave instead of training.

    Args:
        module: ``transformers.trainer``.
    """
    trainer = module.Trainer
    trainer.__init__ = _without_folder(trainer.__init__, module.TrainingArguments)
    trainer.train = lambda self, *args, **kwargs: leave(told(self))


def _without_folder(original: Callable[..., Any], arguments: Callable[..., Any]) -> Callable[..., Any]:
    """`Trainer.__init__` makes its output folder, and a repository on the Hub: it is given a folder that goes again."""
    signature = inspect.signature(original)

    @functools.wraps(original)
    def init(self: Any, *words: Any, **more: Any) -> None:
        bound = signature.bind(self, *words, **more)
        given = bound.arguments.setdefault("args", None) or arguments(output_dir="tmp_trainer")
        bound.arguments["args"] = given
        before = {"output_dir": given.output_dir, "push_to_hub": given.push_to_hub}
        with tempfile.TemporaryDirectory(prefix="outlast-plan-") as folder:
            for name, value in {"output_dir": folder, "push_to_hub": False}.items():
                object.__setattr__(given, name, value)
            try:
                original(*bound.args, **bound.kwargs)
            finally:
                for name, value in before.items():
                    object.__setattr__(given, name, value)

    return init


def told(trainer: Any) -> dict[str, Any]:
    """What a Trainer would save, when, and how large it is."""
    args, model = trainer.args, trainer.model
    is_adapter = hasattr(model, "peft_config")
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = type(trainer.optimizer).__name__ if trainer.optimizer is not None else _word(args.optim)
    return {
        "framework": "transformers",
        "output_dir": str(Path(args.output_dir).absolute()),
        "strategy": _word(args.save_strategy),
        "every": args.save_steps,
        "eval_every": args.eval_steps,
        "limit": args.save_total_limit or 0,
        "steps": args.max_steps if args.max_steps > 0 else None,
        "epochs": args.num_train_epochs,
        "steps_per_epoch": _steps_per_epoch(trainer),
        "batch": args.per_device_train_batch_size,
        "accumulation": args.gradient_accumulation_steps,
        "devices": args.world_size,
        "only_model": args.save_only_model,
        "best": args.load_best_model_at_end,
        "pushes": args.push_to_hub,
        "push_strategy": _word(args.hub_strategy),
        "log_every": args.logging_steps if _word(args.logging_strategy) == "steps" else None,
        "optimizer": optimizer,
        **counted(trained),
        "weights_bytes": tensor_bytes(trained if is_adapter else model.state_dict()),
        "small_bytes": _small_bytes(trainer),
    }


def _word(value: Any) -> str:
    return str(getattr(value, "value", value))


def _steps_per_epoch(trainer: Any) -> int | None:
    """As `Trainer.set_initial_training_values` counts them; None for data without a length."""
    with suppress(Exception):  # a data set that cannot say, a collator that needs a GPU: then --samples says it
        batches = len(trainer.get_train_dataloader())
        return max(1, -(-batches // int(trainer.args.gradient_accumulation_steps)))
    return None


def _small_bytes(trainer: Any) -> int | None:
    """Configuration, tokenizer and the Trainer's own small files, in whole blocks: written where nobody looks."""
    with suppress(Exception), tempfile.TemporaryDirectory(prefix="outlast-plan-") as folder:
        for part in (trainer.processing_class, trainer.model.config, getattr(trainer.model, "generation_config", None)):
            if part is not None:
                part.save_pretrained(folder)
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        return _TRAINERS_OWN + sum(-(-path.stat().st_size // _BLOCK) * _BLOCK for path in files)
    return None
