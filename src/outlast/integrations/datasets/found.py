"""What `datasets` itself finds out about a data set: its configuration, revision, files and features; and slices."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from outlast.integrations.datasets import files
from outlast.integrations.datasets.files import Files
from outlast.integrations.datasets.slices import Slice

_BUILDING = frozenset({
    "path", "name", "data_dir", "data_files", "cache_dir", "features", "download_config", "download_mode", "revision",
    "token", "storage_options",
})  # fmt: skip
_CONVERTED = "refs/convert/parquet"


class LeftAlone(Exception):
    """Why no subset can be had: the message says it. The original call is made then."""


@dataclass(frozen=True, slots=True)
class Found:
    """A data set, as far as it is known before anything of it is read."""

    kind: str
    """Who reads its files: a member of `files.KINDS`."""
    splits: Mapping[str, Files]
    """Files of each split."""
    features: Any
    """``datasets.Features``; None where they are in the files."""


def look(module: ModuleType, arguments: Mapping[str, Any]) -> Found:
    """Ask `datasets` what a call of ``load_dataset`` is about.

    Args:
        module: ``datasets.load``.
        arguments: of the call, by name.

    Raises:
        LeftAlone: when `outlast.data` could not read it; the hub may be out of reach.
    """
    options = dict(arguments.get("config_kwargs") or {})
    options.pop("trust_remote_code", None)  # what `datasets` 4 and later does: scripts say it still
    building = {name: value for name, value in arguments.items() if name in _BUILDING}
    building["path"] = _with_owner(str(arguments["path"]))
    try:
        builder = module.load_dataset_builder(**building, **options)
    except Exception as error:
        builder = _converted(module, building, error)
    if builder.name not in files.KINDS:
        raise LeftAlone(f"its files are read by {builder.name!r}, of which no first rows can be fetched")
    if options:
        raise LeftAlone(f"it is read with options of its own ({', '.join(sorted(options))})")
    if not builder.config.data_files:
        raise LeftAlone("it names no files")
    splits = {str(split): _files(map(str, paths)) for split, paths in builder.config.data_files.items()}
    return Found(builder.name, splits, arguments.get("features") or builder.info.features)


def is_here(module: ModuleType, arguments: Mapping[str, Any]) -> bool:
    """True when a call is about files of this machine: a folder, or a reader's name and files.

    Args:
        module: ``datasets.load``.
        arguments: of the call, by name.
    """
    path = str(arguments["path"])
    if is_reader(module, path):
        named = list(_texts(arguments.get("data_files")))
        return not named or not all("://" in one for one in named)
    return path.startswith(("/", ".", "~")) or os.path.exists(path)


def is_reader(module: ModuleType, path: str) -> bool:
    """True for ``json``, ``csv`` ...: the data set is what ``data_files`` names."""
    return path in getattr(module, "_PACKAGED_DATASETS_MODULES", ())


def _texts(named: Any) -> Iterator[str]:
    """Every file in ``data_files``, which may be one, a list, or a dict of these."""
    if isinstance(named, Mapping):
        named = list(named.values())
    if isinstance(named, list | tuple):
        for one in named:
            yield from _texts(one)
    elif named is not None:
        yield str(named)


def _with_owner(path: str) -> str:
    """``Skylion007/openwebtext`` for ``openwebtext``, as it was called in the first days.

    The hub still knows such names; `datasets` 5 with huggingface_hub 2 fails: "Repository id must be namespace/name".
    """
    if "/" in path or os.path.exists(path):
        return path
    from huggingface_hub import HfApi

    try:
        return str(HfApi().dataset_info(path).id)
    except Exception:  # a reader's name (json, csv), a name that is wrong, no network: as it was given
        return path


def _converted(module: ModuleType, building: dict[str, Any], error: Exception) -> Any:
    """A builder for the Parquet files that the hub makes of data sets with a loading script."""
    first = (str(error).splitlines() or [""])[0]
    reason = LeftAlone(f"{type(error).__name__}: {first[:200]}")
    if (
        isinstance(error, ConnectionError)
        or building.get("revision")
        or building.get("data_files")
        or os.path.exists(str(building["path"]))
    ):
        raise reason from error
    name = building.get("name")
    building = {**building, "name": None, "revision": _CONVERTED, "data_dir": name}
    try:
        builder = module.load_dataset_builder(**building)
        paths = [str(path) for paths in builder.config.data_files.values() for path in paths]
    except Exception:
        raise reason from error
    # hf://datasets/org/name@commit/CONFIGURATION/split/0000.parquet
    if name is None and len({path.partition("@")[2].split("/")[1] for path in paths}) > 1:
        raise LeftAlone("it has several configurations: name one in load_dataset") from error
    return builder


def _files(paths: Iterable[str]) -> Files:
    found = tuple(path.removeprefix("file://") for path in paths)
    local = [os.stat(path) for path in found if "://" not in path]
    return Files(found, tuple(f"{info.st_size}-{info.st_mtime_ns}" for info in local))


def slices_of(split: Any, names: Sequence[str]) -> list[Slice]:
    """Every slice in the ``split`` of a call, which may be nested.

    Args:
        split: text, ReadInstruction, list or dict of these; None and ``all`` for all splits.
        names: the splits that there are.

    Raises:
        ValueError: as `datasets` raises it, for a split that there is not or a text that is no slice.
    """
    if split is None or (not isinstance(split, dict | list | tuple) and str(split) == "all"):
        return [Slice(name) for name in names]
    if isinstance(split, dict | list | tuple):
        values = split.values() if isinstance(split, dict) else split
        return [one for value in values for one in slices_of(value, names)]
    kind = sys.modules["datasets.arrow_reader"].ReadInstruction
    whole = split if isinstance(split, kind) else kind.from_spec(str(split))
    found = [_slice(one) for one in whole._relative_instructions]
    for one in found:
        if one.split not in names:
            raise ValueError(f'Unknown split "{one.split}". Should be one of {list(names)}.')
    return found


def _slice(one: Any) -> Slice:
    return Slice(one.splitname, one.from_, one.to, one.unit == "%", one.rounding == "pct1_dropremainder")
