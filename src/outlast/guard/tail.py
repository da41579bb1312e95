"""Reads a run's journal as it grows: each line once, a torn last line when it is whole."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from outlast.journal import FOLDER, Event


class Tail:
    """New lines of all processes of a run.

    Args:
        home: folder whose ``.outlast`` holds the journal.
        run: the run's name.
    """

    def __init__(self, home: Path, run: str) -> None:
        self.folder = home / FOLDER / "journal" / run
        self._read: dict[str, int] = {}

    def news(self) -> list[Event]:
        """Events since the last call, in the order of their time."""
        events: list[Event] = []
        with suppress(OSError), os.scandir(self.folder) as entries:
            for entry in entries:
                if entry.name.endswith(".jsonl") and entry.stat().st_size > self._read.get(entry.name, 0):
                    events.extend(self._lines(entry.name))
        return sorted(events, key=lambda event: event.time)

    def _lines(self, name: str) -> list[Event]:
        start = self._read.get(name, 0)
        with (self.folder / name).open("rb") as file:
            file.seek(start)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read[name] = start + len(whole)
        return [event for line in whole.split(b"\n") if (event := _event(line))]


def _event(line: bytes) -> Event | None:
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        record = json.loads(line)
        return Event(float(record.pop("t")), int(record.pop("pid")), str(record.pop("event")), record)
    return None
