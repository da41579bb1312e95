"""When a training has to have left, and why: asked for in a file that the training looks at after each step.

A request is a time, not an order: until then the training may go on, as long as a last save still fits in before it.
``by`` a time that has passed means at the end of this step. Of several requests the earliest counts.

The file is ``DIR/.outlast/journal/RUN/stop``, replaced as a whole, so that a reader sees all of it or none.
"""

from __future__ import annotations

import json
import math
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from outlast import durable
from outlast.journal import FOLDER

CAUSES = ("deadline", "notice", "signal", "memory")
"""Why a training may be asked to leave; ``memory`` is the one after which it is started again."""
SAME_SECONDS = 2.0
"""Signals that come within so long are one wish: sent to a group, and passed on by a parent."""
_MOST_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Stop:
    """A request to leave with a sealed checkpoint."""

    by: float
    """When the process has to have ended, seconds since the epoch."""
    cause: str
    """A name of `CAUSES`."""
    why: str
    """A phrase for the user: ``the deadline of 9h``."""


def ask(home: Path, run: str, stop: Stop) -> Stop:
    """Ask the trainings of a run to leave.

    Args:
        home: folder whose ``.outlast`` holds the journal.
        run: the run's name.
        stop: until when, and why.

    Returns:
        What counts now: this request, or one that was there and is earlier.

    Raises:
        OSError: when the file cannot be written.
    """
    known = asked(home, run)
    if known is not None and known.by <= stop.by:
        return known
    put(home, run, stop)
    return stop


def put(home: Path, run: str, stop: Stop | None) -> None:
    """Replace whatever was asked for; None takes it back.

    Raises:
        OSError: when the file cannot be written.
    """
    path = path_of(home, run)
    if stop is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    durable.write_bytes(path, json.dumps(asdict(stop)).encode())


def asked(home: Path, run: str) -> Stop | None:
    """The request that counts now; None when there is none, or what is there is none of ours."""
    # Whatever lies there under that name (a pipe, a device, a bomb) must not hold up or end a training.
    with suppress(OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        doc = json.loads(durable.read_small(path_of(home, run), _MOST_BYTES))
        found = Stop(float(doc["by"]), str(doc["cause"]), str(doc["why"]))
        return found if math.isfinite(found.by) and found.cause in CAUSES else None
    return None


def path_of(home: Path, run: str) -> Path:
    """The file of a run's request."""
    return home / FOLDER / "journal" / run / "stop"


class Mailbox:
    """The reading end in a training: one `stat` a look, and the file only when it is another one.

    Args:
        home: folder whose ``.outlast`` holds the journal.
        run: the run's name.
    """

    def __init__(self, home: Path, run: str) -> None:
        self.home, self.run = home, run
        self._path = os.fspath(path_of(home, run))
        self._seen: tuple[int, int] | None = None
        self._stop: Stop | None = None

    def look(self) -> Stop | None:
        """The request that counts now."""
        try:
            found = os.stat(self._path)
        except OSError:
            self._seen = self._stop = None
            return None
        seen = (found.st_ino, found.st_mtime_ns)
        if seen != self._seen:
            self._seen, self._stop = seen, asked(self.home, self.run)
        return self._stop
