"""A step that memory cannot break: a batch in as many pieces as fit, with the gradient of the whole. Needs torch.

What happens when memory runs out: the error's frames are dropped, so that nothing holds tensors; the gradients that a
failed backward left half written are undone; caches are emptied; the random generators are put back; the same samples
are tried in pieces of half the size. `split` decides the sizes; this module carries them out.

With DistributedDataParallel each rank splits its own part, and the ranks meet where they always do, in the gradient's
all-reduce: the others wait there. All pieces but the last accumulate locally (`no_sync`). An error in the middle of the
all-reduce could not be undone, so only a size that this process has seen to fit goes with it; a new size is computed
locally, and one sample that counts for nothing carries the all-reduce.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from outlast.checkpoints import state
from outlast.errors import BadInput, DoesNotFit
from outlast.train import batches, split
from outlast.train.out_of_memory import is_out_of_memory, let_go, was_in

_log = logging.getLogger("outlast")


@dataclass(frozen=True, slots=True)
class Work:
    """One batch's forward and backward, as their owner does them."""

    go: Callable[[Any, float], Any]
    """Forward and backward of a piece, whose loss counts for that share; returns the detached share of the loss."""
    undo: Callable[[], None]
    """Drops all gradients since the last step of the optimizer."""
    weigh: Callable[[list[Any], tuple[int, ...]], tuple[float, ...]]
    """The share of each piece in the whole, from the pieces and their numbers of samples."""
    model: Any
    """The module as it is called; DistributedDataParallel is looked for in it."""
    tell: Callable[..., None]
    """Writes to the journal: an event and its facts."""
    advice: Callable[[], str]
    """What would make a single sample fit."""
    otherwise: str | None = None
    """What to do about a batch that cannot be split; None for what `batches` says."""
    cap: int | None = None
    """The most samples of a piece that the user allows."""
    take: Callable[[Any, int, int], Any] | None = None
    """The user's own cut: samples start to stop of a batch. None cuts by the first dimension."""
    samples: int | None = None
    """Samples of the batch, where the user says it."""
    at_most: int | None = None
    """The loader's batch size."""


@dataclass(slots=True)
class Entry:
    """A batch of the present window: one step of the optimizer may have several, by gradient accumulation."""

    batch: Any
    work: Work
    generators: dict[str, Any]
    """The random generators as it was started."""
    measure: batches.Measure | None
    """None when it cannot be split."""
    sizes: tuple[int, ...]
    """Samples of each piece."""
    syncs: bool
    """Its gradient ends in an all-reduce."""
    reason: BadInput | None = None
    """Why it cannot be split."""

    @property
    def largest(self) -> int:
        """Elements of the largest piece."""
        return int(max(self.sizes) * self.measure.width) if self.measure else 0


