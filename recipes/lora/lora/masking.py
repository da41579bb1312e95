"""From conversations to samples: token ids, and which of them are learned. The loss is on the responses only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from lora.records import Conversation
from outlast.errors import BadInput

IGNORED = -100
"""Label of a token that is not learned (torch's cross entropy leaves it out)."""

PLAIN_TEMPLATE = (
    "{{ bos_token or '' }}{% for message in messages %}"
    "### {{ message['role'] | capitalize }}:\n{{ message['content'] }}"
    "{{ (eos_token or '') if message['role'] == 'assistant' else '' }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}### Assistant:\n{% endif %}"
)
"""For a tokenizer without a chat template (a base model's)."""

_FIXED_DATE = "26 Jul 2024"
"""Llama's templates write today's date into the prompt: after midnight a resumed run would see other data."""
_BATCH = 500
"""Conversations that are tokenised at once, on all cores."""

Render = Callable[[Conversation, bool], str]
"""Text of some turns; True adds what stands before an answer."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of the data."""

    read: int
    """Conversations."""
    kept: int
    """Samples."""
    cut: int
    """Kept, but longer than max_length: their end is gone."""
    dropped: int
    """Without one token of a response within max_length."""
    hidden: int
    """Answers that the template writes otherwise once more turns follow: they are not learned."""
    learned: int
    """Tokens that the loss counts."""
    tokens: int
    """Tokens in all."""

    def __str__(self) -> str:
        parts = [f"{self.kept:,} samples of {self.read:,} conversations"]
        parts += [f"loss on {self.learned:,} of {self.tokens:,} tokens (the responses)"]
        parts += [f"{self.cut:,} cut to length"] * bool(self.cut)
        parts += [f"{self.dropped:,} dropped: no response left within the length"] * bool(self.dropped)
        parts += [f"{self.hidden:,} answers not learned: the chat template rewrites them"] * bool(self.hidden)
        return ", ".join(parts)


class Samples(torch.utils.data.Dataset[dict[str, Any]]):
    """All samples in three flat arrays: 5 bytes a token, and no list for each sample."""

    def __init__(self, pieces: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        self.ends = np.cumsum([len(ids) for ids, _ in pieces], dtype=np.int64)
        self.ids = np.concatenate([ids for ids, _ in pieces]).astype(np.int32)
        self.learned = np.concatenate([learned for _, learned in pieces])

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> dict[str, Any]:
        window = slice(int(self.ends[index - 1]) if index else 0, int(self.ends[index]))
        ids = self.ids[window].astype(np.int64)
        return {"input_ids": ids, "labels": np.where(self.learned[window], ids, IGNORED)}


@dataclass(frozen=True, slots=True)
class Pad:
    """Collator: pads on the right to a multiple of 8, with labels that are not learned."""

    pad_id: int
    multiple: int = 8

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """One batch of tensors, (samples, length)."""
        longest = max(len(sample["input_ids"]) for sample in samples)
        length = -(-longest // self.multiple) * self.multiple
        batch = {
            "input_ids": torch.full((len(samples), length), self.pad_id),
            "labels": torch.full((len(samples), length), IGNORED),
            "attention_mask": torch.zeros((len(samples), length), dtype=torch.int64),
        }
        for row, sample in enumerate(samples):
            size = len(sample["input_ids"])
            batch["input_ids"][row, :size] = torch.from_numpy(sample["input_ids"])
            batch["labels"][row, :size] = torch.from_numpy(sample["labels"])
            batch["attention_mask"][row, :size] = 1
        return batch


def prepare(conversations: Sequence[Conversation], tokenizer: Any, max_length: int) -> tuple[Samples, Tally]:
    """Samples of conversations, and what became of those that are not there as they were.

    Args:
        conversations: each with at least one answer.
        tokenizer: with a chat template.
        max_length: tokens at most; the end is cut.

    Raises:
        BadInput: when the template refuses a conversation, or no sample is left.
    """
    render = renderer(tokenizer)
    pieces: list[tuple[np.ndarray, np.ndarray]] = []
    cut = hidden = 0
    source = iter(conversations)
    while batch := list(islice(source, _BATCH)):
        texts = [answers(turns, render) for turns in batch]
        flat = [text for whole, spans, _ in texts for text in (whole, *(part for span in spans for part in span))]
        encoded = iter(tokenizer(flat, add_special_tokens=False, return_attention_mask=False)["input_ids"])
        for _, spans, unseen in texts:
            ids = next(encoded)
            hidden += unseen
            learned = mask(ids, [(next(encoded), next(encoded)) for _ in spans])[:max_length]
            if learned.any():
                cut += len(ids) > max_length
                pieces.append((np.asarray(ids[:max_length]), learned))
    if not pieces:
        raise BadInput(
            f"of {len(conversations):,} conversations none has a token of a response within {max_length} tokens"
            + (f" ({hidden:,} answers are rewritten by the chat template)" if hidden else ""),
            hint="a larger --max-length, or a tokenizer whose chat template keeps the answers",
        )
    samples = Samples(pieces)
    dropped = len(conversations) - len(pieces)
    counts = (int(samples.learned.sum()), len(samples.ids))
    return samples, Tally(len(conversations), len(pieces), cut, dropped, hidden, *counts)


def renderer(tokenizer: Any) -> Render:
    """The tokenizer's chat template as a function."""
    from jinja2 import TemplateError

    def render(turns: Conversation, is_asking: bool) -> str:
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        try:
            text: str = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=is_asking, date_string=_FIXED_DATE
            )
        except TemplateError as error:
            roles = " ".join(turn.role for turn in turns)
            raise BadInput(
                f"the chat template refuses a conversation of {roles}: {error}",
                hint="many templates know no system or tool role, and want user and assistant in turn",
            ) from None
        return text

    return render


def answers(turns: Conversation, render: Render) -> tuple[str, list[tuple[str, str]], int]:
    """The whole text; for each answer the text up to its beginning and up to its end; answers that are rewritten.

    Both are prefixes of the whole, so that tokenising them tells the place in tokens, whatever the tokenizer joins.
    The end includes the mark that ends a turn, and not the line break after it, which no model has to write.
    """
    whole = render(turns, False)
    spans: list[tuple[str, str]] = []
    hidden = 0
    for place, turn in enumerate(turns):
        if turn.role == "assistant":
            begin, end = render(turns[:place], True), render(turns[: place + 1], False)
            if whole.startswith(end) and end.startswith(begin):
                spans.append((begin, begin + end[len(begin) :].rstrip()))
            else:
                hidden += 1
    return whole, spans, hidden


def mask(ids: Sequence[int], spans: Sequence[tuple[Sequence[int], Sequence[int]]]) -> np.ndarray:
    """Which tokens are learned: from where a prompt's own tokens end to where its answer's do.

    A token that joins the last character of a prompt with the first of an answer is learned.

    Args:
        ids: of the whole text.
        spans: ids of the text up to the beginning of each answer, and up to its end.
    """
    learned = np.zeros(len(ids), dtype=bool)
    for begin, end in spans:
        learned[_shared(ids, begin) : _shared(ids, end)] = True
    return learned


def _shared(ids: Sequence[int], start: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    pairs: Iterator[tuple[int, int]] = zip(ids, start, strict=False)
    return next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(ids), len(start)))
