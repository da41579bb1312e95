"""Where an adapter's files are: its own folder, a checkpoint that Outlast sealed, or a run's folder. Reads names only.

A checkpoint that has a seal is read only where its files are as they were sealed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from outlast.audit.stored import shards_of
from outlast.checkpoints import SEAL, Seal, is_candidate, vaults_of
from outlast.checkpoints import digest as digests
from outlast.checkpoints import seal as seals
from outlast.checkpoints.shelf import Checkpoint, Shelf
from outlast.errors import BadInput, SealError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model"
"""Start of the names that PEFT gives weights: ``.safetensors``, ``.safetensors.index.json``, ``.bin``."""
_STATES = ("model.safetensors", "pytorch_model.bin")
"""A whole training's weights, in which an adapter's are some."""


@dataclass(frozen=True, slots=True)
class Place:
    """The files of one adapter."""

    folder: Path
    """The folder that they are in."""
    config: Path | None
    """Its configuration; None where a checkpoint holds weights without one."""
    files: tuple[Path, ...]
    """Files with its tensors."""
    step: int | None
    """Steps done when it was sealed; None where no seal says it."""
    others: tuple[str, ...]
    """Names of further adapters in folders below."""
    sealed_beside: int | None
    """Sealed checkpoints in the same vault, this one too; None where there is no vault."""


def find(path: Path, adapter: str | None = None) -> Place:
    """The adapter at a path.

    Args:
        path: an adapter's folder or file, a sealed checkpoint, or the folder of a run: its newest with an adapter.
        adapter: which one, where PEFT saved several in folders of their names; None for the only one, or the first.

    Raises:
        BadInput: when there is none, or several and none was named.
        SealError: when a sealed file is not as it was sealed.
    """
    if path.is_file():
        return _in_file(path)
    if not path.is_dir():
        raise BadInput(f"there is no {path}", hint="expected a folder that PEFT's save_pretrained wrote")
    found = _in_folder(path, adapter) or _newest_sealed(path, adapter)
    if found is not None:
        return found
    unsealed = [name for name in _adapters_below(path) if is_candidate(name)]
    if unsealed:
        raise BadInput(
            f"{path} holds {len(unsealed)} checkpoints with an adapter, none of them sealed",
            hint=f"name one of them ({unsealed[0]}), or seal them: outlast checkpoints verify",
        )
    bare = _weights_in(path)
    if bare and not (path / CONFIG).is_file():
        raise BadInput(
            f"{path} has {bare[0].name}, but no {CONFIG}: ranks are known, alpha is not",
            hint=f"put the {CONFIG} that PEFT wrote beside it",
        )
    if (path / CONFIG).is_file():
        raise BadInput(f"{path} has {CONFIG}, but no {WEIGHTS}.safetensors", hint="copy or save the adapter again")
    raise BadInput(
        f"there is no adapter in {path}", hint=f"expected {CONFIG} and {WEIGHTS}.safetensors, as PEFT writes"
    )


def _in_file(path: Path) -> Place:
    config = path.parent / CONFIG
    if not path.name.startswith(WEIGHTS):
        checkpoint = _seal_beside(path)
        if checkpoint is not None:
            return checkpoint
    if not config.is_file():
        raise BadInput(f"beside {path} there is no {CONFIG}", hint="name the folder that PEFT's save_pretrained wrote")
    return Place(path.parent, config, (path,), None, (), None)


def _seal_beside(path: Path) -> Place | None:
    """A checkpoint that is one file, such as Lightning's."""
    sealed = Shelf(path.parent).open(path.name)
    return _of_checkpoint(sealed, None, None) if sealed else None


def _in_folder(path: Path, adapter: str | None) -> Place | None:
    if (path / SEAL).is_file():
        sealed = Shelf(path.parent).open(path.name)
        if sealed is None:
            seals.read(path)  # raises, with the reason
        elif (found := _of_checkpoint(sealed, adapter, None)) is not None:
            return found
    return _of_folder(path, adapter)


def _of_folder(path: Path, adapter: str | None) -> Place | None:
    """What PEFT wrote: the first adapter itself, further ones in folders of their names."""
    below = sorted(name for name in _adapters_below(path) if not is_candidate(name))
    if adapter is not None and adapter in below:
        return _plain(path / adapter, ())
    if _is_adapter(path):
        return _plain(path, tuple(below))
    if adapter is None and len(below) == 1:
        return _plain(path / below[0], ())
    if below:
        raise BadInput(
            f"{path} holds {len(below)} adapters: {', '.join(below)}"
            + (f"; {adapter} is none of them" if adapter is not None else ""),
            hint=f"--adapter {below[0]}",
        )
    return None


def _adapters_below(path: Path) -> list[str]:
    return [entry.name for entry in os.scandir(path) if entry.is_dir() and _is_adapter(Path(entry.path))]


def _is_adapter(folder: Path) -> bool:
    return (folder / CONFIG).is_file() and bool(_weights_in(folder))


def _plain(folder: Path, others: tuple[str, ...]) -> Place:
    return Place(folder, folder / CONFIG, _weights_in(folder), None, others, None)


def _weights_in(
    folder: Path, stems: tuple[str, ...] = (f"{WEIGHTS}.safetensors", f"{WEIGHTS}.bin")
) -> tuple[Path, ...]:
    """Safetensors before a pickle, an index of shards before nothing."""
    for name in stems:
        if (folder / name).is_file():
            return (folder / name,)
        index = folder / f"{name}.index.json"
        if index.is_file():
            return tuple(sorted(set(shards_of(index).values())))
    return ()


def _newest_sealed(path: Path, adapter: str | None) -> Place | None:
    """The newest sealed checkpoint at or below a folder that has an adapter in it."""
    for checkpoint, beside in sorted(_sealed_below(path), key=lambda pair: pair[0].age, reverse=True):
        found = _of_checkpoint(checkpoint, adapter, beside)
        if found is not None:
            return found
    return None


def _sealed_below(path: Path) -> Iterator[tuple[Checkpoint, int]]:
    for root in vaults_of(path, journaled=False):
        checkpoints = [one for one in Shelf(root).checkpoints() if one.kind is not None]
        yield from ((one, len(checkpoints)) for one in checkpoints)


def _of_checkpoint(checkpoint: Checkpoint, adapter: str | None, beside: int | None) -> Place | None:
    if checkpoint.path.is_dir():
        found = _of_folder(checkpoint.path, adapter)
        config = checkpoint.path / CONFIG
        files = found.files if found else _weights_in(checkpoint.path, _STATES)
        config_found = found.config if found else (config if config.is_file() else None)
    else:
        found, files, config_found = None, (checkpoint.path,), None
    if not files:
        return None
    for file in (*files, *((config_found,) if config_found else ())):
        _must_be_as_sealed(checkpoint.path, checkpoint.seal, file)
    folder = found.folder if found else checkpoint.path
    others = found.others if found else ()
    return Place(folder, config_found, files, checkpoint.step, others, beside)


def _must_be_as_sealed(checkpoint: Path, seal: Seal, file: Path) -> None:
    name = file.relative_to(checkpoint).as_posix() if checkpoint.is_dir() else checkpoint.name
    entry = seal.files.get(name)
    if entry is None or not digests.matches(file, entry.digest):
        raise SealError(
            f"{file} is not what {checkpoint.name} was sealed with",
            hint="outlast checkpoints verify; audit another one",
        )
