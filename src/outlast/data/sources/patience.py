"""How long a source that fails is asked again: back-off, Retry-After, and progress that starts the count anew."""

from __future__ import annotations

import email.utils
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from outlast.errors import OutlastError, SourceFailed

T = TypeVar("T")


class Passing(Exception):
    """A failure that may pass by itself.

    Args:
        reason: what came.
        wait: seconds that the server asked for; None when it did not.
    """

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait = wait


class NoAnswer(Passing):
    """A failure in which nobody answered: no way there, or a name that nobody knows."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How a source that fails is tried again."""

    tries: int = 7
    """Attempts in a row without a byte of progress before it is given up."""
    first_tries: int = 3
    """Attempts at a source that has not answered once: more likely than a cut is that there is no way to it."""
    first_wait: float = 0.5
    """Seconds before the second attempt; each further wait is twice as long."""
    longest_wait: float = 30.0
    """Most seconds between two attempts, where the server asks for nothing else."""
    longest_asked: float = 300.0
    """Most seconds that a server's Retry-After is obeyed."""
    stopped: threading.Event = field(default_factory=threading.Event)
    """Set when nobody wants the answer any more: waits end, and nothing is tried again."""
    answered: threading.Event = field(default_factory=threading.Event)
    """Set once the source has answered."""
    sleep: Callable[[float], None] | None = None
    """Waits; None waits for `stopped` at most so long."""

    def wait(self, failures: int, asked: float | None) -> float:
        """Seconds before the next attempt, after so many failures in a row."""
        if asked is not None:
            return min(max(asked, 0.0), self.longest_asked)
        return min(self.first_wait * 2.0 ** (failures - 1), self.longest_wait)

    def pause(self, what: str, failures: int, failure: Passing) -> None:
        """Wait before the next attempt.

        Raises:
            SourceFailed: it was stopped meanwhile.
        """
        (self.sleep or self.stopped.wait)(self.wait(failures, failure.wait))
        if self.stopped.is_set():
            raise gave_up(what, f"{failure.reason}; stopped", failures) from failure

    def try_until_done(self, what: str, attempt: Callable[[], T], progress: Callable[[], int] = lambda: 0) -> T:
        """Call until it succeeds.

        Args:
            what: what is read, for the error.
            attempt: raises `Passing` for a failure that may pass, anything else for one that does not.
            progress: a figure that grows with what was got; when it grew, the failures are counted from 0.

        Raises:
            SourceFailed: after `tries` failures without progress, or `first_tries` without any answer.
        """
        failures, before = 0, progress()
        while True:
            try:
                found = attempt()
                self.answered.set()
                return found
            except Passing as failure:
                if not isinstance(failure, NoAnswer):
                    self.answered.set()
                now = progress()
                failures, before = (failures + 1 if now == before else 1), now
                if failures >= (self.tries if self.answered.is_set() else min(self.first_tries, self.tries)):
                    raise gave_up(what, failure.reason, failures) from failure
                self.pause(what, failures, failure)


def gave_up(what: str, reason: str, tries: int) -> OutlastError:
    """The error for a source that was tried long enough."""
    return SourceFailed(
        f"{what} cannot be read: {reason} ({tries} tries)",
        hint="give the same command again when the source answers; what a fetch has done is kept",
    )


def asked_wait(header: str | None, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> float | None:
    """Seconds in a Retry-After header (RFC 9110, 10.2.3): a number or a date; None when it is neither."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        when = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (when - now()).total_seconds()) if when.tzinfo else None
