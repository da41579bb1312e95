"""The thread that asks the cloud whether this machine is about to end, and asks the training to leave in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from outlast.guard.stop import Stop
from outlast.host import Notice, server_here, show_seconds

if TYPE_CHECKING:
    from outlast.host.metadata import Answer

POLL_SECONDS = 5.0
"""AWS recommends to look every 5 seconds (EC2 user guide, "Spot Instance interruption notices")."""
_LONGEST_SECONDS = 60.0
_JOIN_SECONDS = 0.2


@dataclass(slots=True)
class Lookout:
    """Looks for notices; `look` is one round, the thread calls it every few seconds.

    Args:
        line: tells the user.
        record: writes an event to the journal.
        ask: asks the trainings to leave; False while there is none that would hear it.
        read: asks the metadata server; None where there is none, and then there is no thread either.
        clock: seconds since the epoch.
    """

    line: Callable[[str], None]
    record: Callable[..., None]
    ask: Callable[[Stop], bool]
    read: Callable[[], Answer] | None
    clock: Callable[[], float] = time.time
    _said: set[tuple[str, str]] = field(default_factory=set)
    _has_answered: bool = False
    _pause_seconds: float = POLL_SECONDS
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _died_of: BaseException | None = None

    @classmethod
    def here(
        cls,
        line: Callable[[str], None],
        record: Callable[..., None],
        ask: Callable[[Stop], bool],
        environment: Mapping[str, str],
    ) -> Lookout:
        """For this machine: it asks nothing where no local sign tells that there is somebody to ask."""
        address = server_here(environment)
        if address is None:
            return cls(line, record, ask, None)
        from outlast.host.metadata import MetadataServer

        record("lookout", provider=address.provider.name, address=address.base, why=address.why)
        return cls(line, record, ask, MetadataServer(address).look)

    def start(self) -> None:
        """Begin to look, if there is somebody to ask."""
        if self.read is None:
            return
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(self._stop,), name="outlast-lookout", daemon=True)
        self._thread.start()

    def stop(self) -> BaseException | None:
        """End the thread; returns what it died of. One that waits for a slow server ends later, and says nothing."""
        self._stop.set()
        if self._thread:
            self._thread.join(_JOIN_SECONDS)
        died, self._died_of, self._thread = self._died_of, None, None
        return died

    def look(self) -> None:
        """One round."""
        self._tell(self.read() if self.read else None)

    def _run(self, stop: threading.Event) -> None:
        try:
            while not stop.is_set():
                answer = self.read() if self.read else None
                if not stop.is_set():
                    self._tell(answer)
                stop.wait(self._pause_seconds)
        except BaseException as error:  # handed over by stop(); the run goes on without it
            self._died_of = error

    def _tell(self, answer: Answer | None) -> None:
        if answer is None:
            return
        self._has_answered = self._has_answered or answer.problem is None
        # A server that never answered is not there for us (a container out of its reach): it is asked less and less.
        self._pause_seconds = POLL_SECONDS if self._has_answered else min(_LONGEST_SECONDS, 2 * self._pause_seconds)
        if answer.problem and self._is_new("problem", ""):
            self.record("notices_unread", why=answer.problem)
        for notice in answer.notices:
            self._take(notice)

    def _take(self, notice: Notice) -> None:
        if self._is_new(notice.source, notice.text):
            self.record("notice", source=notice.source, why=notice.text, by=notice.by, is_told=notice.is_told)
            self.line(f"{notice.text}{self._when(notice)} ({notice.source})")
        if notice.by is not None:
            # In each round: the training may not have begun, or be another one by now.
            self.ask(Stop(notice.by, "notice", notice.text))

    def _when(self, notice: Notice) -> str:
        if notice.by is None:
            return ""
        span = show_seconds(max(0.0, notice.by - self.clock()))
        return f", in {span}" if notice.is_told else f", in no less than {span}"

    def _is_new(self, kind: str, text: str) -> bool:
        is_new = (kind, text) not in self._said
        self._said.add((kind, text))
        return is_new
