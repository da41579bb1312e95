"""What Outlast saw and did: JSON lines, one writer a process, readable after a crash and on a full disk.

A run's journal is a folder, ``DIR/.outlast/journal/RUN/``, with one file a process (``PID.jsonl``). Blocks are
reserved ahead of the writing, and when a volume is full the ballast is cut to make room, so that a line is written
whole or not at all. A torn last line (a kill in the middle of the write) is read past.

Writing never raises: a training run must not die of its own log.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from outlast import durable

FOLDER = ".outlast"
"""Everything of Outlast's own under a run's folder is in here."""
RUN_VARIABLE = "OUTLAST_RUN"
"""Environment variable: the run's name, shared by the supervisor and every process it starts."""
HOME_VARIABLE = "OUTLAST_DIR"
"""Environment variable: the folder whose ``.outlast`` holds the journal of the run."""
_AHEAD = 16 * 1024
_KEPT_LINES = 1000


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a journal."""

    time: float
    """Seconds since the epoch."""
    pid: int
    """Process that wrote it."""
    name: str
    """What happened; a verb in the past tense or a reading."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """The rest of the line; sizes in bytes, durations in seconds."""

    def get(self, key: str, default: Any = None) -> Any:
        """One fact, or the default."""
        return self.facts.get(key, default)


class Journal:
    """The writing end, one a process; a forked child gets a file of its own.

    Args:
        home: folder whose ``.outlast/journal`` is written.
        run: the run's name; None makes one from the time and the process.
        spare: called when the volume is full; gives back blocks and says whether it did. None cuts the ballast in
            ``home``, if there is one.
    """

    def __init__(self, home: Path, run: str | None = None, *, spare: Callable[[], bool] | None = None) -> None:
        self.run = run or new_run_name()
        self.home = home
        self.folder = home / FOLDER / "journal" / self.run
        self.spare = spare or durable.Ballast(home / FOLDER / "ballast").cut
        self._fd = -1
        self._pid = 0
        self._reserved = 0
        self._kept: list[bytes] = []

    def write(self, event: str, /, **facts: Any) -> None:
        """Append one line. Never raises; a line that cannot be written is kept and tried with the next."""
        self._kept = [*self._kept, _line(event, facts)][-_KEPT_LINES:]
        with suppress(OSError):
            self._open()
            while self._kept and self._append(self._kept[0]):
                del self._kept[0]

    def close(self) -> None:
        """Give back what was reserved ahead and close the file."""
        if self._fd >= 0 and self._pid == os.getpid():
            with suppress(OSError):
                os.ftruncate(self._fd, os.fstat(self._fd).st_size)
            os.close(self._fd)
        self._fd = -1

    def _open(self) -> None:
        if self._fd >= 0 and self._pid == os.getpid():
            return
        if self._pid and self._pid != os.getpid():
            self._kept = self._kept[-1:]
        self.folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._pid = os.getpid()
        self._fd = os.open(self.folder / f"{self._pid}.jsonl", flags, 0o644)
        self._reserved = os.fstat(self._fd).st_size
        if self._reserved and not _ends_whole(self.folder / f"{self._pid}.jsonl"):
            os.write(self._fd, b"\n")

    def _append(self, line: bytes) -> bool:
        start = os.fstat(self._fd).st_size
        if start + len(line) > self._reserved:
            with suppress(OSError):
                durable.allocate(self._fd, _AHEAD, offset=start, keep_length=True)
                self._reserved = start + _AHEAD
        for _ in range(2):
            try:
                durable.write_all(self._fd, line)
                return True
            except OSError as error:
                os.ftruncate(self._fd, start)
                if error.errno not in durable.FULL or not self.spare():
                    return False
        return False


def _line(event: str, facts: Mapping[str, Any]) -> bytes:
    record = {"t": round(time.time(), 4), "pid": os.getpid(), "event": event}
    try:
        text = json.dumps({**record, **facts}, default=str, separators=(",", ":"))
    except (ValueError, TypeError, RecursionError):  # a circle, or keys that are no text
        text = json.dumps({**record, **{key: repr(value) for key, value in facts.items()}}, separators=(",", ":"))
    return text.encode() + b"\n"


def _ends_whole(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def new_run_name() -> str:
    """A name that sorts by time and is unique on this machine."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{time.time_ns() % 10**9:09d}-{os.getpid()}"


def from_environment(home: Path) -> Journal:
    """The journal of the guarded run that this process belongs to, else a new one under ``home``."""
    run, folder = os.environ.get(RUN_VARIABLE), os.environ.get(HOME_VARIABLE)
    return Journal(Path(folder), run) if run and folder else Journal(home)


def runs(home: Path) -> list[str]:
    """Names of the runs journaled under a folder, oldest first."""
    with suppress(OSError):
        return sorted(entry.name for entry in os.scandir(home / FOLDER / "journal") if entry.is_dir())
    return []


def read(home: Path, run: str) -> list[Event]:
    """All whole lines of a run's journal in the order of their time; torn and foreign lines are left out."""
    events: list[Event] = []
    with suppress(OSError):
        for path in sorted((home / FOLDER / "journal" / run).glob("*.jsonl")):
            events.extend(_lines(path))
    return sorted(events, key=lambda event: event.time)


def _lines(path: Path) -> Iterator[Event]:
    for line in path.read_bytes().split(b"\n"):
        with suppress(ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            record = json.loads(line)
            yield Event(float(record.pop("t")), int(record.pop("pid")), str(record.pop("event")), record)
