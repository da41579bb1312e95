"""Sentences as token ids: made once, kept in flat arrays, put together into batches as they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from legal.documents import Document

_CHUNK = 1000
_MULTIPLE = 8


@dataclass(frozen=True, slots=True)
class Example:
    """One sentence to classify."""

    text: str
    """The sentence."""
    before: str
    """Sentences before it in the same document; empty for none."""
    label: str
    """Its class."""


def examples(documents: Sequence[Document], context: int) -> list[Example]:
    """Every sentence with so many of those before it. Pure."""
    made = []
    for document in documents:
        texts = [sentence.text for sentence in document.sentences]
        for at, sentence in enumerate(document.sentences):
            made.append(Example(sentence.text, " ".join(texts[max(0, at - context) : at]), sentence.label))
    return made


class Encoded(torch.utils.data.Dataset[dict[str, np.ndarray]]):
    """Token ids of many sentences, one after the other in one array a field: 8 bytes a token, no Python objects.

    Args:
        made: the sentences.
        labels: all classes; a label's number is its place.
        tokenizer: a fast tokenizer of Transformers.
        max_length: tokens of a sentence with its context, at most; what is too much of the longer one is cut.
    """

    def __init__(self, made: Sequence[Example], labels: Sequence[str], tokenizer: Any, max_length: int) -> None:
        number = {label: at for at, label in enumerate(labels)}
        self.labels = np.array([number[one.label] for one in made], np.int64)
        self.pad, self.most = tokenizer.pad_token_id or 0, max_length
        flat: dict[str, list[np.ndarray]] = {}
        lengths: list[int] = []
        for start in range(0, len(made), _CHUNK):
            few = made[start : start + _CHUNK]
            # Without context a sentence stands alone; a pair with an empty second half would be another thing.
            pairs = [one.before for one in few] if any(one.before for one in few) else None
            rows = tokenizer([one.text for one in few], pairs, truncation=True, max_length=max_length)
            lengths += [len(row) for row in rows["input_ids"]]
            for name in rows:
                if name != "attention_mask":
                    flat.setdefault(name, []).append(np.concatenate([np.asarray(r, np.int32) for r in rows[name]]))
        self.fields = {name: np.concatenate(parts) for name, parts in flat.items()}
        self.starts = np.concatenate([[0], np.cumsum(lengths)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, at: int) -> dict[str, np.ndarray]:
        cut = slice(self.starts[at], self.starts[at + 1])
        return {"labels": self.labels[at], **{name: values[cut] for name, values in self.fields.items()}}

    def together(self, rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """A batch: padded to its own longest sentence, to a multiple of 8 where it may be, for tensor cores."""
        longest = max(len(row["input_ids"]) for row in rows)
        width = min(self.most, -(-longest // _MULTIPLE) * _MULTIPLE)
        batch = {"labels": torch.tensor([int(row["labels"]) for row in rows])}
        mask = torch.zeros(len(rows), width, dtype=torch.long)
        for name in self.fields:
            filled = torch.full((len(rows), width), self.pad if name == "input_ids" else 0, dtype=torch.long)
            for at, row in enumerate(rows):
                filled[at, : len(row[name])] = torch.from_numpy(row[name].astype(np.int64))
                mask[at, : len(row[name])] = 1
            batch[name] = filled
        batch["attention_mask"] = mask
        return batch

    def by_length(self, size: int) -> Iterator[np.ndarray]:
        """Indices in batches of about equal length: little padding, for evaluation."""
        order = np.argsort(np.diff(self.starts), kind="stable")
        return (order[start : start + size] for start in range(0, len(order), size))
