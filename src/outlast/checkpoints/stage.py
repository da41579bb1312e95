"""Where a save is written before it counts: what it needs, the place with its reservation, and what the writer says.

The writer (a framework, or `outlast.Run`) gets a `Stage` and writes into it. It learns there which kind is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from outlast.checkpoints import seal as seals
from outlast.checkpoints.reserve import Reservation, ReservedFile
from outlast.checkpoints.shelf import stamp_of

MARGIN = 1.01
"""Predicted bytes times this, plus the slack, is what a save needs (guard.md section 2: 13.81 MB for 13.47)."""
SLACK = 256 * 1024
"""Bytes on top, for folders, seals and blocks that are half full."""


@dataclass(frozen=True, slots=True)
class Needs:
    """Predicted lengths of a save's large files, for each kind that it could have."""

    files: Mapping[str, tuple[int, ...]]
    """For each kind, richest first: bytes of each large file."""
    small_bytes: int = 0
    """All small files together: configuration, tokenizer, schedule, random states."""
    measured: Mapping[str, int] = field(default_factory=dict)
    """What the last save of a kind really took; counts where it is more than predicted."""
    is_one_file: bool = False
    """True when the checkpoint is a file, not a folder: the stage's path is then that of the file to write."""

    def total(self, kind: str) -> int:
        """Bytes to have free before a save of this kind."""
        predicted = sum(self.files[kind]) + self.small_bytes
        return int(max(predicted, self.measured.get(kind, 0)) * MARGIN) + SLACK


@dataclass(slots=True)
class Stage:
    """Where a save is written before it counts."""

    path: Path
    """Folder to write the checkpoint into, or the one file that it is; on the vault's file system."""
    kind: str
    """Kind to write."""
    reservation: Reservation | None
    """Room to write into; None on a rank that did not reserve."""
    error: OSError | None = None
    """First OSError that one of our writers saw; frameworks lose the errno."""
    holds_errors: bool = False
    """Our writers keep an OSError in ``error`` and go on; whoever runs the writer raises it afterwards."""
    why_poorer: str | None = None
    """Why it is not of the richest kind; None when it is."""
    skipped: set[str] = field(default_factory=set)
    """Names of files that were left out because this kind does not need them."""
    written: dict[Path, tuple[tuple[int, ...], str]] = field(default_factory=dict)
    """Digests that our writers took as they wrote, with the file's stamp when it was closed."""

    def known(self) -> dict[str, seals.Entry]:
        """Entries of the files that are still as our writers left them: the seal need not read these again."""
        return {
            (path.name if path == self.path else path.relative_to(self.path).as_posix()): seals.Entry(
                os.lstat(path).st_size, digest
            )
            for path, (left, digest) in self.written.items()
            if os.path.lexists(path) and stamp_of(path) == left
        }


@dataclass(frozen=True, slots=True)
class Draft:
    """What a writer says of what it has written."""

    layout: str
    """Who laid the files out."""
    without: Mapping[str, Sequence[str]]
    """For each kind that this checkpoint can be, richest first: the files that it does not need."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Metrics known now."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """For the seal."""


@contextmanager
def reserved_file(stage: Stage, path: Path, size: int | None) -> Iterator[ReservedFile]:
    """A file of the stage, written into a claimed reservation; the first OSError is kept for the diagnosis."""
    part = path.with_name(f".{path.name}.part")
    file = None
    try:
        if stage.reservation:
            stage.reservation.claim(part, size)
        file = ReservedFile(part, digests=True)
        try:
            yield file
        finally:
            file.close()
        if file.error:
            raise file.error  # a writer that swallowed it: what it wrote has a hole
        part.rename(path)
        if file.digest:
            stage.written[path] = (stamp_of(path), file.digest)
    except Exception as error:
        stage.error = stage.error or (file and file.error) or (error if isinstance(error, OSError) else None)
        # Among several ranks an exception here would leave the others in a barrier: it is raised when all are through.
        if stage.error is None or not stage.holds_errors:
            raise
