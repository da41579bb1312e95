"""What a source of data is: named files whose bytes can be read from any place on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source."""

    path: str
    """Its name below the source, with ``/``."""
    size: int | None
    """Bytes; None where the server does not say."""
    version: str | None
    """What changes when its content does; None when nothing of the kind is known."""


class Source(Protocol):
    """A place that files are read from. All methods may be called by several threads at once."""

    name: str
    """The source as the user named it, made whole; stands in the manifest, so it has no password in it."""
    revision: str | None
    """Commit that it is pinned to; None where there is no such thing."""
    notes: tuple[str, ...]
    """What was left aside in choosing its files."""
    is_remote: bool
    """Its bytes travel over a network."""

    def paths(self) -> tuple[str, ...]:
        """Names of its data files, in order."""
        ...

    def look(self, path: str, part: str) -> SourceFile:
        """Size and version of a file.

        Args:
            path: one of `paths`.
            part: ``tail`` or ``head``: where the caller reads next, so that one request can do both.

        Raises:
            BadInput: it is not there, or may not be read.
            SourceFailed: the source does not answer, after the tries that patience allows.
        """
        ...

    def read(self, file: SourceFile, start: int, stop: int) -> bytes:
        """The bytes start .. stop-1 of a file, all of them.

        Raises:
            SourceChanged: the file is not the one that was looked at.
            SourceFailed: as `look`, or it cannot give a part of a file.
        """
        ...

    def sequential(self, file: SourceFile) -> Iterator[bytes] | None:
        """The file from its beginning on, where parts of it cannot be had; None where they can."""
        ...

    def traveled(self) -> int:
        """Bytes of content that came over the network so far."""
        ...

    def local(self, path: str) -> str | None:
        """Where a file lies on this machine, for formats that are mapped into memory; None when it does not."""
        ...

    def close(self) -> None:
        """Give connections and files back."""
        ...