@dataclass(slots=True)
class Splitter:
    """Runs batches in pieces that fit, and remembers what did."""

    known: split.Known = field(default_factory=split.Known)
    """What was learned; goes into checkpoints."""
    window: list[Entry] = field(default_factory=list)
    """Batches that were done since the optimizer's last step."""
    proven: int = 0
    """Elements of the largest piece that fitted in this process: only such go with an all-reduce."""
    doing: Entry | None = None
    """Being computed."""
    told: int | None = None
    """Elements of the size that the journal last had; None while it had none."""
    is_local: bool = False
    """The piece that is being computed takes no part in an all-reduce."""

    def run(self, batch: Any, work: Work, *, closes: bool = True) -> Any:
        """Forward and backward of a batch.

        Args:
            batch: the samples.
            work: what to do with them.
            closes: the optimizer's step follows; otherwise more batches do.

        Returns:
            The loss of the whole batch, detached.

        Raises:
            DoesNotFit: when a single sample does not, or the batch cannot be split.
        """
        entry = self._entry(batch, work)
        was_cut, before = len(entry.sizes) > 1, self.known
        try:
            loss = self._do(entry)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            caught: BaseException = error
        else:
            self._learn(entry, before, was_cut=was_cut)
            self._close(entry, closes=closes)
            return loss
        # The except block is left: from here on nothing but `failure` holds the frames.
        failure: BaseException | None = caught
        del caught
        while failure is not None:
            self._give_way(failure, entry)
            entry.work.undo()
            failure, loss = self._again([*self.window, entry])
        self._learn(entry, None, was_cut=True)
        self._close(entry, closes=closes)
        return loss

    def _close(self, entry: Entry, *, closes: bool) -> None:
        # A batch that is done is not held: on a GPU its tensors are memory too.
        self.doing, self.window = None, [] if closes else [*self.window, entry]

    def forget_window(self) -> None:
        """The optimizer has moved, or the gradients were dropped, by other hands."""
        self.window.clear()

    # One attempt

    def _entry(self, batch: Any, work: Work) -> Entry:
        generators = state.take_generators()
        reason = None
        try:
            measure = batches.Measure(work.samples, 1) if work.samples else batches.measure(batch, work.at_most)
            sizes = split.first_sizes(measure.samples, measure.width, self.known, work.cap)
        except BadInput as error:
            if work.cap is not None:
                raise
            measure, sizes, reason = None, (1,), error
        ddp = _ddp(work.model)
        syncs = ddp is not None and ddp.require_backward_grad_sync
        return Entry(batch, work, generators, measure, sizes, syncs, reason)

    def _again(self, entries: list[Entry]) -> tuple[BaseException | None, Any]:
        """All of the window once more, each batch from its own random state; the error, or the last one's loss."""
        loss = None
        try:
            for entry in entries:
                state.put_generators(entry.generators)
                loss = self._do(entry)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return error, None
        return None, loss

    def _do(self, entry: Entry) -> Any:
        self.doing = entry
        ddp = _ddp(entry.work.model) if entry.syncs else None
        if ddp is None and len(entry.sizes) == 1:
            return entry.work.go(entry.batch, 1.0)
        pieces = list(_pieces(entry))
        weights = entry.work.weigh(pieces, entry.sizes) if len(pieces) > 1 else (1.0,)
        # A piece without a token that counts has no mean: nothing of it belongs into the whole.
        done = [(one, share) for one, share in zip(pieces, weights, strict=True) if share]
        del pieces
        is_proven = ddp is None or entry.measure is None or entry.largest <= self.proven
        total = None
        for number, (piece, share) in enumerate(done, 1):
            self.is_local = ddp is not None and (number < len(done) or not is_proven)
            with ddp.no_sync() if ddp is not None and self.is_local else nullcontext():
                loss = entry.work.go(piece, share)
            total = loss if total is None else total + loss
        if not is_proven:
            self.is_local = False
            _carry_the_all_reduce(entry)
        return total

    # Memory ran out

    def _give_way(self, caught: BaseException, entry: Entry) -> None:
        """Let go of everything, and halve the pieces of the batch that did not fit."""
        failed = self.doing or entry
        work, sizes, measure = failed.work, failed.sizes, failed.measure
        where = "backward" if was_in(caught, "backward") else "forward"
        problem = _cannot_undo(failed, caught, is_local=not failed.syncs or self.is_local)
        _forget_broadcast(failed, caught)
        let_go(caught, around=sys.exception())
        reason = str(caught).partition("\n")[0][:300]
        facts = {"samples": sum(sizes), "where": where, "reason": reason}
        if problem:
            work.tell("batch_not_split", why=problem, **facts)
            caught.add_note(f"outlast: {problem}")
            raise caught
        smaller = split.halved(sizes) if measure else None
        if smaller is None:
            work.undo()
            self.window.clear()
            work.tell("batch_does_not_fit", **facts)
            raise self._does_not_fit(failed, reason) from caught
        self.known = split.after_failure(self.known, failed.largest)
        self.proven = min(self.proven, self.known.fits)
        failed.sizes = smaller
        work.tell("batch_split", pieces=list(smaller), micro_batch=max(smaller), **facts)
        _log.warning(
            "outlast: out of memory in the %s with %d samples at once; the same %d again, %d at a time: same gradient",
            where, max(sizes), sum(sizes), max(smaller),
        )  # fmt: skip

    def _does_not_fit(self, failed: Entry, reason: str) -> DoesNotFit:
        if failed.reason is not None:
            return DoesNotFit(
                f"out of memory ({reason}), and {failed.reason.message}",
                hint=failed.work.otherwise or failed.reason.hint,
            )
        return DoesNotFit(f"a single sample does not fit the memory ({reason})", hint=failed.work.advice())

    def _learn(self, entry: Entry, before: split.Known | None, *, was_cut: bool) -> None:
        """Remember what went through; ``before`` is None where something had failed first."""
        if entry.measure is None:
            return
        largest = entry.largest
        self.proven = max(self.proven, largest)
        self.known = split.after_success(self.known, largest, was_cut=was_cut)
        if before is None:
            self.told = largest
            return
        told = before.fits if self.told is None and before.fails is not None else self.told
        if told is not None and largest > told:
            samples = sum(entry.sizes)
            entry.work.tell("batch_grown", samples=samples, pieces=list(entry.sizes), micro_batch=max(entry.sizes))
            self.told = largest if len(entry.sizes) > 1 else None


def _pieces(entry: Entry) -> Iterator[Any]:
    if len(entry.sizes) == 1 or entry.measure is None:
        yield entry.batch
        return
    start = 0
    for size in entry.sizes:
        yield _take(entry, start, start + size)
        start += size


def _take(entry: Entry, start: int, stop: int) -> Any:
    if entry.work.take is not None:
        return entry.work.take(entry.batch, start, stop)
    assert entry.measure is not None
    return batches.cut(entry.batch, start, stop, entry.measure.samples)


# DistributedDataParallel


def _ddp(model: Any) -> Any:
    """The module itself where it reduces gradients of several processes; None for any other."""
    return model if hasattr(model, "require_backward_grad_sync") and hasattr(model, "no_sync") else None


def _carry_the_all_reduce(entry: Entry) -> None:
    """One sample whose loss counts for nothing, through the backward in which the ranks' gradients meet."""
    after = state.take_generators()
    entry.work.go(_take(entry, 0, 1), 0.0)
    state.put_generators(after)


def _cannot_undo(failed: Entry, caught: BaseException, *, is_local: bool) -> str | None:
    """Why a batch cannot be tried again here; None when it can."""
    dist = sys.modules.get("torch.distributed")
    is_alone = not (dist and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)
    if is_alone or (is_local and _ddp(failed.work.model) is not None):
        return None
    if _ddp(failed.work.model) is None:
        return "several processes compute this model's forward together; one alone cannot repeat it in pieces"
    if was_in(caught, "_run_ddp_forward"):
        return None
    return "memory ran out in the middle of the ranks' all-reduce, at a size that had fitted before"


def _forget_broadcast(failed: Entry, caught: BaseException) -> None:
    """The forward that failed has sent or received the buffers already; the other ranks will not do so again."""
    ddp = _ddp(failed.work.model)
    if ddp is not None and was_in(caught, "_run_ddp_forward"):
        ddp.require_forward_param_sync = False
