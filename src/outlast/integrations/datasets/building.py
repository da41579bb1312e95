"""A data set that is about to be built where it does not fit: said before it starts, with the command that helps.

`datasets` downloads all files of a data set and writes them again as Arrow, also for ``split="train[:1%]"``. It looks
for room itself where a data set states one sum of both; cards of today state two figures or none, and then it does not.
Nothing is changed here.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from outlast.host import Room, room, show_bytes
from outlast.integrations.datasets.telling import tell
from outlast.integrations.datasets.wanted import is_openwebtext
from outlast.journal import from_environment


@dataclass(frozen=True, slots=True)
class Need:
    """What a build writes to one place."""

    place: Path
    """Folder."""
    size: int | None
    """Bytes; None when nothing says."""
    what: str
    """In words."""


def install(module: ModuleType) -> None:
    """Look for room before ``DatasetBuilder.download_and_prepare``; once.

    Args:
        module: ``datasets.builder``.
    """
    builder = module.DatasetBuilder
    if not getattr(builder.download_and_prepare, "_outlast", False):
        builder.download_and_prepare = _looking_first(builder.download_and_prepare)


def short(needs: Iterable[Need], rooms: Callable[[Path], Room] = room) -> str | None:
    """Which volume is too small, in words; None when all fits, or when nothing is known.

    Args:
        needs: what is to be written; needs on one volume are added up.
        rooms: what can be written at a place.
    """
    volumes: dict[int | None, list[tuple[Need, Room]]] = {}
    for need in needs:
        there = rooms(need.place)
        volumes.setdefault(there.device, []).append((need, there))
    for group in volumes.values():
        free = min((there.free_bytes for _, there in group if there.free_bytes is not None), default=None)
        known = [(need.what, need.size) for need, _ in group if need.size]
        total = sum(size for _, size in known)
        if free is not None and total > free:
            parts = " + ".join(f"{show_bytes(size)} {what}" for what, size in known)
            return f"{parts} to {group[-1][0].place}, where {show_bytes(free)} are free"
    return None


def way_out(name: str) -> str:
    """The command that gives a subset of a data set."""
    command = f"outlast run --subset {name}=ROWS -- ..."
    return f"OWT_SUBSET_NUM=11000, or {command}" if is_openwebtext(name) else command


def _looking_first(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def download_and_prepare(self: Any, *args: Any, **kwargs: Any) -> Any:
        with suppress(Exception):  # whatever a builder of somebody's own is made of: its build comes first
            _warn(self)
        return original(self, *args, **kwargs)

    download_and_prepare._outlast = True  # type: ignore[attr-defined]
    return download_and_prepare


def _warn(builder: Any) -> None:
    place = Path(builder.cache_dir)
    if (place / "dataset_info.json").exists():
        return
    name = builder.repo_id or builder.dataset_name
    why = short(_needs(builder, place))
    if why is None:
        return
    from_environment(place).write("build_too_large", name=name, why=why)
    tell(f"{name} is about to be built whole: {why}. For its first rows only: {way_out(name)}")


def _needs(builder: Any, place: Path) -> list[Need]:
    info, paths = builder.info, [str(path) for of in (builder.config.data_files or {}).values() for path in of]
    remote = [path for path in paths if "://" in path]
    built = info.dataset_size
    if built is None and builder.name in ("parquet", "json", "csv", "text"):
        # Arrow is not compressed: at the least it is what the files are.
        built = _listed_bytes(paths, builder)
    travels = (info.download_size or _listed_bytes(remote, builder)) if remote or not paths else None
    return [Need(_downloads(builder), travels, "downloaded"), Need(place, built, "built")]


def _listed_bytes(paths: list[str], builder: Any) -> int | None:
    """Size of files as the listing that found them has it; no request is made for it."""
    total = 0
    hub: Mapping[str, list[dict[str, Any]]] = {}
    if any(path.startswith("hf://") for path in paths):
        from huggingface_hub import HfFileSystem

        hub = HfFileSystem(endpoint=sys.modules["datasets.config"].HF_ENDPOINT, token=builder.token).dircache
    for path in paths:
        if "://" not in path:
            total += os.stat(path).st_size
            continue
        entries = hub.get(path.removeprefix("hf://").rpartition("/")[0], [])
        size = next((entry["size"] for entry in entries if entry["name"] == path.removeprefix("hf://")), None)
        if size is None:
            return None
        total += size
    return total


def _downloads(builder: Any) -> Path:
    if builder.repo_id is not None:
        from huggingface_hub import constants

        return Path(constants.HF_HUB_CACHE)
    return Path(builder._cache_downloaded_dir)
