"""Caches that are plain folders: which things in them are the cache's own.

A variable may point anywhere, at a folder of the user's too. So nothing is taken for a cache's that does not look like
what its owner makes: these patterns.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from outlast.caches.catalogue import Cache, Cost
from outlast.caches.plan import Item
from outlast.caches.survey import Survey
from outlast.host import is_locked
from outlast.journal import FOLDER


@dataclass(frozen=True, slots=True)
class Shape:
    """What a cache's own things look like."""

    paths: tuple[str, ...]
    """Regular expressions for paths below the cache's folder, a thing each."""
    kind: str = "entry"
    """One of `plan.KINDS`."""
    cost: Cost | None = None
    """What it costs to make again; None takes that of the row."""
    inside: str = ""
    """Regular expression for every name in a folder of this shape; there is at least one."""
    holds: str = ""
    """A name that a folder of this shape has in it."""


_HEX2 = "[0-9a-f]{2}"
_BASE32 = "[a-z2-7]"
SHAPES: dict[str, tuple[Shape, ...]] = {
    "pip": (Shape((r"http(-v2)?/[0-9a-f]", rf"wheels/{_HEX2}"), inside=r"[0-9a-f]{1,2}"),),
    "torch": (
        Shape((r"hub/checkpoints/[^/]+-[0-9a-f]{8,}\.(pth|pt|th)",)),
        Shape((r"hub/[\w.-]+_[\w.-]+_[\w.-]+",), holds="hubconf.py"),
    ),
    "torch-extensions": (Shape((r"py\d+_(cu\d+|cpu|rocm\S*)",)),),
    "inductor": (
        Shape((rf"{_BASE32}{{2}}",), inside=rf"c?{_BASE32}{{40,60}}([._].*)?"),
        Shape((r"fxgraph", r"aotautograd"), inside=rf"{_BASE32}{{2}}"),
        Shape((r"triton",), inside=r"\d+|[0-9A-Za-z_-]{43,64}"),
    ),
    "triton": (
        Shape((r"[0-9A-Za-z_-]{43,64}",), inside=r".+\.(json|ttir|ttgir|llir|ptx|cubin|amdgcn|hsaco|so|source)"),
    ),
    "cuda": (Shape((r"[0-9a-f]",), inside=r"[0-9a-f]"),),
    "jax": (Shape((r"jit_[^/]+-[0-9a-f]{64}(-cache|-atime)?",)),),
    "vllm": (Shape((r"torch_compile_cache/[0-9a-f]+", r"torch_aot_compile/[^/]+")),),
    "numba": (Shape((r"[^/]+_[0-9a-f]{40}",), inside=r".+\.(nbi|nbc)"),),
    "wandb-cache": (Shape((r"artifacts/obj/(md5|etag)/[0-9a-f]{2}",)),),
    "hf-xet": (Shape((r"([^/]+/)?(shard-cache|shard_cache|chunk-cache|chunk_cache)/[^/]+", r"logs/xet[^/]*\.log")),),
    "hf-datasets-downloads": (
        Shape((r"[0-9a-f]{64}[\w.-]*\.incomplete",), "partial", Cost.SECONDS),
        Shape((r"[0-9a-f]{64}(\.[\w-]+)?",)),
    ),
    "hf-datasets-extracted": (Shape((r"[0-9a-f]{64}",)),),
    "hf-datasets": (
        # A build that was interrupted: its folder carries the mark until it is whole.
        Shape((r"([^/]+/){1,3}[0-9a-f.]+\.incomplete",), "partial", Cost.SECONDS),
        Shape((r"([^/]+/){1,4}cache-[0-9a-f]+(_\d+_of_\d+)?\.arrow",), "map", Cost.MINUTES),
        Shape((r"[^/]+/[^/]+/[^/]+/[0-9a-f]{16,}",), "build", Cost.DOWNLOAD, holds="dataset_info.json"),
    ),
    "kagglehub": (Shape((r"(models|datasets|notebooks)/[^/]+/[^/]+",), holds="versions"),),
    "keras": (Shape((r"models/[\w.-]+\.(h5|keras)",)),),
    "nltk": (Shape((r"(corpora|tokenizers|taggers|chunkers|stemmers)/[\w.-]+\.zip",)),),
    "tfds": (Shape((r"[\w-]+/[\w.-]+/\d+\.\d+\.\d+",), holds="dataset_info.json"),),
    "tfhub": (Shape((r"[0-9a-f]{40}(\.descriptor\.txt)?",)),),
    "unsloth": (Shape((r"[Uu]nsloth\w*\.py",)),),
    "gradience": (Shape((r"base_norms/[^/]+",)),),
}
"""By id of the catalogue's rows. A cache without a shape is never swept."""
_DEEPEST = 6


def items(cache: Cache, root: Path, survey: Survey, apart: frozenset[Path] = frozenset()) -> Iterator[Item]:
    """What can be freed in a cache that is a plain folder.

    Args:
        cache: its row.
        root: its folder, real path.
        survey: who uses what.
        apart: folders of other caches, which may lie in this one.
    """
    shapes = SHAPES.get(cache.id, ())
    locks = (path for pattern in cache.locks for path in root.glob(pattern))
    busy = "its owner holds a lock" if shapes and any(is_locked(lock) for lock in locks) else None
    for path, relative, shape in _below(root, shapes, apart):
        seen = survey.look([path], idle_minutes=cache.idle_minutes)
        yield Item(
            cache.id, shape.kind, f"{cache.id}/{relative}", root, (path,), shape.cost or cache.cost,
            seen.single_bytes, seen.linked, (), seen.files, seen.newest, seen.written,
            seen.problem or busy or seen.used,
        )  # fmt: skip


def _below(root: Path, shapes: tuple[Shape, ...], apart: frozenset[Path]) -> Iterator[tuple[Path, str, Shape]]:
    """Things with one of the shapes; a thing is not searched for others, unless it only holds results of its own."""
    stack = [("", 0)]
    while stack and shapes:
        prefix, depth = stack.pop()
        with suppress(OSError), os.scandir(root / prefix) as entries:
            for entry in sorted(entries, key=lambda one: one.name):
                relative = f"{prefix}{entry.name}"
                if Path(entry.path) in apart or entry.name == FOLDER:
                    continue
                shape = next((shape for shape in shapes if _has(shape, relative) and _fits(shape, entry)), None)
                if shape:
                    yield Path(entry.path), relative, shape
                if (
                    entry.is_dir(follow_symlinks=False)
                    and depth < _DEEPEST
                    and (shape is None or shape.kind == "build")
                ):
                    stack.append((f"{relative}/", depth + 1))


def _has(shape: Shape, relative: str) -> bool:
    return any(re.fullmatch(pattern, relative) for pattern in shape.paths)


def _fits(shape: Shape, entry: os.DirEntry[str]) -> bool:
    """True when a folder holds what its owner puts there; a file has its name alone."""
    if not entry.is_dir(follow_symlinks=False):
        return not shape.holds
    if shape.holds:
        return os.path.lexists(f"{entry.path}/{shape.holds}")
    with suppress(OSError), os.scandir(entry.path) as entries:
        names = [one.name for one in entries]
        return not shape.inside or (bool(names) and all(re.fullmatch(shape.inside, name) for name in names))
    return False
