"""Where in the data a run is, so that it goes on with the very next batch. Needs torch.

The order of an epoch is drawn from random generators as the epoch starts. So their state at that moment is kept, the
epoch is started again from it, and the batches that were done are passed over. A loader that keeps its position itself
(`outlast.data`'s, torchdata's StatefulDataLoader) is given its own state back, and nothing is passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from outlast.checkpoints import state


@dataclass(slots=True)
class Position:
    """A place in the data."""

    epoch: int = 0
    """Epochs completed."""
    batches: int = 0
    """Batches done of the current epoch."""
    global_start: dict[str, Any] = field(default_factory=dict)
    """The process's random generators as the epoch started."""
    loader_start: list[Any] = field(default_factory=list)
    """The loader's own generators as the epoch started."""
    loader_state: Any = None
    """What a loader that keeps its position said of it; None for other loaders."""

    def as_data(self, loader: Any = None) -> dict[str, Any]:
        """Plain data for a checkpoint.

        Args:
            loader: what the batches come from.
        """
        return {
            "epoch": self.epoch,
            "batches": self.batches,
            "global_start": self.global_start,
            "loader_start": self.loader_start,
            "loader_state": loader.state_dict() if keeps_position(loader) else None,
        }


def keeps_position(loader: Any) -> bool:
    """True for a loader that says where it is, and goes on there; Accelerate's does when the one inside it does."""
    inner = getattr(loader, "base_dataloader", loader)
    return all(callable(getattr(inner, name, None)) for name in ("state_dict", "load_state_dict"))


def loader_generators(loader: Any) -> list[Any]:
    """torch.Generator objects that a loader and its samplers draw from, each once."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    owners = (loader, getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
    found: dict[int, Any] = {}
    for owner in owners:
        generator = getattr(owner, "generator", None)
        if hasattr(generator, "get_state"):
            found[id(generator)] = generator
    return list(found.values())


def epoch_from(loader: Iterable[Any], position: Position, *, resumed: bool) -> Iterator[Any]:
    """The batches of the current epoch that are still to come.

    Args:
        loader: a DataLoader, or anything that can be iterated again.
        position: where to go on; its start states are set when the epoch is new.
        resumed: the epoch was begun by an earlier process: start it as it was started then.
    """
    if hasattr(getattr(loader, "sampler", None), "set_epoch"):
        loader.sampler.set_epoch(position.epoch)  # type: ignore[attr-defined]
    _show_epoch(getattr(loader, "dataset", None), position.epoch)
    goes_on = resumed and position.loader_state is not None and keeps_position(loader)
    if goes_on and not _takes_up(loader, position):
        return iter(())
    if not goes_on and keeps_position(loader) and hasattr(loader, "set_epoch"):
        loader.set_epoch(position.epoch)
    generators = loader_generators(loader)
    if resumed and position.global_start:
        state.put_generators(position.global_start)
        for generator, kept in zip(generators, position.loader_start, strict=False):
            generator.set_state(kept)
    else:
        position.global_start = state.take_generators()
        position.loader_start = [generator.get_state() for generator in generators]
    batches = iter(loader)
    for _ in range(0 if goes_on else position.batches):
        _pass_over(batches)
    return batches


def _show_epoch(dataset: Any, epoch: int) -> None:
    """Rows of `outlast.data` in somebody's DataLoader have another order each epoch, as their own loader gives it."""
    from outlast.data import Rows, Stream

    if isinstance(dataset, Rows | Stream):
        dataset.set_epoch(epoch)


def _takes_up(loader: Any, position: Position) -> bool:
    """Give a loader its position back; False when nothing was left of that epoch: it stands at the next one then."""
    from outlast.data import Loader

    if not isinstance(loader, Loader):
        if position.batches == _length(loader):
            return False
        loader.load_state_dict(position.loader_state)
        return True
    # Its rows tell: with another number of ranks an epoch has another number of batches.
    loader.load_state_dict(position.loader_state)
    return loader.epoch == position.epoch


def _length(loader: Any) -> int | None:
    """Batches of an epoch; None when it does not say."""
    try:
        return len(loader)
    except TypeError:
        return None


def _pass_over(batches: Iterator[Any]) -> None:
    """Go on by one batch; where the data is indexed and loaded in this process, without loading it."""
    next_index = getattr(batches, "_next_index", None)
    is_here = getattr(batches, "_num_workers", None) == 0
    from torch.utils.data import IterableDataset

    # An iterable is where its own iterator is: an index that is passed over would leave it at its beginning.
    dataset = getattr(batches, "_dataset", None)
    is_indexed = dataset is not None and not isinstance(dataset, IterableDataset)
    if next_index is not None and is_here and is_indexed:
        next_index()
    else:
        next(batches)
