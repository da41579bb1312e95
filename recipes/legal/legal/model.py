"""The model that training starts from: published weights, or a small BERT where they cannot be had, said plainly."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from outlast import durable
from outlast.errors import BadInput

SMALL = "small"
SMALL_SIZES = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128,
    "initializer_range": 0.1,
}  # fmt: skip
"""A small BERT: 0.2 million parameters with its vocabulary; for a look at whether everything works.

Its weights start wider than BERT's 0.02, which is meant for 768: on the licences macro F1 is 0.65 instead of 0.44.
"""
SMALL_VOCABULARY = 2000
_MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_SAID = "said.json"


@dataclass(frozen=True, slots=True)
class Start:
    """What training starts from."""

    model: Any
    """A sequence classifier of Transformers."""
    tokenizer: Any
    """Its fast tokenizer."""
    said: str
    """What it is, for people."""


def start(
    folder: Path, name: str, labels: Sequence[str], texts: Sequence[str], *, max_length: int, seed: int, resumes: bool
) -> Start:
    """The model of a run: as an earlier session of it began, else as asked for.

    Args:
        folder: where a run keeps its tokenizer and configuration; made by its first session.
        name: hub id, folder, or ``small``.
        labels: the classes.
        texts: sentences of the training data, for the small BERT's vocabulary.
        max_length: tokens that it must take.
        seed: of all weights that are random.
        resumes: there are checkpoints, which hold the weights: none need to be fetched.

    Raises:
        BadInput: for a model that there is not, that is no classifier, or takes fewer tokens.
    """
    if not (folder / _SAID).exists():
        _begin(folder, name, labels, texts, max_length)
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    note = json.loads((folder / _SAID).read_text())
    config = AutoConfig.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    most = getattr(config, "max_position_embeddings", None)
    if most is not None and max_length > most:
        raise BadInput(f"max_length is {max_length}, the model takes {most} tokens", hint=f"--max-length {most}")
    torch.manual_seed(seed)
    if note["model"] == SMALL or resumes:
        return Start(AutoModelForSequenceClassification.from_config(config), tokenizer, note["said"])
    try:
        # Tensors only: a checkpoint in pickle form could run code. The hub converts such models by itself.
        model = AutoModelForSequenceClassification.from_pretrained(
            note["model"], config=config, use_safetensors=True, dtype=torch.float32
        )
    except (OSError, ValueError) as error:
        raise _unusable(note["model"], error) from None
    return Start(model, tokenizer, note["said"])


def _begin(folder: Path, name: str, labels: Sequence[str], texts: Sequence[str], max_length: int) -> None:
    """Write tokenizer and configuration; whole, or not at all."""
    why = "asked for" if name == SMALL else _why_not_here(name)
    if why is None:
        config, tokenizer = _published(name, labels)
        note = {"model": name, "said": name}
    else:
        tokenizer = _small_tokenizer(texts)
        config = _small_config(len(tokenizer), labels, max_length)
        said = f"a small BERT from random weights, its vocabulary from the training data ({why})"
        note = {"model": SMALL, "said": said}
    part = folder.with_name(folder.name + ".part")
    for old in (part, folder):
        shutil.rmtree(old, ignore_errors=True)
    part.mkdir(parents=True)
    tokenizer.save_pretrained(part)
    config.save_pretrained(part)
    durable.write_bytes(part / _SAID, json.dumps(note).encode())
    durable.replace(part, folder)


def _why_not_here(name: str) -> str | None:
    """Why a model cannot be had on this machine; None when it can.

    Only a missing network is an answer: a name that is wrong is an error.
    """
    if Path(name).is_dir():
        return None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        hf_hub_download(name, "config.json")
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        return f"{name} is not on this machine, and the hub cannot be reached"
    except (RepositoryNotFoundError, GatedRepoError, HFValidationError) as error:
        raise _unusable(name, error) from None
    return None


def _published(name: str, labels: Sequence[str]) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoTokenizer

    number = {label: at for at, label in enumerate(labels)}
    try:
        config = AutoConfig.from_pretrained(name, label2id=number, id2label=dict(enumerate(labels)))
        tokenizer = AutoTokenizer.from_pretrained(name, use_fast=True)
    except (OSError, ValueError, KeyError) as error:
        raise _unusable(name, error) from None
    return config, tokenizer


def _unusable(name: str, error: Exception) -> BadInput:
    first = str(error).strip().partition("\n")[0]
    return BadInput(
        f"cannot start from {name}: {first}",
        hint="--model takes a hub id, a folder with a model in safetensors form, or small; for a private one, log in",
    )


def _small_config(vocabulary: int, labels: Sequence[str], max_length: int) -> Any:
    from transformers import BertConfig

    return BertConfig(
        vocab_size=vocabulary, max_position_embeddings=max_length, **SMALL_SIZES,
        label2id={label: at for at, label in enumerate(labels)}, id2label=dict(enumerate(labels)),
    )  # fmt: skip


def _small_tokenizer(texts: Sequence[str]) -> Any:
    """WordPiece as BERT's, its vocabulary from these texts: the same one for the same texts."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    normalizer, words = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.normalizer, learner.pre_tokenizer = normalizer, words
    # The trainer numbers pieces like ##a in the order of a hash table that is another one in each process, and breaks
    # ties by these numbers. Naming them first, as special tokens of a tokenizer that is thrown away, fixes the order.
    letters = sorted({letter for text in texts for letter in normalizer.normalize_str(text) if not letter.isspace()})
    trainer = trainers.WordPieceTrainer(
        vocab_size=SMALL_VOCABULARY, special_tokens=[*_MARKS, *(f"##{letter}" for letter in letters)],
        show_progress=False,
    )  # fmt: skip
    learner.train_from_iterator(texts, trainer)
    pieces = Tokenizer(models.WordPiece(learner.get_vocab(), unk_token="[UNK]"))
    pieces.normalizer, pieces.pre_tokenizer = normalizer, words
    pieces.decoder = decoders.WordPiece()
    pieces.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=pieces, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )  # fmt: skip
