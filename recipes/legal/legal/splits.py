"""Which documents are held out, and which part of the rest is trained on: by a hash of a document's name. Pure.

A document's place depends on nothing but its own name and the seed: when documents come or go, the others stay where
they are, and 5 % of the documents are among the 20 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

from legal.documents import Document, labels_of
from outlast.errors import BadInput


@dataclass(frozen=True, slots=True)
class Split:
    """Whole documents on both sides."""

    train: tuple[Document, ...]
    """Learned from."""
    validation: tuple[Document, ...]
    """Held out; the same ones whatever the subset."""
    labels: tuple[str, ...]
    """Classes of all documents, sorted; the same ones whatever the subset."""

    def unseen(self) -> list[str]:
        """Classes that no document in training has: they cannot be learned."""
        return sorted(set(self.labels) - set(labels_of(self.train)))

    def untested(self) -> list[str]:
        """Classes that no held-out document has: nothing is known about them."""
        return sorted(set(self.labels) - set(labels_of(self.validation)))


def place(name: str, seed: int, purpose: str) -> float:
    """A number from 0 up to 1 that depends on the name, the seed and the purpose alone."""
    digest = blake2b(f"{purpose}\0{seed}\0{name}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def split(documents: Sequence[Document], *, validation: float, seed: int, subset: float = 1.0) -> Split:
    """Hold documents out, and take a part of the rest.

    Args:
        documents: all of them.
        validation: share of documents to hold out, between 0 and 1.
        seed: another seed holds out others.
        subset: share of the rest to train on; at least one document. Smaller subsets are part of larger ones.

    Raises:
        BadInput: when either side would be empty, or there is but one class.
    """
    held_out = [one for one in documents if place(one.name, seed, "validation") < validation]
    rest = [one for one in documents if place(one.name, seed, "validation") >= validation]
    if not held_out or not rest:
        raise BadInput(
            f"{len(documents)} documents, of which {len(held_out)} fall into validation ({validation:g}): "
            "expected some on both sides",
            hint="more documents, another --validation share or another --seed",
        )
    labels = tuple(labels_of(documents))
    if len(labels) < 2:
        raise BadInput(f"every sentence is labelled {labels[0]!r}", hint="classification needs two classes or more")
    by_place = sorted(rest, key=lambda one: (place(one.name, seed, "subset"), one.name))
    taken = by_place[: max(1, round(subset * len(by_place)))]
    return Split(tuple(sorted(taken, key=lambda one: one.name)), tuple(held_out), labels)
