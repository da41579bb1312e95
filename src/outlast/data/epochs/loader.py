"""Batches in an order that is part of a checkpoint: exact with any number of workers, ranks in step. Needs torch.

The position is a number of rows of the epoch's order, so it holds for any number of workers, any batch size and any
number of ranks: whoever goes on begins with the very next row.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol

from torch.utils.data import DataLoader, Dataset, default_collate

from outlast.checkpoints import say
from outlast.data.epochs.order import Order, Walk
from outlast.errors import BadInput


class Ordered(Protocol):
    """Something whose items have an order by epoch: `Rows`, `Blocks`."""

    order: Order

    def take(self, numbers: Any) -> list[Any]:
        """Items by their number, whatever the order."""


def place_of(rank: int | None, world: int | None) -> tuple[int, int]:
    """This process's rank and how many there are: as given, else torch.distributed's, else torchrun's, else alone.

    Raises:
        BadInput: when they do not belong together.
    """
    if rank is None and world is None:
        from torch import distributed

        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        return int(os.environ.get("RANK") or 0), int(os.environ.get("WORLD_SIZE") or 1)
    if rank is None or world is None or not 0 <= rank < world:
        raise BadInput(f"rank is {rank}, world is {world}", hint="give both, rank from 0 to world - 1, or neither")
    return rank, world


def share(rows: int, done: int, batch_size: int, rank: int, world: int, drop_last: bool) -> list[tuple[int, int]]:
    """The last batch of a rank, which is smaller, as places (start, stop); empty when there is none. Pure.

    Whole steps take ``batch_size * world`` rows. What is left after them is shared equally; fewer than ``world`` rows
    are left out of this epoch, so that every rank has as many.
    """
    left = (rows - done) % (batch_size * world)
    each = left // world
    if drop_last or not each:
        return []
    start = rows - left + rank * each
    return [(start, start + each)]


class _Batches:
    """The batch sampler: numbers of rows, batch by batch, for one rank."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[list[int]]:
        loader = self.loader
        walk = Walk(replace(loader.data.order, epoch=loader.epoch))
        for start, stop in loader.places(loader.rows_done):
            yield walk.between(start, stop).tolist()

    def __len__(self) -> int:
        return self.loader.steps_from(self.loader.rows_done)


