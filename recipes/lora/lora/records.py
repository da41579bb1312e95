"""Instruction data: conversations from JSON lines or Parquet, whatever of three forms they have."""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from outlast.errors import BadInput

ROLES = ("system", "user", "assistant", "tool")
_HINT = (
    'a line is {"prompt": ..., "response": ...}, {"instruction": ..., "input": ..., "output": ...} '
    'or {"messages": [{"role": ..., "content": ...}]}'
)


@dataclass(frozen=True, slots=True)
class Turn:
    """One message."""

    role: str
    """One of `ROLES`."""
    content: str


Conversation = tuple[Turn, ...]


def _messages(record: Mapping[str, Any]) -> Conversation:
    turns = record["messages"]
    if not isinstance(turns, Sequence) or isinstance(turns, str):
        raise ValueError(f"messages: expected a list, came {type(turns).__name__}")
    made = []
    for turn in turns:
        if not isinstance(turn, Mapping) or turn.get("role") not in ROLES:
            raise ValueError(f"messages: expected a role of {', '.join(ROLES)}, came {str(turn)[:80]}")
        made.append(Turn(turn["role"], _text(turn, "content")))
    return tuple(made)


def _instruction(record: Mapping[str, Any]) -> Conversation:
    more = record.get("input")
    asked = _text(record, "instruction") + (f"\n\n{_text(record, 'input')}" if more else "")
    return (Turn("user", asked), Turn("assistant", _text(record, "output")))


def _prompt(record: Mapping[str, Any]) -> Conversation:
    return (Turn("user", _text(record, "prompt")), Turn("assistant", _text(record, "response")))


FORMS: dict[tuple[str, ...], Callable[[Mapping[str, Any]], Conversation]] = {
    ("messages",): _messages,
    ("prompt", "response"): _prompt,
    ("instruction", "output"): _instruction,
}
"""Fields that a record must have, and what makes a conversation of it. A new form is a new row."""


def conversation(record: Any) -> Conversation:
    """A record as a conversation with at least one answer.

    Raises:
        ValueError: when it has none of the forms.
    """
    if not isinstance(record, Mapping):
        raise ValueError(f"expected an object, came {type(record).__name__}")
    for needed, make in FORMS.items():
        if all(record.get(name) is not None for name in needed):
            turns = make(record)
            if not any(turn.role == "assistant" for turn in turns):
                raise ValueError("no message of the assistant: there is nothing to learn")
            return turns
    raise ValueError(f"none of the known forms; it has {', '.join(map(str, record)) or 'no fields'}")


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        raise ValueError(f"{name}: expected text, came {type(value).__name__}")
    return value


def load(source: str | Path, part: str = "train", limit: int | None = None) -> list[Conversation]:
    """All conversations of a file, or of a folder (one of `outlast data fetch` has a folder for each part).

    Args:
        source: JSON lines, Parquet, or a folder of either.
        part: subfolder to read where there is one.
        limit: conversations at most.

    Raises:
        BadInput: with file and line, for the first record that is not understood.
    """
    files = files_of(Path(source), part)
    found = list(islice((turns for file in files for turns in _read(file)), limit))
    if not found:
        raise BadInput(f"{source}: no records", hint=_HINT)
    return found


def files_of(source: Path, part: str) -> list[Path]:
    """Files that hold a part of a data set, in the order of their names."""
    if source.is_file():
        return [source]
    folder = source / part if (source / part).is_dir() else source
    files = sorted(path for path in folder.glob("*") if path.suffix in _READERS and path.is_file())
    if not files:
        what = "no .jsonl, .json or .parquet file in it" if source.is_dir() else "no such file or folder"
        raise BadInput(f"{source}: {what}", hint="--data FILE_OR_FOLDER, or --data offline to try the recipe")
    return files


def _read(path: Path) -> Iterator[Conversation]:
    reader = _READERS.get(path.suffix)
    if reader is None:
        raise BadInput(f"{path}: expected .jsonl, .json or .parquet", hint=_HINT)
    for place, record in reader(path):
        try:
            yield conversation(record)
        except ValueError as error:
            raise BadInput(f"{path}, {place}: {error}", hint=_HINT) from None


def _json(path: Path) -> Iterator[tuple[str, Any]]:
    """One list of records, as many data sets come; else lines."""
    with path.open("rb") as file:
        is_list = file.read(1024).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")
    if not is_list:
        yield from _json_lines(path)
        return
    try:
        records = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: not JSON ({error})", hint=_HINT) from None
    yield from ((f"record {number}", record) for number, record in enumerate(records, 1))


def _json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig") as file:  # with or without the mark that Windows puts before a text
            for number, line in enumerate(file, 1):
                if line.strip():
                    try:
                        yield f"line {number}", json.loads(line)
                    except (ValueError, RecursionError) as error:
                        why = error.msg if isinstance(error, json.JSONDecodeError) else error
                        raise BadInput(f"{path}, line {number}: not JSON ({why})", hint=_HINT) from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 ({error.reason} at byte {error.start})", hint=_HINT) from None


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if any(name in form for form in FORMS) or name == "input"]
            for batch in file.iter_batches(batch_size=1000, columns=names):
                for record in batch.to_pylist():
                    number += 1
                    yield f"row {number}", record
    except pyarrow.ArrowException as error:
        raise BadInput(f"{path} cannot be read as Parquet: {error}", hint="fetch or write it again") from None


_READERS: dict[str, Callable[[Path], Iterator[tuple[str, Any]]]] = {
    ".jsonl": _json_lines,
    ".json": _json,
    ".parquet": _parquet,
}


def held_out(conversations: Sequence[Conversation], share: float) -> tuple[list[Conversation], list[Conversation]]:
    """Train and validation, by a hash of what is asked first: no prompt is in both, and growth moves none.

    Args:
        conversations: all of them.
        share: of the prompts, 0 to 1, that is held out.
    """
    train: list[Conversation] = []
    validation: list[Conversation] = []
    for turns in conversations:
        asked = next((turn.content for turn in turns if turn.role == "user"), turns[0].content)
        digest = hashlib.blake2b(asked.encode(errors="surrogatepass"), digest_size=8).digest()
        (validation if int.from_bytes(digest) < share * 2**64 else train).append(turns)
    return train, validation
