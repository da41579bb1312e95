"""Files on this machine: one file, a folder, or a pattern. Also what `datasets` left: its cache, or save_to_disk."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from outlast.data.formats import choose_files
from outlast.data.sources.interface import SourceFile
from outlast.errors import BadInput, SourceChanged

_PATTERN = frozenset("*?[")


class LocalSource:
    """A file, folder or pattern of this machine.

    Args:
        text: a path, or ``file://`` and a path.

    Raises:
        BadInput: nothing is there.
    """

    revision = None
    is_remote = False

    def __init__(self, text: str) -> None:
        path = Path(text.removeprefix("file://")).expanduser()
        found: list[str]
        if _PATTERN & set(str(path)) and not path.exists():
            self._root = _root_of(path)
            found = [name for name in glob.glob(str(path), recursive=True) if os.path.isfile(name)]  # noqa: PTH207
        elif path.is_dir():
            self._root = path
            found = list(_below(path))
        elif path.is_file():
            self._root, found = path.parent, [str(path)]
        else:
            raise BadInput(f"there is no file or folder {path}", hint="a path, https://, s3://, gs://, az:// or hf://")
        self._root = self._root.resolve()
        self.name = str(path.parent.resolve() / path.name) if path.name not in ("", "..") else str(path.resolve())
        # Once each: a pattern may come to a file by several ways.
        chosen = choose_files(list(dict.fromkeys(_name(Path(file), self._root) for file in found)), str(path))
        self._paths, self.notes = chosen.paths, chosen.notes

    def paths(self) -> tuple[str, ...]:
        """Names below the folder."""
        return self._paths

    def look(self, path: str, part: str) -> SourceFile:
        """Size and time of change."""
        try:
            info = os.stat(self._root / path)
        except OSError as error:
            raise BadInput(f"{self._root / path} cannot be read: {error.strerror}", hint="look at its owner") from None
        return SourceFile(path, info.st_size, _version(info))

    def read(self, file: SourceFile, start: int, stop: int) -> bytes:
        """Bytes of a file that has not changed."""
        where = self._root / file.path
        try:
            with where.open("rb", buffering=0) as opened:
                if _version(os.fstat(opened.fileno())) != file.version:
                    raise changed(str(where), "it was written to")
                found, at = bytearray(), start
                while at < stop and (piece := os.pread(opened.fileno(), stop - at, at)):
                    found += piece
                    at += len(piece)
        except OSError as error:
            raise BadInput(f"{where} cannot be read: {error.strerror}", hint="look at its owner and its disk") from None
        if at < stop:
            raise changed(str(where), f"it ends at byte {at:,}, not {stop:,}")
        return bytes(found)

    def sequential(self, file: SourceFile) -> Iterator[bytes] | None:
        """None: any part can be had."""
        return None

    def traveled(self) -> int:
        """0: nothing travels."""
        return 0

    def local(self, path: str) -> str | None:
        """Where it lies."""
        return str(self._root / path)

    def close(self) -> None:
        """Nothing is held."""


def changed(where: str, how: str) -> SourceChanged:
    """The error for a source that is not what it was."""
    return SourceChanged(
        f"{where} changed while it was read: {how}",
        hint="a subset is of one state of its source: fetch the new one into another folder (-o)",
    )


def _version(info: os.stat_result) -> str:
    return f"{info.st_size}-{info.st_mtime_ns}"


def _name(path: Path, root: Path) -> str:
    # Not resolved: in a hub's cache each file is a link to a blob without a telling name.
    folder = path.parent.resolve()
    return ((folder / path.name).relative_to(root) if folder.is_relative_to(root) else path).as_posix()


def _root_of(pattern: Path) -> Path:
    root = Path(pattern.anchor) if pattern.is_absolute() else Path()
    for part in pattern.parts[1 if pattern.is_absolute() else 0 : -1]:
        if _PATTERN & set(part):
            break
        root /= part
    return root


def _below(folder: Path) -> Iterator[str]:
    """Regular files below a folder, without hidden ones and the map results of `datasets` (cache-*.arrow)."""
    for place, folders, names in os.walk(folder, followlinks=False):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        for name in names:
            full = os.path.join(place, name)
            if name.startswith((".", "_", "cache-")) or not _is_file(full):
                continue
            yield full


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False
