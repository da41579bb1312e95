"""torch.distributed.checkpoint: `save` to a local folder is admitted, staged, sealed, and tried again on a full volume.

Its writers are not replaced: room is reserved, given back, and then they write, so another process can still take it;
then the partial is removed, the ladder goes on, and all ranks write again. Each save goes to a staged sibling that gets
the checkpoint's name when it is whole and sealed, so that saving to an id that exists never mixes two steps.

`async_save` in its default form writes through `save` in a thread of its own, and is guarded there: with one process.
With several, our agreement among the ranks would meet the training's own collectives, so it is left alone; so are
saves with a process group, without collectives, to other storage, or into a folder that holds other things. Each of
these is in the journal. Loading is the script's own affair: it names what it loads.
"""

from __future__ import annotations

import functools
import os
import re
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from outlast.caches import Reclaim
from outlast.checkpoints import Checkpoint, Draft, Needs, Policy, Saver, Stage, Vault, is_full, is_hidden_full
from outlast.errors import SaveFailed
from outlast.host import room
from outlast.integrations import staged
from outlast.integrations.ranks import follow, lead
from outlast.integrations.torch_save import tensor_bytes
from outlast.journal import RUN_VARIABLE
from outlast.train.ranks import Ranks

_SAVERS: dict[Path, Saver] = {}
_METADATA = ".metadata"
_SLACK = 256 * 1024