class _Taken(Dataset[Any]):  # type: ignore[misc]
    """Items by their number: what the workers hold."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __getitems__(self, numbers: list[int]) -> list[Any]:
        return self.data.take(numbers)  # type: ignore[no-any-return]

    def __getitem__(self, number: int) -> Any:
        return self.data.take([number])[0]


class Loader:
    """Goes through an epoch at each iteration, the next one at the next; resumes with the very next batch.

    An iteration that was broken off begins its epoch again, as a DataLoader's does; after `load_state_dict` it goes on
    from there. Works where a DataLoader does: `outlast.Run.steps`, Lightning, a loop of your own.

    Args:
        data: `Rows` or `Blocks`.
        batch_size: of one rank.
        workers: processes that read ahead; the order of the batches does not depend on it.
        collate: makes a batch of a list of items; None takes torch's default.
        drop_last: leave out a last batch that is smaller.
        rank: which part is ours; None takes torch.distributed's or torchrun's.
        world: how many parts; None likewise.
        options: further arguments of torch's DataLoader, such as ``pin_memory``.
    """

    def __init__(
        self,
        data: Ordered,
        batch_size: int,
        *,
        workers: int = 0,
        collate: Callable[[list[Any]], Any] | None = None,
        drop_last: bool = False,
        rank: int | None = None,
        world: int | None = None,
        **options: Any,
    ) -> None:
        if batch_size < 1 or workers < 0:
            raise BadInput(
                f"batch_size is {batch_size}, workers is {workers}", hint="batch_size from 1, workers from 0"
            )
        self.data, self.batch_size, self.drop_last = data, batch_size, drop_last
        self.rank, self.world = place_of(rank, world)
        self.epoch = 0
        """Epoch of the next iteration, or of the one that is going on."""
        self.rows_done = 0
        """Rows of the epoch that all ranks together had done as the iteration began."""
        self._given = 0
        self._is_resumed = False
        if not self.steps_from(0):
            raise BadInput(
                f"{data.order.rows} rows make no batch of {batch_size} on each of {self.world} ranks",
                hint="a smaller batch_size, or drop_last=False",
            )
        self._inner: Any = DataLoader(
            _Taken(data), batch_sampler=_Batches(self), num_workers=workers, collate_fn=collate or default_collate,
            **options,
        )  # fmt: skip

    def __len__(self) -> int:
        return self.steps_from(0)

    def __iter__(self) -> Iterator[Any]:
        # Lightning does not ask for the end: it counts, and asks for the next epoch after the last batch.
        if self._given and self._given == self.steps_from(self.rows_done):
            self._begin(self.epoch + 1)
        elif not self._is_resumed:
            self._begin(self.epoch)
        self._is_resumed, self._given = False, 0
        for batch in self._inner:
            self._given += 1
            yield batch
        self._begin(self.epoch + 1)

    def _begin(self, epoch: int) -> None:
        self.epoch, self.rows_done, self._given, self._is_resumed = epoch, 0, 0, False

    def set_epoch(self, number: int) -> None:
        """The epoch of the next iteration; where a resumed position is in that epoch, it stays."""
        if number != self.epoch:
            self._begin(number)

    def places(self, done: int) -> Iterator[tuple[int, int]]:
        """This rank's batches after so many rows of the epoch: places in its order."""
        rows, step = self.data.order.rows, self.batch_size * self.world
        for start in range(done, rows - step + 1, step):
            first = start + self.rank * self.batch_size
            yield first, first + self.batch_size
        yield from share(rows, done, self.batch_size, self.rank, self.world, self.drop_last)

    def steps_from(self, done: int) -> int:
        """Batches of this rank after so many rows of the epoch."""
        rows, step = self.data.order.rows, self.batch_size * self.world
        last = share(rows, done, self.batch_size, self.rank, self.world, self.drop_last)
        return max(0, rows - done) // step + len(last)

    # The position

    def state_dict(self) -> dict[str, Any]:
        """Where it is, counted by the batches that were given, not by those read ahead; plain data."""
        done = self.rows_done + self._given * self.batch_size * self.world
        order = self.data.order
        return {
            "epoch": self.epoch,
            "rows": min(done, order.rows),
            "order": fingerprint(order),
            "content": self._content(),
        }

    def _content(self) -> str | None:
        return getattr(self.data, "content", None)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on there with the next iteration; where nothing is left of the epoch, that is the next one's.

        Raises:
            BadInput: when the position is one in another order: other rows, another seed or window.
        """
        ours = fingerprint(self.data.order)
        if state["order"] != ours:
            raise BadInput(
                f"the position is one in the order {state['order']}, this loader's is {ours}",
                hint="open the same rows with the same shuffle, seed and window; or start a new run for the new data",
            )
        if state.get("content") not in (None, self._content()):
            say(
                "the rows come from other files than those of the checkpoint, with as many rows: the position holds "
                "for the same rows alone",
                "if they are other rows, start a new run; if they were fetched or written again, all is well",
            )
        self.epoch, self.rows_done = int(state["epoch"]), int(state["rows"])
        self._given, self._is_resumed = 0, True
        if not self.steps_from(self.rows_done):
            self._begin(self.epoch + 1)


def fingerprint(order: Order) -> str:
    """A name for the orders of all epochs of the same data: 16 hex digits."""
    words = f"1 {order.groups} {order.shuffled} {order.seed if order.shuffled else 0} {order.width}"
    return hashlib.blake2b(words.encode(), digest_size=8).hexdigest()
