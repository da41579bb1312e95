"""Real legal text that is on every Debian machine: the licences of /usr/share/common-licenses, as labelled documents.

A licence is one document, so nothing of it could be held out whole. Each is therefore cut into contiguous parts, and
parts are the documents: whole parts are held out, and the class of a sentence is the licence that it stands in.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from outlast import durable
from outlast.errors import BadInput

FOLDER = Path("/usr/share/common-licenses")
LICENCES = ("Apache-2.0", "Artistic", "CC0-1.0", "GFDL-1.3", "GPL-3", "LGPL-2.1", "MPL-2.0")
"""One version of each licence: two versions share most sentences word for word, and those would be in both halves."""
PART_SENTENCES = 4
"""Sentences of a part."""
_LEAST_WORDS = 4
_END = re.compile(r"(?<=[.;:!?])\s+(?=[\"'(]?[A-Z0-9(])")


def sentences_of(text: str) -> list[str]:
    """A licence's sentences: paragraphs, cut where a full stop, semicolon or colon is followed by a new beginning."""
    paragraphs = (" ".join(block.split()) for block in re.split(r"\n\s*\n", text))
    cut = (one.strip(" *-#=_") for paragraph in paragraphs for one in _END.split(paragraph))
    return [one for one in cut if len(re.findall(r"[A-Za-z]{2,}", one)) >= _LEAST_WORDS]


def write(folder: Path, *, licences: tuple[str, ...] = LICENCES, source: Path = FOLDER) -> int:
    """Write each licence's parts as JSON documents; a sentence that stood before, in any licence, is left out.

    Args:
        folder: where to, one file for each licence.
        licences: names of files of ``source``.
        source: the folder with licence texts.

    Returns:
        How many sentences were written.

    Raises:
        BadInput: where the licences are not there.
    """
    missing = [name for name in licences if not (source / name).is_file()]
    if missing:
        raise BadInput(
            f"no {', '.join(missing)} in {source}",
            hint="Debian and Ubuntu have them (package base-files); elsewhere give documents of your own with --data",
        )
    folder.mkdir(parents=True, exist_ok=True)
    seen: set[str] = set()
    for name in licences:
        fresh = []
        for sentence in sentences_of((source / name).read_text(encoding="utf-8")):
            key = " ".join(re.findall(r"[a-z]+", sentence.lower()))
            if key not in seen:
                fresh.append(sentence)
            seen.add(key)
        parts = [fresh[start : start + PART_SENTENCES] for start in range(0, len(fresh), PART_SENTENCES)]
        documents = [
            {"id": f"{name}/part-{number:02}", "sentences": [{"text": text, "label": name} for text in part]}
            for number, part in enumerate(parts)
        ]
        durable.write_bytes(folder / f"{name}.json", json.dumps(documents, indent=1).encode())
    return len(seen)
