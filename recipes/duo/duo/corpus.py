"""Text that is on every machine: the sources of this Python's own library, and its language reference."""

from __future__ import annotations

import hashlib
import os
import secrets
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from outlast import durable

LEAST_BYTES, MOST_BYTES = 500, 60_000
"""Shorter files say nothing; longer ones are tables (encodings, unicode names) more than text."""
_SKIPPED = ("test", "tests", "idle_test", "site-packages", "dist-packages", "encodings", "__pycache__", "lib2to3")


def write(folder: Path, column: str = "text") -> Path:
    """The corpus as one Parquet file below a folder, made once for each Python; its path.

    Args:
        folder: where to.
        column: name of the one column.

    Raises:
        OSError: when it cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    documents = list(library())
    digest = hashlib.sha256("\0".join(documents).encode()).hexdigest()[:12]
    path = folder / f"python-library-{digest}-{column}.parquet"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{path.name}.{secrets.token_hex(4)}.part"
    try:
        pq.write_table(pa.table({column: documents}), part, compression="zstd", row_group_size=100)
        durable.sync_file(part)
        durable.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def library(stdlib: Path | None = None) -> Iterator[str]:
    """Documents in an order that mixes them: by a digest of their names, so that any first N are of all kinds.

    Args:
        stdlib: the library's folder; None is this interpreter's.
    """
    folder = stdlib or Path(sysconfig.get_paths()["stdlib"])
    found = [(f"doc/{name}", text) for name, text in _topics().items()]
    for name in _sources(folder):
        try:
            found.append((name, (folder / name).read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError):
            continue  # a file in another encoding, or one that this user may not read, is no loss to a demo
    found.sort(key=lambda pair: hashlib.sha256(pair[0].encode()).digest())
    for _, text in found:
        if LEAST_BYTES <= len(text.encode()) <= MOST_BYTES:
            yield text


def _sources(folder: Path) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _SKIPPED)
        for name in sorted(files):
            if name.endswith(".py"):
                yield os.path.relpath(os.path.join(place, name), folder)


def _topics() -> dict[str, str]:
    """The language reference as `help()` shows it."""
    from pydoc_data.topics import topics

    return dict(topics)