def install(module: ModuleType) -> None:
    """Guard `save`; once.

    Args:
        module: ``torch.distributed.checkpoint.state_dict_saver``.
    """
    original = module.save
    if getattr(original, "_outlast", False):
        return

    @functools.wraps(original)
    def save(state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        target = _target(args, kwargs) if RUN_VARIABLE in os.environ else None
        if target is None:
            return original(state_dict, *args, **kwargs)
        return _guarded(module, original, target, state_dict, kwargs)

    save._outlast = True  # type: ignore[attr-defined]
    module.save = save  # type: ignore[attr-defined]
    package = sys.modules.get("torch.distributed.checkpoint")
    if package is not None and getattr(package, "save", None) is original:
        package.save = save  # type: ignore[attr-defined]


def _target(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Path | None:
    """The local folder that a save goes to; None where the save is left to DCP."""
    writer = kwargs.get("storage_writer")
    if args or not (writer is None or _is_plain(writer)):
        return None
    place = kwargs.get("checkpoint_id") or getattr(writer, "path", None)
    if place is None or "://" in os.fspath(place):
        return None
    path = Path(place).absolute()
    # In a stage already: this is part of a save that is guarded as a whole (Accelerate's FSDP).
    if staged.stage_of(path / _METADATA) is not None:
        return None
    return None if _left_alone(path, kwargs) else path


def _is_plain(writer: Any) -> bool:
    kind = type(writer)
    return kind.__name__ == "FileSystemWriter" and kind.__module__ == "torch.distributed.checkpoint.filesystem"


def _left_alone(path: Path, kwargs: Mapping[str, Any]) -> bool:
    why = None
    if kwargs.get("process_group") is not None:
        why = "it is saved by a process group of its own"
    elif kwargs.get("use_collectives") is False:
        why = "its ranks do not agree with each other"
    elif threading.current_thread() is not threading.main_thread() and _ranks(kwargs).world > 1:
        why = "it is saved by a thread, of several ranks"
    elif not _may_replace(path):
        why = "its folder holds other things than a checkpoint"
    if why:
        _saver_at(path.parent).vault.journal.write("left_to_framework", path=str(path), why=why)
    return why is not None


def _may_replace(path: Path) -> bool:
    """True when nothing is there, or a checkpoint and nothing else."""
    if not os.path.lexists(path):
        return True
    known = re.compile(r".*\.distcp|\.metadata(\.tmp)?|outlast\.json")
    return path.is_dir() and not path.is_symlink() and all(known.fullmatch(name) for name in os.listdir(path))


def _ranks(kwargs: Mapping[str, Any]) -> Ranks:
    ranks = Ranks()
    if kwargs.get("no_dist"):
        ranks.rank, ranks.world = 0, 1
    return ranks


def _saver_at(root: Path) -> Saver:
    if root not in _SAVERS:
        vault, policy = Vault(root, is_protected=_protection), Policy.from_environment()
        _SAVERS[root] = Saver(vault, policy, Reclaim(policy.reclaim, vault.journal))
    return _SAVERS[root]


def _protection(name: str) -> str | None:
    return None if re.search(r"\d", name) else "the script gave it a name of its own"


def _guarded(
    module: ModuleType, original: Callable[..., Any], target: Path, state_dict: Any, kwargs: Mapping[str, Any]
) -> Any:
    """One save: all ranks write into the stage that rank 0 made room for."""
    ranks = _ranks(kwargs)
    # Taken once, not at each try: state_dict() of a Stateful may gather among the ranks.
    state = module._stateful_to_state_dict(state_dict)
    needs = _needs(ranks, state)
    writer = kwargs.get("storage_writer")
    metadata: list[Any] = []

    def write_part(stage: Stage) -> None:
        if stage.reservation:
            stage.reservation.release()
            # The race is open from here on; the room was there a moment ago.
        try:
            metadata[:] = [original(state, **{**kwargs, "checkpoint_id": str(stage.path)})]
        except _checkpoint_exception() as error:
            _raise_plain(error, stage)
        finally:
            if writer is not None:
                writer.reset(str(target))

    if ranks.is_first:
        lead(ranks, lambda write: _save(target, needs, write), write_part)
    else:
        follow(ranks, write_part)
    return metadata[0]


def _checkpoint_exception() -> type[BaseException]:
    """DCP's own exception, which is no Exception."""
    from torch.distributed.checkpoint.api import CheckpointException

    found: type[BaseException] = CheckpointException
    return found


def _raise_plain(error: BaseException, stage: Stage) -> None:
    """DCP packs what every rank met into one BaseException, mostly as text."""
    failures = [failure for failure, _ in getattr(error, "failures", {}).values()]
    # An error from another rank comes without what it was raised from: then the volume is the witness.
    hides = any(map(is_hidden_full, failures)) and room(stage.path).lacks(_SLACK)
    if hides or any(map(is_full, [error, *failures])):
        stage.error = stage.error or OSError(28, "a rank met a full volume")
        raise stage.error from error
    raise SaveFailed(f"torch.distributed.checkpoint failed: {error}", hint="see the rank that it names") from error


def _save(target: Path, needs: Needs, write_everywhere: Callable[[Stage], None]) -> Checkpoint:
    saver = _saver_at(target.parent)
    saver.vault.recover(settles=False)

    def write(stage: Stage) -> Draft:
        saver.vault.journal.write("reservation_released", name=target.name, why="DCP's writers cannot use it")
        write_everywhere(stage)
        if not (stage.path / _METADATA).is_file():
            raise SaveFailed("DCP wrote no .metadata", hint="the volume may be failing")
        return Draft("torch.distributed.checkpoint", {"full": ()})

    sealed = saver.save(target.name, _step(saver, target), needs, write)
    try:
        saver.settle(sealed)
    except OSError as error:  # the checkpoint is sealed: a failure to tidy up must not end the training
        saver.vault.journal.write("settle_failed", name=sealed.name, reason=str(error))
    return sealed


def _step(saver: Saver, target: Path) -> int:
    """The number in the name; where there is none, one more than that of the training's last save."""
    digits = re.findall(r"\d+", target.name)
    mine = [c.step for c in saver.vault.checkpoints() if c.seal.lineage == saver.lineage]
    return int(digits[-1]) if digits else max(mine, default=0) + 1


def _needs(ranks: Ranks, state: Mapping[str, Any]) -> Needs:
    """Bytes of all ranks' parts: shards add up, what every rank holds is written once."""
    shards: list[Any] = []
    copies: list[Any] = []
    stack: list[Any] = list(state.values())
    while stack:
        item = stack.pop()
        if isinstance(item, Mapping):
            stack.extend(item.values())
        elif isinstance(item, list | tuple):
            stack.extend(item)
        elif hasattr(item, "to_local"):
            shards.append(item.to_local())
        else:
            copies.append(item)
    parts = ranks.gather((tensor_bytes(shards), tensor_bytes(copies)))
    total = sum(shard for shard, _ in parts) + max(copy for _, copy in parts)
    return Needs({"full": (total,)}, 64 * 1024 * ranks.world)
