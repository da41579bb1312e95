"""Subsets of any data set in bounded disk and RAM: planned from footers, fetched exactly, read with an exact position.

`plan` says what a subset costs before a byte of it travels; `fetch` makes it, as Parquet shards that everything reads;
`open` reads them in an order that is part of a checkpoint; `blocks` makes token blocks of their text.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from outlast.data.fetching import Fetched, Progress, fetch, fetch_telling
    from outlast.data.loader import Loader
    from outlast.data.manifest import Manifest
    from outlast.data.packed import Blocks, blocks
    from outlast.data.planning import Plan, plan
    from outlast.data.rows import Rows, open
    from outlast.data.stream import Stream

_HOMES = {
    "Blocks": "outlast.data.packed",
    "Fetched": "outlast.data.fetching",
    "Loader": "outlast.data.loader",
    "Manifest": "outlast.data.manifest",
    "Plan": "outlast.data.planning",
    "Progress": "outlast.data.fetching",
    "Rows": "outlast.data.rows",
    "Stream": "outlast.data.stream",
    "blocks": "outlast.data.packed",
    "fetch": "outlast.data.fetching",
    "fetch_telling": "outlast.data.fetching",
    "open": "outlast.data.rows",
    "plan": "outlast.data.planning",
}

__all__ = [
    "Blocks", "Fetched", "Loader", "Manifest", "Plan", "Progress", "Rows", "Stream",
    "blocks", "fetch", "fetch_telling", "open", "plan",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Load a name when it is first used: pyarrow and torch take longer to import than the whole of the core."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'outlast.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
