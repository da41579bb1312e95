"""Lightning: what ModelCheckpoint saves is admitted, staged, sealed; resume takes sealed and verified ones only.

Under `outlast run` every Trainer is guarded. In a script of your own: ``Trainer(plugins=[OutlastCheckpointIO()])``.

How a save goes: ModelCheckpoint says which file it is about to save; `TorchCheckpointIO.save_checkpoint` writes it with
torch.save into a reservation (not through RAM, TMPDIR and a copy), seals it and gives it its name. What Lightning no
longer wants goes through the vault, aloud; what the ladder dropped is struck from ``best_k_models``. The best one is
never dropped.

A save to any other path (``trainer.save_checkpoint("final.ckpt")``, Fabric) is the user's own: it is written beside and
renamed, and never deleted. Remote paths and sharded folders are Lightning's. A checkpoint is one file, so it has no
light form: a volume must hold two of them. Lightning does not save the random generators, so a resumed run with dropout
or shuffling goes on as Lightning would, from whole state, but not on the same bits.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

from outlast.checkpoints import Keep, Policy
from outlast.integrations.lightning import books, resuming, saving

_NAMESPACES = (("lightning.fabric", "lightning.pytorch"), ("lightning_fabric", "pytorch_lightning"))


def OutlastCheckpointIO(keep: Keep | None = None, *, keep_exact: bool = False) -> Any:  # noqa: N802 (reads as a class)
    """A CheckpointIO plugin that guards the Trainer it is given to.

    Args:
        keep: retention; None follows ModelCheckpoint's ``save_top_k`` and `outlast run --keep`.
        keep_exact: for symmetry with the other integrations; a Lightning checkpoint is always whole.
    """
    policy = Policy.from_environment()
    plugin = _plugin_class()()
    plugin.policy = policy.with_choice(keep, keep_exact=keep_exact)
    plugin.arguments = (keep, keep_exact)
    return plugin


def _again(keep: Keep | None, keep_exact: bool) -> Any:
    return OutlastCheckpointIO(keep, keep_exact=keep_exact)


@functools.cache
def _plugin_class() -> type:
    bases = tuple(import_module(f"{fabric}.plugins.io.torch_io").TorchCheckpointIO for fabric in _installed())
    # Spawned workers get the plugin by pickle, where a class made at run time has no name to be found by.
    return type("OutlastCheckpointIO", bases, {"__reduce__": lambda self: (_again, self.arguments)})


def _installed() -> list[str]:
    """Guard each copy of Lightning that this process uses; the one that can be imported when none is in use yet."""
    copies = [names for names in _NAMESPACES if names[1] in sys.modules]
    copies = copies or [next((names for names in _NAMESPACES if _can_import(names[1])), _NAMESPACES[0])]
    for fabric, pytorch in copies:
        install_io(import_module(f"{fabric}.plugins.io.torch_io"))
        install_callback(import_module(f"{pytorch}.callbacks.model_checkpoint"))
        install_resume(import_module(f"{pytorch}.trainer.connectors.checkpoint_connector"))
    return [fabric for fabric, _ in copies]


def _can_import(name: str) -> bool:
    try:
        import_module(name)
    except ImportError:
        return False
    return True


def install_io(module: ModuleType) -> None:
    """Guard TorchCheckpointIO; once.

    Args:
        module: ``lightning.fabric.plugins.io.torch_io`` or ``lightning_fabric.plugins.io.torch_io``.
    """
    _wrap(
        module.TorchCheckpointIO,
        {"save_checkpoint": saving.save_checkpoint, "remove_checkpoint": saving.remove_checkpoint},
    )


def install_callback(module: ModuleType) -> None:
    """Guard ModelCheckpoint; once.

    Args:
        module: ``lightning.pytorch.callbacks.model_checkpoint`` or ``pytorch_lightning.callbacks.model_checkpoint``.
    """
    _wrap(
        module.ModelCheckpoint,
        {
            "_save_checkpoint": saving.announced,
            "load_state_dict": books.without_phantoms,
            "_should_remove_checkpoint": books.lets_go,
        },
    )


def install_resume(module: ModuleType) -> None:
    """Let a fit resume from sealed and verified checkpoints only; once.

    Args:
        module: ``...trainer.connectors.checkpoint_connector`` of either copy of Lightning.
    """
    _wrap(
        module._CheckpointConnector,
        {"_select_ckpt_path": resuming.select_ckpt_path, "resume_start": resuming.resume_start},
    )


def _wrap(owner: type, wrappers: Mapping[str, Callable[[Any], Any]]) -> None:
    if "_outlast" in vars(owner):
        return
    owner._outlast = True  # type: ignore[attr-defined]
    for name, wrapper in wrappers.items():
        if hasattr(owner, name):
            setattr(owner, name, wrapper(getattr(owner, name)))
