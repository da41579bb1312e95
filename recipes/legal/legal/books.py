"""What a run writes down beside its checkpoints: what it is (run.json), and its losses and scores (log.jsonl)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from legal.documents import Document
from legal.settings import Settings
from outlast import durable
from outlast.errors import BadInput

START = "start"
"""Folder of what the training starts from."""
_BINDING = (
    "model", "num_epochs", "learning_rate", "warmup_ratio", "weight_decay", "max_length", "context", "seed",
    "use_subset", "subset_ratio", "validation",
)  # fmt: skip
"""What a run is: with another value it would be another training. Sizes of pieces, saving and sessions may change."""


def identity(settings: Settings, documents: Sequence[Document]) -> dict[str, Any]:
    """What must not change from one session of a run to the next."""
    digest = blake2b(digest_size=16)
    for document in documents:
        digest.update(repr((document.name, document.sentences)).encode("utf-8", "surrogatepass"))
    kept = {name: settings[name] for name in _BINDING if name != "subset_ratio" or settings["use_subset"]}
    return {**kept, "batch": settings.batch, "data": digest.hexdigest()}


def claim(folder: Path, mine: dict[str, Any], *, resumes: bool) -> None:
    """Write down what this run is; or see that it is the one that is there.

    Args:
        folder: of the run.
        mine: what it is, from `identity`.
        resumes: there are checkpoints. Without any, a start that failed (a wrong model, too long sentences) left this
            behind, and nothing is lost with it.

    Raises:
        BadInput: when another one is.
    """
    path = folder / "run.json"
    folder.mkdir(parents=True, exist_ok=True)
    theirs = json.loads(path.read_text()) if path.exists() else None
    if theirs is None or (not resumes and theirs != mine):
        shutil.rmtree(folder / START, ignore_errors=True)  # the model and vocabulary of that start
        durable.write_bytes(path, json.dumps(mine, indent=1).encode())
        return
    changed = [f"{name}: {theirs.get(name)} -> {value}" for name, value in mine.items() if theirs.get(name) != value]
    if changed:
        raise BadInput(
            f"{folder} holds another run: {', '.join(changed)}",
            hint="give it a folder of its own with --out, or the settings and data that it began with",
        )


class Log:
    """Lines of ``log.jsonl``, of which none is there twice and none is of a step that was lost.

    Args:
        path: the file.
        steps_done: steps of the checkpoint that this session goes on from; what was logged beyond it is dropped.
    """

    def __init__(self, path: Path, steps_done: int) -> None:
        self.path = path
        lines = []
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue  # cut by a kill or a full disk
                if entry["step"] <= steps_done:
                    lines.append(line)
        self.lines = lines
        self._is_whole = False
        self._write()

    def add(self, **entry: Any) -> None:
        """One line more; on a full disk it is written later, and training goes on."""
        self.lines.append(json.dumps(entry))
        self._write()

    def _write(self) -> None:
        try:
            if self._is_whole:
                with self.path.open("a") as file:
                    file.write(f"{self.lines[-1]}\n")
            else:
                durable.write_bytes(self.path, "".join(f"{line}\n" for line in self.lines).encode())
            self._is_whole = True
        except OSError as error:
            if error.errno not in durable.FULL:
                raise
            # Half a line may be there now: all of it is written again with the next one.
            self._is_whole = False
            print(f"legal: {self.path} is short of lines until the disk has room again: {error.strerror}")

    def entries(self, key: str) -> list[dict[str, Any]]:
        """Lines that have a key."""
        return [entry for entry in map(json.loads, self.lines) if key in entry]
