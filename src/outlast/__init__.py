"""Outlast keeps a model-training run alive, and its results safe, when the machine runs out of disk, memory or time.

Importing this imports neither torch nor any other room: the names below load when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from outlast.version import __version__

if TYPE_CHECKING:
    from outlast.caches import setup
    from outlast.checkpoints import Keep, Policy
    from outlast.errors import OutlastError
    from outlast.host.check_report import check_memory
    from outlast.train import Run, Stopped

_HOMES = {
    "Keep": "outlast.checkpoints",
    "OutlastError": "outlast.errors",
    "Policy": "outlast.checkpoints",
    "Run": "outlast.train",
    "Stopped": "outlast.train",
    "check_memory": "outlast.host.check_report",
    "setup": "outlast.caches",
}

__all__ = ["Keep", "OutlastError", "Policy", "Run", "Stopped", "__version__", "check_memory", "setup"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'outlast' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
