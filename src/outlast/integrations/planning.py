"""`outlast plan -- COMMAND`: what a script would train, told where its training would begin; and then it leaves.

Loaded by the injected hooks in the script's own process. Nothing is trained, and no checkpoint is written.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from outlast.checkpoints import codec

VARIABLE = "OUTLAST_PLAN"
"""Environment variable: the file that the answer goes to."""


def install(module: ModuleType) -> None:
    """Leave at the first optimizer step: this script trains in a loop of its own.

    Args:
        module: ``torch.optim.optimizer``.
    """
    module.register_optimizer_step_pre_hook(_leave_the_loop)


def _leave_the_loop(optimizer: Any, args: Any, kwargs: Any) -> None:
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    answer = {"optimizer": type(optimizer).__name__, **counted(trained), "framework": "torch.save"}
    leave({**answer, "weights_bytes": answer["trained_bytes"]})


def counted(parameters: Iterable[Any]) -> dict[str, int]:
    """What is trained: numbers, bytes, tensors, and what its moments take in their light form."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return {
        "trained": sum(parameter.numel() for parameter in trained),
        "trained_bytes": sum(parameter.numel() * parameter.element_size() for parameter in trained),
        "tensors": len(trained),
        "sidecar_bytes": codec.sidecar_bytes_of(tuple(parameter.shape) for parameter in trained),
    }


def leave(answer: Mapping[str, Any]) -> None:
    """Write the answer, and end this process at once.

    At once: a script's ``finally`` or ``atexit`` would save a model that was never trained.
    """
    if os.environ.get("RANK", "0") == "0" and os.environ.get("LOCAL_RANK", "0") == "0":
        target = Path(os.environ[VARIABLE])
        part = target.with_name(f"{target.name}.{os.getpid()}")
        part.write_text(json.dumps({name: value for name, value in answer.items() if value is not None}))
        part.replace(target)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(0)
