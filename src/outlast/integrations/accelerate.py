"""Accelerate: `save_state` is admitted, staged, sealed; `load_state` takes sealed and verified states only.

Under `outlast run` every Accelerator is guarded. In a script of your own: ``guard(accelerator)``.

How a save goes: Accelerate writes everything into the stage, with its own naming and its ``total_limit`` set aside for
the call (it deletes before it saves); a small sidecar is added, the seal is written, the folder gets its name; then
retention honours ``total_limit``. A fixed ``output_dir`` that is written again and again keeps its old state until the
new one is sealed. A folder that holds other things beside a state is not replaced as a whole: what is small is carried
along, else Accelerate writes into it as it would without Outlast, one file after the other.

A script that never calls `load_state` cannot be resumed from outside: where its model and its data position go is only
known to the script. It starts anew then, as it would without Outlast.
"""

from __future__ import annotations

import fnmatch
import functools
import logging
import os
import re
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from outlast import durable
from outlast.caches import Reclaim
from outlast.checkpoints import Checkpoint, Draft, Keep, Needs, Policy, Saver, Stage, Vault, codec, set_beside
from outlast.errors import BadInput
from outlast.integrations import staged
from outlast.integrations.ranks import follow, lead
from outlast.integrations.torch_save import tensor_bytes
from outlast.journal import RUN_VARIABLE, from_environment
from outlast.train.leaving import Leaving
from outlast.train.ranks import Ranks

_log = logging.getLogger("outlast")
_OPTIMIZER = "optimizer.bin"
_SHARDED = frozenset({"FSDP", "DEEPSPEED", "MEGATRON_LM"})
_FILES = (
    "*.safetensors", "*.safetensors.index.json", "pytorch_model*", "optimizer*", "scheduler*.bin", "sampler*.bin",
    "dl_state_dict*.bin", "random_states_*.pkl", "scaler.pt", "custom_checkpoint_*.pkl", "outlast.json",
)  # fmt: skip
_CARRIED_BYTES = 1 << 20


@dataclass(slots=True)
class _Guard:
    """What Outlast keeps for one folder of states in this process."""

    vault: Vault
    saver: Saver


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a state goes."""

    path: Path
    """The state's own folder."""
    is_numbered: bool
    """True when Accelerate chose the name: ``checkpoints/checkpoint_N``."""


_GUARDS: dict[Path, _Guard] = {}
_LEAVING: weakref.WeakKeyDictionary[Any, Leaving] = weakref.WeakKeyDictionary()


def guard(accelerator: Any, keep: Keep | None = None, *, keep_exact: bool = False, save: str | None = None) -> Any:
    """Guard one Accelerator in a script of your own.

    Args:
        accelerator: the Accelerator.
        keep: retention; None follows ``total_limit`` and `outlast run --keep`.
        keep_exact: always hold a full state, even if new saves have to be light.
        save: ``full`` or ``light``; None follows `outlast run --save`.

    Returns:
        The same Accelerator.
    """
    install(sys.modules["accelerate.accelerator"])
    policy = Policy.from_environment()
    accelerator._outlast_policy = policy.with_choice(keep, keep_exact=keep_exact, save=save)
    return accelerator


def install(module: ModuleType) -> None:
    """Guard the Accelerator class; once.

    Args:
        module: ``accelerate.accelerator``.
    """
    owner = module.Accelerator
    if getattr(owner, "_outlast", False):
        return
    owner._outlast = True
    owner.save_state = _save_state(owner.save_state)
    owner.load_state = _load_state(owner.load_state)


def _policy_of(accelerator: Any) -> Policy | None:
    """The policy that an Accelerator is guarded with; None when it is not guarded."""
    policy = getattr(accelerator, "_outlast_policy", None)
    if isinstance(policy, Policy):
        return policy
    return Policy.from_environment() if RUN_VARIABLE in os.environ else None


