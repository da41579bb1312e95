"""How files are read: one module a kind of format, all with the same few methods (`interface.Reader`)."""

from __future__ import annotations

from importlib import import_module

from outlast.data.formats import FORMATS
from outlast.data.readers.interface import Look, Reader, Rows, ShorterFile
from outlast.data.sources import Source

__all__ = ["Look", "Reader", "Rows", "ShorterFile", "open_reader"]

_HOMES = {
    "parquet": ("outlast.data.readers.parquet", "ParquetReader"),
    "arrow": ("outlast.data.readers.arrow", "ArrowReader"),
    "jsonl": ("outlast.data.readers.lines", "LinesReader"),
    "csv": ("outlast.data.readers.lines", "LinesReader"),
    "text": ("outlast.data.readers.lines", "LinesReader"),
}


def open_reader(source: Source, form: str) -> Reader:
    """The reader of a format.

    Args:
        source: whose files it reads.
        form: a key of `outlast.data.formats.FORMATS`.
    """
    module, name = _HOMES[FORMATS[form].kind]
    made: Reader = getattr(import_module(module), name)(source)
    return made
