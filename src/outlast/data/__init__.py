"""Subsets of any data set in bounded disk and RAM: planned from footers, fetched exactly, read with an exact position.

`plan` says what a subset costs before a byte of it travels; `fetch` makes it, as Parquet shards that everything reads;
`open` reads them in an order that is part of a checkpoint; `blocks` makes token blocks of their text.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from outlast.data.loader import Loader
    from outlast.data.packed import Blocks, blocks
    from outlast.data.rows import Rows, open
    from outlast.data.stream import Stream

_HOMES = {
    "Blocks": "outlast.data.packed",
    "Loader": "outlast.data.loader",
    "Rows": "outlast.data.rows",
    "Stream": "outlast.data.stream",
    "blocks": "outlast.data.packed",
    "open": "outlast.data.rows",
}

__all__ = ["Blocks", "Loader", "Rows", "Stream", "blocks", "open"]


def __getattr__(name: str) -> Any:
    """Each name loads its module when it is first used: some need torch, some pyarrow."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'outlast.data' has no attribute {name!r}")
