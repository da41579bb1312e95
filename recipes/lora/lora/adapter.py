"""The adapter: put on a base, found again at a resume, written at the end so that PEFT and an audit can read it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from lora.precision import Choice
from lora.settings import Settings
from outlast import durable
from outlast.errors import BadInput

CONFIG = "adapter_config.json"
_MUST_AGREE = ("base_model_name_or_path", "revision", "r", "lora_alpha", "target_modules")
_NUMBER = re.compile(r"checkpoint-(\d+)")


def put_on(model: Any, settings: Settings, choice: Choice, place: str) -> Any:
    """The base with a fresh adapter, the same one for the same seed.

    Raises:
        BadInput: when the base has no such modules.
    """
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if choice.is_quantized:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=settings.gradient_checkpointing)
    elif settings.gradient_checkpointing:
        model.enable_input_require_grads()  # else the first block has nothing to send a gradient through
    if settings.gradient_checkpointing:
        model.config.use_cache = False
    linear = _linear(model)
    names = [name.strip() for name in settings.lora_targets.split(",") if name.strip()]
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        # PEFT's own all-linear writes every module's full path into adapter_config.json.
        target_modules=linear if names == ["all-linear"] else names,
        revision=getattr(model.config, "_commit_hash", None) or settings.revision,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        try:
            adapted = get_peft_model(model, config)
        except ValueError as error:
            raise BadInput(
                f"--lora-targets {settings.lora_targets}: {error}", hint=f"all-linear, or some of: {', '.join(linear)}"
            ) from None
    adapted.peft_config["default"].base_model_name_or_path = place
    return adapted


def _linear(model: Any) -> list[str]:
    """Last names of the linear layers, without the one that writes tokens."""
    import torch
    from transformers.pytorch_utils import Conv1D  # GPT-2's linear layers

    head = model.get_output_embeddings()
    found = model.named_modules()
    return sorted({n.rpartition(".")[2] for n, m in found if isinstance(m, torch.nn.Linear | Conv1D) and m is not head})


def newest(root: Path) -> Path | None:
    """The checkpoint with the highest number: by number, not by name, where 9000 comes after 10000.

    Whether it is whole is not looked at: Outlast takes an older one when it is not.
    """
    found = [(int(match[1]), path) for path in root.glob("checkpoint-*") if (match := _NUMBER.fullmatch(path.name))]
    return max(found)[1] if found else None


def check_same(checkpoint: Path, adapted: Any) -> None:
    """A checkpoint holds the adapter only: on another base, or with another rank, it means nothing.

    Raises:
        BadInput: when the run that is to go on was of another kind.
    """
    try:
        before = json.loads((checkpoint / CONFIG).read_bytes())
    except (OSError, ValueError):
        return  # not whole: verification says so, and passes it over
    now = plain(adapted.peft_config["default"].to_dict())
    differing = [name for name in _MUST_AGREE if plain(before).get(name) != now.get(name)]
    if differing:
        told = "; ".join(f"{name}: {before.get(name)} there, {now.get(name)} now" for name in differing)
        raise BadInput(
            f"{checkpoint} is of another training ({told})",
            hint="the same settings, or another --output-dir",
        )


def plain(config: dict[str, Any]) -> dict[str, Any]:
    """An adapter's configuration as JSON has it, lists in order: PEFT's are sets, in another order each time."""
    ordered = {name: sorted(value) if isinstance(value, set | list) else value for name, value in config.items()}
    return dict(sorted(ordered.items()))


def finish(folder: Path) -> None:
    """Write adapter_config.json again, in an order that can be compared."""
    path = folder / CONFIG
    durable.write_bytes(path, (json.dumps(plain(json.loads(path.read_bytes())), indent=2) + "\n").encode())
