"""Subsets of any data set in bounded disk and RAM: planned from footers, fetched exactly, read with an exact position.

`plan` says what a subset costs before a byte of it travels; `fetch` makes it, as Parquet shards that everything reads;
`open` reads them in an order that is part of a checkpoint; `blocks` makes token blocks of their text.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from outlast.data.epochs.loader import Loader
    from outlast.data.epochs.rows import Rows, open
    from outlast.data.epochs.stream import Stream
    from outlast.data.fetching import Fetched, Progress, fetch, fetch_telling
    from outlast.data.manifest import Manifest
    from outlast.data.planning import Plan, plan
    from outlast.data.text.packed import Blocks, blocks

_HOMES = {
    "Blocks": "outlast.data.text.packed",
    "Fetched": "outlast.data.fetching",
    "Loader": "outlast.data.epochs.loader",
    "Manifest": "outlast.data.manifest",
    "Plan": "outlast.data.planning",
    "Progress": "outlast.data.fetching",
    "Rows": "outlast.data.epochs.rows",
    "Stream": "outlast.data.epochs.stream",
    "blocks": "outlast.data.text.packed",
    "fetch": "outlast.data.fetching",
    "fetch_telling": "outlast.data.fetching",
    "open": "outlast.data.epochs.rows",
    "plan": "outlast.data.planning",
}

__all__ = [
    "Blocks",
    "Fetched",
    "Loader",
    "Manifest",
    "Plan",
    "Progress",
    "Rows",
    "Stream",
    "blocks",
    "fetch",
    "fetch_telling",
    "open",
    "plan",
]


def __getattr__(name: str) -> Any:
    """Load a name when it is first used: pyarrow and torch take longer to import than the whole of the core."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'outlast.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
