"""A base model by folder or hub id: found here, and only when its weights are really needed, downloaded."""

from __future__ import annotations

import os
import re
from pathlib import Path

from blake3 import blake3

from outlast.audit.base import CONFIG, INDEX, SINGLE, Source, identity, weight_files
from outlast.errors import BadInput, NoRoom
from outlast.host import room, show_bytes

_ID = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[\w.-]+)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_FILES = ("*.safetensors", "*.safetensors.index.json", CONFIG)


def source_of(base: str, revision: str | None = None) -> Source:
    """What is known of a base without its weights.

    Args:
        base: a folder, or an id on the Hugging Face hub.
        revision: branch, tag or commit on the hub; None is ``main``.

    Raises:
        BadInput: when it is neither a folder nor an id, or its folder holds no safetensors weights.
    """
    folder = Path(base).expanduser()
    if folder.is_dir():
        return Source(str(folder.resolve()), None, identity(weight_files(folder)), folder.resolve())
    if not _ID.fullmatch(base) or ".." in base:
        raise BadInput(
            f"there is no folder {base}, and no model on the hub can have that name", hint="--base FOLDER or ID"
        )
    commit = _commit_here(base, revision or "main")
    if commit is None:
        return _downloaded(base, revision)
    snapshot = _repository(base) / "snapshots" / commit
    is_here = _is_whole(snapshot)
    return Source(base, commit, _digest(base, commit), snapshot if is_here else None)


def with_weights(source: Source) -> Source:
    """The same base with its weights here.

    Raises:
        BadInput: when they cannot be downloaded.
        NoRoom: when there is no room for them.
    """
    return source if source.folder is not None else _downloaded(source.name, source.revision)


def _digest(base: str, commit: str) -> str:
    """A commit stands for its files' content."""
    return blake3(f"{base}@{commit}".encode()).hexdigest()


def _cache() -> Path:
    """The hub's cache, by the library's own rules."""
    home = os.environ.get("HF_HOME") or os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or os.path.join(home, "hub")
    return Path(os.path.expandvars(named)).expanduser()


def _repository(base: str) -> Path:
    return _cache() / f"models--{base.replace('/', '--')}"


def _commit_here(base: str, revision: str) -> str | None:
    if _COMMIT.fullmatch(revision):
        return revision
    try:
        text = (_repository(base) / "refs" / revision).read_text().strip()
    except (OSError, ValueError):
        return None
    return text if _COMMIT.fullmatch(text) else None


def _is_whole(snapshot: Path) -> bool:
    if not (snapshot / INDEX).is_file() and not (snapshot / SINGLE).is_file():
        return any(snapshot.glob("*.safetensors"))
    try:
        return bool(weight_files(snapshot))
    except BadInput as error:
        if "shard" in error.message:  # some of them are here
            return False
        raise


def _downloaded(base: str, revision: str | None) -> Source:
    try:
        from huggingface_hub import HfApi, snapshot_download
    except ImportError:
        raise BadInput(
            f"{base} is not in the hub's cache here, and huggingface_hub is not installed",
            hint="pip install '.[hub]', in a clone of Outlast, or name a folder with the model",
        ) from None
    try:
        info = HfApi().model_info(base, revision=revision, files_metadata=True, timeout=30)
        sizes = [one.size or 0 for one in info.siblings or () if one.rfilename.endswith(".safetensors")]
        place = _cache()
        place.mkdir(parents=True, exist_ok=True)
        free = room(place).free_bytes
        if free is not None and sum(sizes) > free:
            raise NoRoom(
                f"{base} takes {show_bytes(sum(sizes))}, {place} has room for {show_bytes(free)}",
                hint="outlast clean, or HF_HUB_CACHE on a roomier volume (outlast env)",
            )
        # By the branch's name, so that the cache knows it the next time; of a commit alone it keeps no name.
        folder = Path(snapshot_download(base, revision=revision, allow_patterns=list(_FILES), cache_dir=place))
    except (NoRoom, BadInput):
        raise
    except Exception as error:  # the library raises its own tree, requests', httpx's and OSError
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise BadInput(
            f"{base} is not here and cannot be downloaded: {type(error).__name__}: {reason}",
            hint="is the id right, the network there, a token set for a gated model? Or name a folder",
        ) from None
    commit = folder.name
    weight_files(folder)
    return Source(base, commit, _digest(base, commit), folder)
