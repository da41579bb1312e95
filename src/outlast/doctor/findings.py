"""What a check says: a status, one line of evidence, and one line for a shell that mends it."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from outlast.doctor.facts import Facts


class Status(Enum):
    """How bad it is."""

    OK = "ok"
    """Nothing is wrong."""
    SKIPPED = "skipped"
    """Not looked at, or not to be known here; the evidence says why."""
    WARNING = "warning"
    """It costs time, space or money, or will."""
    ERROR = "error"
    """A run fails of it, or loses something."""

    @property
    def mark(self) -> str:
        """For a terminal."""
        return {"ok": "✓", "skipped": "-", "warning": "!", "error": "✗"}[self.value]


@dataclass(frozen=True, slots=True)
class Mend:
    """A change that can be taken back, and so may be made by ``--fix``."""

    kind: str
    """``make-folder``, ``let-write`` or ``set-aside``."""
    path: Path
    """What is changed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer of a check."""

    status: Status
    """How bad it is."""
    evidence: str
    """One line: what was seen."""
    fix: str | None = None
    """One line for a shell; words for people are behind a ``#``."""
    path: Path | None = None
    """What it is about."""
    figures: Mapping[str, int | None] = field(default_factory=dict)
    """Figures behind the evidence, for programs; bytes and counts."""
    mend: Mend | None = None
    """What ``--fix`` may do about it."""
    id: str = ""
    """The check's id."""
    title: str = ""
    """The check's title."""


@dataclass(frozen=True, slots=True)
class Check:
    """A row of the table of checks."""

    id: str
    """Stable name."""
    group: str
    """``volumes``, ``caches``, ``GPU and Python`` or ``checkpoints``."""
    title: str
    """What is well when nothing is found."""
    find: Callable[[Facts], Sequence[Finding]]
    """Pure: the findings; none when nothing is wrong."""
    is_deep: bool = False
    """True when it is only asked with ``--deep``."""


def warning(evidence: str, fix: str, path: Path | None = None, mend: Mend | None = None) -> Finding:
    """Something that costs time, space or money."""
    return Finding(Status.WARNING, evidence, fix, path, mend=mend)


def error(evidence: str, fix: str, path: Path | None = None, mend: Mend | None = None) -> Finding:
    """Something that a run fails of."""
    return Finding(Status.ERROR, evidence, fix, path, mend=mend)


def fine(evidence: str, path: Path | None = None, **figures: int | None) -> Finding:
    """Nothing is wrong, and here is what was seen."""
    return Finding(Status.OK, evidence, path=path, figures=figures)


def skipped(evidence: str) -> Finding:
    """It could not be looked at."""
    return Finding(Status.SKIPPED, evidence)


_PLAIN = re.compile(rb"[A-Za-z0-9/._-]")


def quoted(word: object) -> str:
    """One word for a shell, on one line and without what a terminal would obey."""
    text = str(word)
    if text.isprintable():
        return shlex.quote(text)
    raw = os.fsencode(text)
    octal = "".join(chr(byte) if _PLAIN.match(bytes([byte])) else f"\\{byte:03o}" for byte in raw)
    return f"\"$(printf '{octal}')\""


def printable(text: str) -> str:
    """Text on one line, without what a terminal would obey; names on disk hold anything."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def line(*words: object, note: str = "") -> str:
    """Words as one line for a shell, with a note for people behind it."""
    text = " ".join(quoted(word) for word in words)
    return f"{text}  # {printable(note)}" if note else text


def export(variable: str, value: object) -> str:
    """A line that sets a variable."""
    return f"export {variable}={quoted(value)}"
