"""Which blocks each step sees: a pure function of the seed and the step, so that a resume needs one number."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from outlast.errors import BadInput


class Order:
    """Batches of indices without end: each epoch is a permutation of its own, cut into batches; the rest is left out.

    Args:
        blocks: how many there are.
        batch_size: blocks a batch of one rank.
        seed: of the permutations.
        rank: this process.
        world: how many processes.

    Raises:
        BadInput: when there is not one batch.
    """

    def __init__(self, blocks: int, batch_size: int, seed: int, rank: int = 0, world: int = 1) -> None:
        self.blocks, self.batch_size, self.seed, self.rank, self.world = blocks, batch_size, seed, rank, world
        self.per_epoch = blocks // (batch_size * world)
        self._epoch, self._permutation = -1, torch.empty(0, dtype=torch.int64)
        if not self.per_epoch:
            raise BadInput(
                f"{blocks} blocks of text are less than one batch ({batch_size} x {world} processes)",
                hint="more documents (OWT_SUBSET_NUM, data.rows), a smaller loader.batch_size or model.length",
            )

    def batch(self, number: int) -> list[int]:
        """Indices of the batch of that number, counted from the start of the training."""
        epoch, inside = divmod(number, self.per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(mixed(self.seed, "order", epoch))
            self._epoch, self._permutation = epoch, torch.randperm(self.blocks, generator=generator)
        start = (inside * self.world + self.rank) * self.batch_size
        return list(map(int, self._permutation[start : start + self.batch_size]))


class Stream:
    """A loader of ``total`` batches whose position is a number: Lightning saves it with each checkpoint.

    It is one long epoch: Lightning has no epoch's end to stumble over, and a longer `trainer.max_steps` just goes on.

    Args:
        blocks: a map-style data set.
        order: which of them.
        total: batches in all.
        workers: processes that read.
    """

    def __init__(self, blocks: Dataset[Any], order: Order, total: int, workers: int = 0) -> None:
        self.blocks, self.order, self.total, self.workers = blocks, order, total, workers
        self.given = 0

    def __len__(self) -> int:
        return self.total

    def __iter__(self) -> Iterator[torch.Tensor]:
        loader: DataLoader[torch.Tensor] = DataLoader(
            self.blocks,
            batch_sampler=_From(self.order, self.given, self.total),
            num_workers=self.workers,
            generator=torch.Generator().manual_seed(0),  # else each start would draw a number from the global one
        )
        for batch in loader:
            self.given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Batches given so far."""
        return {"given": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on behind the batches that were given."""
        self.given = int(state["given"])


class _From(Sampler[list[int]]):
    def __init__(self, order: Order, start: int, stop: int) -> None:
        self.order, self.numbers = order, range(start, stop)

    def __iter__(self) -> Iterator[list[int]]:
        return map(self.order.batch, self.numbers)


def mixed(*parts: int | str) -> int:
    """A seed of 63 bits from numbers and words; near numbers give unrelated seeds."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1
