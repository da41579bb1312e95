"""The lines that a user copies: a candidate as TrainingArguments, Lightning's Trainer and a loop of one's own. Pure."""

from __future__ import annotations

import re

from outlast.budget.fit import Candidate

_TRAINER_OPTIMIZERS = {"adamw": "adamw_torch_fused", "adamw-8bit": "adamw_bnb_8bit", "adafactor": "adafactor"}
_OPTIMIZERS = {
    "adamw": "torch.optim.AdamW(model.parameters(), lr=lr, fused=True)",
    "adamw-8bit": "bitsandbytes.optim.AdamW8bit(model.parameters(), lr=lr)",
    "adafactor": "torch.optim.Adafactor(model.parameters(), lr=lr)",
}
_LIGHTNING_PRECISION = {"fp32": "32-true", "fp16": "16-mixed", "bf16": "bf16-mixed"}
_TORCH_TYPES = {"fp16": "torch.float16", "bf16": "torch.bfloat16"}


def checkpointing_name(transformers: str | None) -> str:
    """The word of this Transformers version for activation checkpointing: it got a new name in 5.20.

    Args:
        transformers: its version; None: not installed, then the newest is meant.
    """
    numbers = tuple(map(int, re.findall(r"\d+", transformers or "")[:2]))
    return "gradient_checkpointing" if numbers and numbers < (5, 20) else "activation_checkpointing"


def model_lines(auto: str, weights: str, rank: int | None, targets: tuple[str, ...] = ()) -> list[str]:
    """How to load the model so that its weights have the type that was reckoned with: Transformers 5 takes the file's.

    Args:
        auto: Transformers' class.
        weights: ``fp32``, ``fp16`` or ``bf16``.
        rank: of LoRA; None for none.
        targets: modules that LoRA adapts; empty: peft's own.
    """
    dtype = {"fp32": "torch.float32", **_TORCH_TYPES}[weights]
    lines = [f"model = {auto}.from_pretrained(NAME, dtype={dtype})"]
    if rank is not None:
        where = f", target_modules={list(targets) if targets != ('all-linear',) else 'all-linear'!r}" if targets else ""
        lines.append(f"model = peft.get_peft_model(model, peft.LoraConfig(r={rank}{where}))")
    return lines


def trainer_lines(candidate: Candidate, transformers: str | None = None) -> list[str]:
    """Arguments for Transformers' ``TrainingArguments`` of this version."""
    lines = [
        f"per_device_train_batch_size={candidate.micro_batch},",
        f"gradient_accumulation_steps={candidate.accumulation},",
        f'optim="{_TRAINER_OPTIMIZERS[candidate.optimizer]}",',
    ]
    lines += [f"{candidate.precision}=True,"] if candidate.precision != "fp32" else []
    lines += [f"{checkpointing_name(transformers)}=True,"] if candidate.checkpointing else []
    return ["TrainingArguments(", *(f"    {line}" for line in lines), ")"]


def lightning_lines(candidate: Candidate, transformers: str | None = None) -> list[str]:
    """Arguments for Lightning's ``Trainer``, and what it leaves to the module and the loader."""
    arguments = [
        f"accumulate_grad_batches={candidate.accumulation}",
        f'precision="{_LIGHTNING_PRECISION[candidate.precision]}"',
    ]
    arguments += [f"devices={candidate.world}"] if candidate.world > 1 else []
    return [
        f"DataLoader(data, batch_size={candidate.micro_batch})",
        f"Trainer({', '.join(arguments)})",
        f"return {_OPTIMIZERS[candidate.optimizer].replace('model.', 'self.')}  # configure_optimizers",
        *_switch(candidate, "self.model", transformers, "  # __init__"),
    ]


def loop_lines(candidate: Candidate, transformers: str | None = None) -> list[str]:
    """A loop of one's own with `outlast.Run`: the loader gives each device's part of the batch, `step` cuts it."""
    body = ["def loss_of(batch):"]
    if candidate.precision == "fp32":
        body += ["    return model(**batch).loss"]
    else:
        body += [
            f'    with torch.autocast("cuda", {_TORCH_TYPES[candidate.precision]}):',
            "        return model(**batch).loss",
        ]
    scaler = ', scaler=torch.amp.GradScaler("cuda")' if candidate.precision == "fp16" else ""
    return [
        *_switch(candidate, "model", transformers, ""),
        f"optimizer = {_OPTIMIZERS[candidate.optimizer]}",
        f"loader = DataLoader(data, batch_size={candidate.micro_batch * candidate.accumulation}, shuffle=True)",
        *body,
        f'run = outlast.Run("runs/a", model=model, optimizer=optimizer{scaler})',
        "for batch in run.steps(loader, epochs=epochs):",
        f"    run.step(batch, loss_of, micro_batch={candidate.micro_batch})",
        "    run.checkpoint()",
    ]


def _switch(candidate: Candidate, model: str, transformers: str | None, where: str) -> list[str]:
    if not candidate.checkpointing:
        return []
    return [f"{model}.{checkpointing_name(transformers)}_enable(){where}"]
