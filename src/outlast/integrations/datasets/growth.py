"""Whether what a ``map`` is about to write will fit, from the rows that it has done. Pure.

The first rows are the sample: the user's function is called once a row, never for the sake of a forecast, and what it
gave for them is written when the forecast is good. The forecast is made again with each further piece, so that rows
that grow later are seen before the volume is full.
"""

from __future__ import annotations

from dataclasses import dataclass

EARLY = 0.1
"""Share of the rows below which the forecast is rough."""
DOUBT = 1.25
"""A rough forecast must be above the room by this factor to stop a map; a good one by nothing."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where one process of a ``map`` stands just before it writes a piece."""

    done_rows: int
    """Input rows that the function has seen; 1 or more."""
    total_rows: int
    """Input rows of this process's part."""
    written_bytes: int
    """In the cache file so far."""
    piece_bytes: int
    """What is to be written now."""
    processes: int = 1
    """Processes that do the same at the same time, each with its own file."""

    @property
    def predicted_bytes(self) -> int:
        """The cache files of all processes when the map is done."""
        return self._own_bytes * self.processes

    @property
    def missing_bytes(self) -> int:
        """What all processes together have still to write."""
        return max(self._own_bytes - self.written_bytes, self.piece_bytes) * self.processes

    @property
    def _own_bytes(self) -> int:
        so_far = self.written_bytes + self.piece_bytes
        return max(so_far, round(so_far * self.total_rows / max(self.done_rows, 1)))


def fits(progress: Progress, free_bytes: int | None) -> bool:
    """Whether to go on.

    Args:
        progress: where the map stands.
        free_bytes: what can be written where its cache is; None when unknown.
    """
    if free_bytes is None:
        return True
    if progress.piece_bytes > free_bytes:
        return False
    is_rough = progress.done_rows < EARLY * progress.total_rows
    return progress.missing_bytes <= free_bytes * (DOUBT if is_rough else 1.0)