def _place_of(accelerator: Any, folder: Any) -> _Place | None:
    """Where a save goes; None where it is not ours to guard."""
    config = accelerator.project_configuration
    if config.automatic_checkpoint_naming:
        folder = Path(accelerator.project_dir, "checkpoints", f"checkpoint_{config.iteration}")
    # On each node a disk of its own: rank 0 can neither measure nor seal those of the others.
    if folder is None or "://" in os.fspath(folder) or config.save_on_each_node:
        return None
    return _Place(Path(folder).absolute(), bool(config.automatic_checkpoint_naming))


def _guard_of(place: _Place, policy: Policy, limit: int | None = None) -> _Guard:
    root = place.path.parent
    if root not in _GUARDS:
        if place.is_numbered:
            # Accelerate reads a number off every name in there, and fails for a name that has none.
            set_beside(root)
        vault = Vault(root, is_protected=_protection)
        _GUARDS[root] = _Guard(vault, Saver(vault, policy, Reclaim(policy.reclaim, vault.journal)))
        # Names that the script chose don't tell who wrote what: nothing is adopted or set aside by its name.
        vault.recover(settles=place.is_numbered)
    found = _GUARDS[root]
    found.saver.keep = policy.keep or Keep(last=limit if place.is_numbered and limit and limit > 0 else None)
    return found


def _protection(name: str) -> str | None:
    """``best``, ``final``: not one of a series, so the script has a reason of its own for it."""
    return None if re.search(r"\d", name) else "the script gave it a name of its own"


# Saving


