"""The frozen base: a hub id, a folder, or a tiny Llama of our own that is made once and kept beside the run.

A checkpoint of PEFT holds the adapter only. What it was trained on must be the same when it is resumed, so a base of
our own is made from a seed and saved in ``base/`` before the first step.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora.masking import PLAIN_TEMPLATE
from lora.precision import Choice
from lora.records import Conversation
from lora.settings import Settings
from outlast import durable
from outlast.errors import BadInput

BASE = "base"
_TINY = {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 2, "num_attention_heads": 4}
_SPREAD = 0.1
"""Of its weights. With the usual 0.02 a frozen head of this width cannot tell tokens apart: nothing is learned."""
_VOCABULARY = 1024
_MARKS = ("<pad>", "<s>", "</s>")


@dataclass(frozen=True, slots=True)
class Source:
    """Where the base comes from."""

    place: str
    """Hub id or folder; what adapter_config.json will name."""
    is_ours: bool
    """A tiny one, made here."""
    is_there: bool
    """False for one of ours that is not saved yet."""


def source_of(settings: Settings) -> Source:
    """The base that the settings name; without one, ours in the run's folder."""
    if settings.model is not None:
        folder = Path(settings.model).expanduser()
        return Source(str(folder.resolve()) if folder.is_dir() else settings.model, False, True)
    folder = Path(settings.output_dir).resolve() / BASE
    return Source(str(folder), True, (folder / "config.json").is_file())


def tokenizer_of(source: Source, settings: Settings, conversations: Sequence[Conversation]) -> tuple[Any, list[str]]:
    """The base's tokenizer with a chat template and a padding token, and what had to be done for that.

    Raises:
        BadInput: when there is none at that place.
    """
    from transformers import AutoTokenizer

    if source.is_ours and not source.is_there:
        return _trained(conversations), []
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.place, revision=_revision(source, settings))
    except (OSError, ValueError) as error:
        raise _not_there(source, error) from None
    said = []
    if not tokenizer.chat_template:
        tokenizer.chat_template = PLAIN_TEMPLATE
        said.append("the tokenizer has no chat template: a plain one is used, and saved with the adapter")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
        said.append(f"the tokenizer has no padding token: {tokenizer.pad_token!r} pads (the loss leaves padding out)")
    return tokenizer, said


def model_of(source: Source, settings: Settings, choice: Choice, tokenizer: Any) -> Any:
    """The frozen base in its precision.

    Raises:
        BadInput: when there is none at that place.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    if source.is_ours and not source.is_there:
        return tiny(settings, tokenizer, source.place)
    dtype = getattr(torch, choice.dtype)
    more: dict[str, Any] = {}
    if choice.is_quantized:
        more["device_map"] = {"": int(os.environ.get("LOCAL_RANK", "0"))}
        more["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    try:
        return AutoModelForCausalLM.from_pretrained(
            source.place,
            revision=_revision(source, settings),
            dtype=dtype,
            attn_implementation=settings.attention,
            **more,
        )
    except (OSError, ValueError) as error:
        raise _not_there(source, error) from None


def tiny(settings: Settings, tokenizer: Any, place: str) -> Any:
    """A Llama of half a million parameters with random weights: the same ones for the same seed."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        **_TINY,
        vocab_size=len(tokenizer),
        max_position_embeddings=2048,
        initializer_range=_SPREAD,
        tie_word_embeddings=True,
        attn_implementation=settings.attention,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = LlamaForCausalLM(config)
    model.name_or_path = place
    model.config.name_or_path = place
    return model


def keep(settings: Settings, tokenizer: Any, place: str) -> None:
    """Save the tiny base under its name: whole, or not at all."""
    final = Path(place)
    part = final.with_name(f".{final.name}-{os.getpid()}")
    tiny(settings, tokenizer, place).save_pretrained(part)
    tokenizer.save_pretrained(part)
    publish(part, final)


def publish(part: Path, final: Path) -> None:
    """A folder that was written under another name gets its own, after its files are durable."""
    for file in sorted(path for path in part.rglob("*") if path.is_file()):
        durable.sync_file(file)
    durable.sync_folder(part)
    if final.exists():
        durable.remove_tree(final)
    durable.replace(part, final)


def _revision(source: Source, settings: Settings) -> str | None:
    return None if Path(source.place).is_dir() else settings.revision


def _not_there(source: Source, error: Exception) -> BadInput:
    first = str(error).strip().partition("\n")[0]
    return BadInput(
        f"no model could be loaded from {source.place}: {first}",
        hint="--model takes a folder of Transformers files or a hub id (HF_TOKEN for gated ones); "
        "without --model a tiny random Llama is made, for which no network is needed",
    )


def _trained(conversations: Sequence[Conversation]) -> Any:
    """A byte-level BPE of the data's own text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=list(_MARKS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator((turn.content for turns in conversations for turn in turns), trainer)
    pad, begin, end = _MARKS
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token=pad, bos_token=begin, eos_token=end, clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = PLAIN_TEMPLATE
    return tokenizer
