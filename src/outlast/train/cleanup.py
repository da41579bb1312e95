"""When emptying torch's cache of GPU memory helps, and doing it then. Needs torch only where there is a GPU.

Emptying it every N steps makes the allocator ask the driver for everything again, which costs speed and cures nothing.
It helps in two cases, and only what is whole can be given back: where allocations had to be tried again (the allocator
threw its cache away in the middle of a step, and waited for the GPU), and where much of the cache is rests of blocks
while the GPU is nearly full. After it did not help for long, it is done less and less often.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

EVERY_STEPS = 64
"""Steps between two looks: one takes some 100 microseconds."""
_LEAST_WAIT_STEPS = 256
_MOST_WAIT_STEPS = 65_536
_SPLIT_PART = 0.2
_NEARLY_FULL = 0.1
_WORTH = 0.05


@dataclass(frozen=True, slots=True)
class CacheReading:
    """The allocator's figures at the end of a step (torch.cuda.memory_stats)."""

    reserved_bytes: int
    """Taken from the driver."""
    allocated_bytes: int
    """In tensors."""
    split_bytes: int
    """Free rests of blocks that are in use otherwise (inactive_split_bytes): emptying does not give them back."""
    retries: int
    """Allocations so far that failed at first, until the cache was thrown away (num_alloc_retries)."""
    free_bytes: int
    """Free on the GPU, as the driver counts."""
    total_bytes: int
    """The GPU's memory."""

    @property
    def whole_bytes(self) -> int:
        """What emptying gives back: about what is neither in tensors nor a rest."""
        return max(0, self.reserved_bytes - self.allocated_bytes - self.split_bytes)


@dataclass(frozen=True, slots=True)
class Past:
    """What was known at the last look."""

    retries: int | None = None
    """Retries so far; None before the first look."""
    emptied_at: int | None = None
    """Step of the last emptying; None when there was none."""
    wait_steps: int = _LEAST_WAIT_STEPS
    """Steps that have to pass after it."""


def decide(now: CacheReading, step: int, past: Past) -> tuple[str, Past]:
    """Whether to empty the cache after this step.

    Args:
        now: the allocator's figures.
        step: optimizer steps done.
        past: what the last look left; ``Past()`` for the first.

    Returns:
        Why it helps, empty when it does not; and the past for the next look.
    """
    rose = now.retries - past.retries if past.retries is not None else 0
    since = None if past.emptied_at is None else step - past.emptied_at
    if since is not None and since < past.wait_steps:
        # The retries that fall into the wait are kept, so that they are seen when it is over.
        return "", Past(past.retries, past.emptied_at, past.wait_steps)
    seen = Past(now.retries, past.emptied_at, past.wait_steps)
    why = _reason(now, rose)
    if not why:
        return "", seen
    again = since is not None and since < 2 * past.wait_steps
    wait = min(_MOST_WAIT_STEPS, 2 * past.wait_steps) if again else _LEAST_WAIT_STEPS
    return why, Past(now.retries, step, wait)


def _reason(now: CacheReading, rose: int) -> str:
    if now.whole_bytes < _WORTH * now.total_bytes:
        return ""
    if rose > 0:
        return f"{rose} allocations had to be tried again"
    is_nearly_full = now.free_bytes < _NEARLY_FULL * now.total_bytes
    if is_nearly_full and now.split_bytes > _SPLIT_PART * now.reserved_bytes:
        return f"{100 * now.split_bytes // now.reserved_bytes} % of what torch holds is rests of blocks"
    return ""


class Cleanup:
    """Looks every `EVERY_STEPS` steps; between them a call costs a comparison.

    Args:
        tell: writes to the journal: an event and its facts.
        read: the allocator's figures; None where no GPU is in use.
        empty: gives the cache back to the driver.
    """

    def __init__(
        self,
        tell: Callable[..., None],
        *,
        read: Callable[[], CacheReading | None] | None = None,
        empty: Callable[[], None] | None = None,
    ) -> None:
        self._tell = tell
        self._read = read or reading
        self._empty = empty or _empty
        self._past = Past()
        self._next = 0

    def after_step(self, step: int) -> None:
        """A step is done, and its activations are gone.

        Args:
            step: optimizer steps done.
        """
        if step < self._next:
            return
        self._next = step + EVERY_STEPS
        before = self._read()
        if before is None:
            return
        why, self._past = decide(before, step, self._past)
        if not why:
            return
        self._empty()
        after = self._read() or before
        self._tell(
            "cache_emptied", step=step, why=why, before_bytes=before.reserved_bytes, after_bytes=after.reserved_bytes,
            split_before_bytes=before.split_bytes, split_after_bytes=after.split_bytes, next_wait=self._past.wait_steps,
        )  # fmt: skip


def reading(torch: Any = None) -> CacheReading | None:
    """The allocator's figures for the current device; None where torch has no GPU in use.

    Args:
        torch: the module; None takes it if this process has imported it.
    """
    cuda = getattr(torch or sys.modules.get("torch"), "cuda", None)
    if cuda is None or not cuda.is_initialized():
        return None
    stats = cuda.memory_stats()
    free, total = cuda.mem_get_info()
    return CacheReading(
        reserved_bytes=int(stats.get("reserved_bytes.all.current", 0)),
        allocated_bytes=int(stats.get("allocated_bytes.all.current", 0)),
        split_bytes=int(stats.get("inactive_split_bytes.all.current", 0)),
        retries=int(stats.get("num_alloc_retries", 0)),
        free_bytes=int(free),
        total_bytes=int(total),
    )


def _empty() -> None:
    sys.modules["torch"].cuda.empty_cache()