def _save_state(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def save_state(self: Any, output_dir: Any = None, *args: Any, **kwargs: Any) -> Any:
        policy = _policy_of(self)
        place = _place_of(self, output_dir) if policy else None
        write = functools.partial(original, self, output_dir, *args, **kwargs)
        if policy is None or place is None:
            return write()
        ranks, config = Ranks(), self.project_configuration
        if not ranks.broadcast(ranks.is_first and _may_replace(place, policy)):
            with _setting(config, total_limit=None):
                return write()  # raises for a numbered one that is there already, before anything is deleted
        count = config.iteration

        def write_part(stage: Stage) -> None:
            config.iteration = count  # Accelerate counts as it writes: a try that failed must not count
            if stage.kind != "full":
                stage.skipped.add(_OPTIMIZER)
            with _setting(config, automatic_checkpoint_naming=False), staged.staging(stage):
                original(self, str(stage.path), *args, **kwargs)

        leaving = _leaving_of(self, place)
        try:
            with leaving.saving():
                if ranks.is_first:
                    _save_as_first(self, place, policy, ranks, write_part)
                else:
                    follow(ranks, write_part)
        except BaseException:
            config.iteration = count
            raise
        _leave_if_due(self, leaving)
        return place.path

    return save_state


def _leaving_of(accelerator: Any, place: _Place) -> Leaving:
    """Accelerate has no step to look after: from one save to the next is a step, and a save the place to leave at."""
    if accelerator not in _LEAVING:
        _LEAVING[accelerator] = Leaving(from_environment(place.path.parent))
        _LEAVING[accelerator].pace.step(0.0)  # no step is left out as the first: they are few
    return _LEAVING[accelerator]


def _leave_if_due(accelerator: Any, leaving: Leaving) -> None:
    step = _optimizer_steps(accelerator)
    stop = leaving.after_step(step)
    if stop is not None:
        leaving.leave(stop, step)


@contextmanager
def _setting(config: Any, **values: Any) -> Iterator[None]:
    before = {name: getattr(config, name) for name in values}
    for name, value in values.items():
        setattr(config, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(config, name, value)


def _save_as_first(
    accelerator: Any, place: _Place, policy: Policy, ranks: Ranks, write_part: Callable[[Stage], None]
) -> None:
    guard = _guard_of(place, policy, accelerator.project_configuration.total_limit)
    light = _light_form(accelerator)
    step = _step(accelerator, guard, place.path)

    def save(write_everywhere: Callable[[Stage], None]) -> Checkpoint:
        def write(stage: Stage) -> Draft:
            write_everywhere(stage)
            return _finish(stage, place.path, light)

        return guard.saver.save(place.path.name, step, _needs(accelerator, ranks, light is not None), write)

    sealed = lead(ranks, save, write_part)
    try:
        guard.saver.settle(sealed)
    except OSError as error:  # the state is sealed: a failure to tidy up must not end the training
        guard.vault.journal.write("settle_failed", name=sealed.name, reason=str(error))


def _finish(stage: Stage, final: Path, light: Mapping[str, Any] | None) -> Draft:
    """Add the sidecar and what was in the old folder beside its state, and say what makes up each kind."""
    for path in _foreign(final):
        if not (stage.path / path.name).exists():
            durable.copy_small(path, stage.path / path.name)
    without: dict[str, tuple[str, ...]] = {"full": ()} if stage.kind == "full" else {}
    if light is not None and _write_sidecar(stage, light):
        without["light"] = (_OPTIMIZER,) if stage.kind == "full" else ()
    elif stage.kind != "full":
        raise BadInput("this optimizer has no light form", hint="make room for a full save")
    return Draft("accelerate", without)


def _write_sidecar(stage: Stage, light: Mapping[str, Any]) -> bool:
    import safetensors.torch

    try:
        tensors, metadata = codec.pack({"optimizer": light})
    except BadInput:
        return False
    with staged.staging(stage):
        safetensors.torch.save_file(tensors, stage.path / codec.SIDECAR, metadata=metadata)
    return True


def _light_form(accelerator: Any) -> Mapping[str, Any] | None:
    """The light form of the optimizer's state; None where there is not exactly one, or its moments are not known."""
    if len(accelerator._optimizers) != 1 or _is_sharded(accelerator):
        return None
    return codec.to_light(_inner(accelerator._optimizers[0]).state_dict())


def _is_sharded(accelerator: Any) -> bool:
    return str(getattr(accelerator.distributed_type, "value", accelerator.distributed_type)) in _SHARDED


def _inner(optimizer: Any) -> Any:
    return getattr(optimizer, "optimizer", optimizer)


def _step(accelerator: Any, guard: _Guard, path: Path) -> int:
    """Optimizer steps done, or the number in the name; never less than that of the training's last save."""
    digits = re.findall(r"\d+", path.name)
    known = _optimizer_steps(accelerator) or (int(digits[-1]) if digits else 0)
    mine = [c.step for c in guard.vault.checkpoints() if c.seal.lineage == guard.saver.lineage and c.name != path.name]
    last = max(mine, default=0)
    # An optimizer that was made anew in the middle counts from 0: a newer state must not seem older.
    return known if known >= last else last + 1


def _optimizer_steps(accelerator: Any) -> int:
    steps = [0]
    for optimizer in accelerator._optimizers:
        for slots in list(getattr(_inner(optimizer), "state", {}).values())[:8]:
            if isinstance(slots, Mapping) and "step" in slots:
                steps.append(int(slots["step"]))
    return max(steps)


def _needs(accelerator: Any, ranks: Ranks, has_light: bool) -> Needs:
    """Bytes of the next save, from the models and optimizers as they are; every rank's shard counts."""
    shards = ranks.world if _is_sharded(accelerator) else 1
    weights = tuple(shards * tensor_bytes(model) for model in accelerator._models)
    moments: list[int] = []
    numbers = 0
    for optimizer in accelerator._optimizers:
        inner = _inner(optimizer)
        trained = [p for group in inner.param_groups for p in group["params"]]
        trainable, numbers = tensor_bytes(trained), numbers + sum(p.numel() for p in trained)
        held = tensor_bytes(inner)
        # Adam's state is empty before the first step; then it is two moments.
        moments.append(shards * (held if held > trainable // 8 else 2 * trainable))
    custom = sum(tensor_bytes(item) for item in accelerator._custom_objects)
    small = 64 * 1024 + shards * codec.sidecar_bytes(numbers) + custom
    light = {"light": weights} if has_light else {}
    return Needs({"full": (*weights, *moments), **light}, small)


# A folder that is there already


def _may_replace(place: _Place, policy: Policy) -> bool:
    """True when a state can get its name as a whole: nothing is there, or an older state and little besides."""
    if not os.path.lexists(place.path):
        return True
    if place.is_numbered or place.path.is_symlink() or not place.path.is_dir():
        return False
    foreign = _foreign(place.path)
    is_plain = all(path.is_file() and not path.is_symlink() for path in foreign)
    may = is_plain and sum(path.stat().st_size for path in foreign) <= _CARRIED_BYTES
    if not may:
        why = f"{foreign[0].name} is in it, among other things: it is not a state alone, and is not replaced as one"
        _guard_of(place, policy).vault.journal.write("left_to_framework", path=str(place.path), why=why)
    return may


def _foreign(folder: Path) -> list[Path]:
    """What is in an existing folder and is no part of an Accelerate state."""
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if not any(fnmatch.fnmatch(path.name, pattern) for pattern in _FILES)]


# Loading


def _load_state(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def load_state(self: Any, input_dir: Any = None, *args: Any, **kwargs: Any) -> Any:
        policy = _policy_of(self)
        if policy is None:
            return original(self, input_dir, *args, **kwargs)
        ranks = Ranks()
        input_dir = ranks.broadcast(_load_from(self, policy, input_dir) if ranks.is_first else None)
        light = _light_of(self, input_dir)
        if light is None:
            result = original(self, input_dir, *args, **kwargs)
        else:
            optimizers = self._optimizers
            with _setting(self, _optimizers=[]):
                result = original(self, input_dir, *args, **kwargs)
            optimizers[0].load_state_dict(codec.from_light(light))
        _count_on(self, input_dir)
        return result

    return load_state


def _load_from(accelerator: Any, policy: Policy, asked: Any) -> Any:
    """The folder to load: the newest sealed one that verifies, or the one that was asked for if it does."""
    config = accelerator.project_configuration
    if asked is None and config.automatic_checkpoint_naming:
        place = _Place(Path(accelerator.project_dir, "checkpoints", "checkpoint_0").absolute(), True)
    elif asked is not None and "://" not in os.fspath(asked):
        place = _Place(Path(asked).expanduser().absolute(), False)
    else:
        return asked
    if not place.path.parent.is_dir():
        return asked
    is_series = place.is_numbered or re.fullmatch(r"checkpoint_\d+", place.path.name) is not None
    guard = _guard_of(_Place(place.path, is_series and place.path.parent.name == "checkpoints"), policy)
    wanted = None if asked is None else place.path.name
    is_sealed = any(checkpoint.name == wanted for checkpoint in guard.vault.checkpoints())
    if wanted and place.path.is_dir() and not is_sealed:
        return asked  # not saved under Outlast, and nothing says that it is not whole
    choice = guard.vault.take(keep_exact=policy.keep_exact, wanted=wanted)
    if choice is None:
        return asked
    guard.saver.lineage = choice.checkpoint.seal.lineage or guard.saver.lineage
    if wanted not in (None, choice.checkpoint.name) or choice.kind != "full":
        _log.warning("outlast: loading a %s state, %s", choice.kind, choice.checkpoint.path)
    return str(choice.checkpoint.path)


def _light_of(accelerator: Any, folder: Any) -> Mapping[str, Any] | None:
    """The light form of the optimizer's state, where that is all that a state has of it."""
    if folder is None or len(accelerator._optimizers) != 1 or _is_sharded(accelerator):
        return None
    path = Path(folder, codec.SIDECAR)
    if Path(folder, _OPTIMIZER).exists() or not path.is_file():
        return None
    found: Mapping[str, Any] = codec.unpack(path)["optimizer"]
    return found


def _count_on(accelerator: Any, folder: Any) -> None:
    """After loading checkpoint_N the next save is N + 1; Accelerate leaves that to the script, which often forgets."""
    config = accelerator.project_configuration
    match = re.fullmatch(r"checkpoint_(\d+)", Path(folder).name) if folder else None
    if match and config.automatic_checkpoint_naming:
        config.iteration = max(config.iteration, int(match[1]) + 1)
