"""Which folders of checkpoints belong to a run: those that its journal names, and those that lie below its folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from outlast import journal
from outlast.checkpoints import layouts
from outlast.checkpoints import seal as seals

_DEPTH = 4
_MOST_FOLDERS = 5000
_RUNS, _MOST_RUNS = 3, 50
_NOT_INTO = frozenset({".git", ".venv", "venv", "node_modules", "__pycache__", "site-packages"})


def vaults_of(home: Path, *, journaled: bool = True) -> list[Path]:
    """Folders of checkpoints, sorted: at or below ``home``, and those of the runs journaled there.

    Args:
        home: a run's folder, or a folder of checkpoints itself.
        journaled: False looks at and below ``home`` only. A journal that was copied names the original's folders.
    """
    found = set(_below(home.absolute()))
    looked = 0
    for run in reversed(journal.runs(home)[-_MOST_RUNS:]) if journaled else ():
        roots = {os.path.realpath(str(event.get("root"))) for event in journal.read(home, run) if event.get("root")}
        found |= {Path(root) for root in roots if Path(root).is_dir()}
        looked += bool(roots)
        if looked == _RUNS:
            break
    return sorted(found)


def _below(home: Path) -> Iterator[Path]:
    stack = [(home, 0)]
    looked = 0
    while stack and looked < _MOST_FOLDERS:
        folder, depth = stack.pop()
        looked += 1
        with suppress(OSError):
            entries = [entry for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
            names = {entry.name for entry in entries}
            if _is_vault(folder, names):
                yield folder
            is_deep = depth >= _DEPTH
            stack += [
                (Path(entry.path), depth + 1)
                for entry in entries
                if not is_deep
                and not entry.name.startswith(".")
                and entry.name not in _NOT_INTO
                and not layouts.is_candidate(entry.name)
            ]


def _is_vault(folder: Path, names: set[str]) -> bool:
    if any(layouts.is_candidate(name) for name in names):
        return True
    own = folder / journal.FOLDER
    return ".outlast" in names and ((own / "stage").is_dir() or (folder / seals.NAME).exists())
