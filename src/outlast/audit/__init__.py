"""LoRA adapters: how much of the rank is used, which smaller one would do, and the best adapter of a smaller rank.

`audit_lora_peft_dir` reads what PEFT writes, or a checkpoint that Outlast sealed, without torch; `truncate` writes one.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from outlast.errors import BadInput

if TYPE_CHECKING:
    from outlast.audit.report import Audit, Layer, audit_lora_peft_dir
    from outlast.audit.suggest import Suggestion
    from outlast.audit.truncation import truncate

_HOMES = {
    "Audit": "outlast.audit.report",
    "Layer": "outlast.audit.report",
    "Suggestion": "outlast.audit.suggest",
    "audit_lora_peft_dir": "outlast.audit.report",
    "truncate": "outlast.audit.truncation",
}

__all__ = ["Audit", "Layer", "Suggestion", "audit_lora_peft_dir", "truncate"]


def __getattr__(name: str) -> Any:
    """Each name loads its module when it is first used: numpy is an extra, and the core starts without it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'outlast.audit' has no attribute {name!r}")
    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "numpy":
            raise
        raise BadInput(
            "outlast audit needs numpy, which is not installed", hint="pip install '.[audit]', in a clone of Outlast"
        ) from None
