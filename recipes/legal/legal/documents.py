"""Documents with labelled sentences, from a folder or file of JSON, JSON lines or CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from outlast.errors import BadInput

FORMS = (
    'JSON:       {"id": "case-1", "sentences": [{"text": "...", "label": "facts"}, ...]}, or a list of such\n'
    "            documents; texts and labels may be two lists instead: sentences and labels\n"
    "JSON lines: such a document a line, or a sentence a line: document, text, label\n"
    "CSV:        a sentence a row, with a header: document, text, label (document: the file's name if it is missing)"
)
"""What is read, for people."""

_TEXT = ("text", "sentence")
_LABEL = ("label", "role", "rhetorical_role")
_DOCUMENT = ("document", "id", "doc_id", "document_id", "file")
_CSV_FIELD_BYTES = 1 << 24
_ENCODING = "utf-8-sig"
"""UTF-8, also with the mark that Windows puts before it."""


@dataclass(frozen=True, slots=True)
class Sentence:
    """What is classified."""

    text: str
    """As it stands in the document."""
    label: str
    """Its class."""


@dataclass(frozen=True, slots=True)
class Document:
    """Sentences that belong together: never split across training and validation."""

    name: str
    """Its id, by which it is told from others."""
    sentences: tuple[Sentence, ...]
    """In the order of the document; at least one."""


@dataclass(frozen=True, slots=True)
class _Found:
    """One labelled sentence, and where it stood."""

    document: str
    text: Any
    label: Any
    where: str


def read(place: str | Path) -> list[Document]:
    """All documents of a file, or of every file below a folder, by name.

    Args:
        place: a .json, .jsonl or .csv file, or a folder with such files.

    Returns:
        The documents, ordered by name; equal input gives an equal list, whatever the file system's order.

    Raises:
        BadInput: for what cannot be read, a sentence without text or label, a document without sentences, or one name
            in two files.
    """
    place = Path(place)
    if not place.exists():
        raise BadInput(f"there is no {place}", hint=f"--data takes a folder or a file of documents:\n{FORMS}")
    files = sorted(p for p in place.rglob("*") if p.suffix.lower() in _READERS and p.is_file())
    if place.is_file():
        files = [place] if place.suffix.lower() in _READERS else []
    if not files:
        raise BadInput(f"no .json, .jsonl or .csv file in {place}", hint=f"what is read:\n{FORMS}")
    home: dict[str, Path] = {}
    documents: list[Document] = []
    for file in files:
        default = file.relative_to(place).with_suffix("").as_posix() if place.is_dir() else file.stem
        for document in _of_file(file, default):
            if home.setdefault(document.name, file) != file:
                raise BadInput(
                    f"{home[document.name]} and {file} both hold a document {document.name!r}",
                    hint="give each document an id of its own: by it documents are held out whole",
                )
            documents.append(document)
    return sorted(documents, key=lambda document: document.name)


def labels_of(documents: Sequence[Document]) -> list[str]:
    """The classes, sorted."""
    return sorted({sentence.label for document in documents for sentence in document.sentences})


def _of_file(file: Path, default: str) -> list[Document]:
    grouped: dict[str, list[Sentence]] = {}
    try:
        for found in _READERS[file.suffix.lower()](file, default):
            grouped.setdefault(found.document, []).append(_sentence(found))
    except UnicodeDecodeError as error:
        raise BadInput(f"{file} is not UTF-8 text: {error.reason} at byte {error.start}", hint="convert it") from None
    if not grouped:
        raise _empty(str(file))
    return [Document(name, tuple(sentences)) for name, sentences in grouped.items()]


def _empty(where: str) -> BadInput:
    return BadInput(f"{where}: a document without sentences", hint="fill it in, or take it out of the folder")


def _sentence(found: _Found) -> Sentence:
    for what, value, names in (("text", found.text, _TEXT), ("label", found.label, _LABEL)):
        if isinstance(value, (int, float)) and not isinstance(value, bool) and what == "label":
            continue
        if not isinstance(value, str) or not value.strip():
            came = "nothing" if value is None else repr(value)
            raise BadInput(
                f"{found.where}: expected a {what}, came {came}",
                hint=f"every sentence needs one, under {' or '.join(map(repr, names))}",
            )
    return Sentence(" ".join(found.text.split()), str(found.label).strip())


def _first(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)


# One reader for each form


def _json(file: Path, default: str) -> Iterator[_Found]:
    value = _parsed(file.read_text(encoding=_ENCODING), str(file))
    many = value if isinstance(value, list) else [value]
    for number, one in enumerate(many, 1):
        where = f"{file}, document {number}" if len(many) > 1 else str(file)
        yield from _document(one, default if len(many) == 1 else f"{default}/{number}", where)


def _json_lines(file: Path, default: str) -> Iterator[_Found]:
    with file.open(encoding=_ENCODING) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{file}, line {number}"
            value = _parsed(line, where)
            if isinstance(value, dict) and "sentences" in value:
                yield from _document(value, f"{default}/{number}", where)
            elif isinstance(value, dict):
                name = _first(value, _DOCUMENT)
                yield _Found(default if name is None else str(name), _first(value, _TEXT), _first(value, _LABEL), where)
            else:
                raise BadInput(f"{where}: expected an object, came {_kind(value)}", hint=f"what is read:\n{FORMS}")


def _document(value: Any, default: str, where: str) -> Iterator[_Found]:
    if not isinstance(value, dict) or not isinstance(value.get("sentences"), list):
        raise BadInput(
            f"{where}: expected a document with a list of sentences, came {_kind(value)}",
            hint=f"what is read:\n{FORMS}",
        )
    given = _first(value, _DOCUMENT)
    name = default if given is None else str(given)
    sentences, labels = value["sentences"], value.get("labels")
    if not sentences:
        raise _empty(f"{where} ({name})")
    if labels is not None and (not isinstance(labels, list) or len(labels) != len(sentences)):
        count = len(labels) if isinstance(labels, list) else _kind(labels)
        raise BadInput(f"{where}: {len(sentences)} sentences, labels: {count}", hint="one label for each sentence")
    for number, sentence in enumerate(sentences, 1):
        here = f"{where}, sentence {number}"
        if isinstance(sentence, dict):
            yield _Found(name, _first(sentence, _TEXT), _first(sentence, _LABEL), here)
        else:
            yield _Found(name, sentence, labels[number - 1] if labels else None, here)


def _csv(file: Path, default: str) -> Iterator[_Found]:
    csv.field_size_limit(_CSV_FIELD_BYTES)
    with file.open(encoding=_ENCODING, newline="") as lines:
        rows = csv.DictReader(lines)
        columns = [name or "" for name in rows.fieldnames or ()]
        for what, names in (("text", _TEXT), ("label", _LABEL)):
            if not set(names) & set(columns):
                raise BadInput(
                    f"{file}: no column for the {what}; its columns are {', '.join(columns) or 'none'}",
                    hint=f"name it {' or '.join(names)} in the first row",
                )
        try:
            for row in rows:
                name = _first(row, _DOCUMENT)
                where = f"{file}, line {rows.line_num}"
                if None in row:  # a comma in a sentence: what follows it would be taken for the label
                    raise BadInput(
                        f"{where}: {len(columns) + len(row[None])} fields, the header has {len(columns)}",
                        hint='a sentence with a comma in it has to stand in quotes: "..."',
                    )
                yield _Found(name or default, _first(row, _TEXT), _first(row, _LABEL), where)
        except csv.Error as error:
            raise BadInput(f"{file}, line {rows.line_num}: {error}", hint="is it CSV, with quotes closed?") from None


_READERS = {".json": _json, ".jsonl": _json_lines, ".ndjson": _json_lines, ".csv": _csv}


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where} is not JSON: {error}", hint="is the file whole?") from None


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return f"an object with the keys {', '.join(map(str, value)) or 'none'}"
    return "nothing" if value is None else f"a {type(value).__name__}"
