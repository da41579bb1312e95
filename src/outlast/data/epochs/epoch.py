"""The number of an epoch, as workers see it that were started before it was set. Needs torch."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch


class SharedEpoch:
    """One number for a data set and its copies in workers, also in those that live on from epoch to epoch.

    Args:
        number: of the first epoch.
    """

    def __init__(self, number: int = 0) -> None:
        self._here = number
        self._shared: Any = None

    def set(self, number: int) -> None:
        """From now on it is this epoch; shared with the workers that are started later."""
        if self._shared is None:
            self._shared = torch.tensor(number, dtype=torch.int64)
            with suppress(OSError, RuntimeError):  # no /dev/shm: then there are no such workers either
                self._shared.share_memory_()
        self._shared.fill_(number)

    @property
    def number(self) -> int:
        """The epoch that it is."""
        return self._here if self._shared is None else int(self._shared)
