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


@dataclass(frozen=True, slots=True)
class Shape:
    """What a cache's own things look like."""

    paths: tuple[str, ...]
    """Regular expressions for paths below the cache's folder, a thing each."""
    kind: str = "entry"
    """One of `plan.KINDS`."""
    cost: Cost | None = None
    """What it costs to make again; None takes that of the row."""


_HEX2 = "[0-9a-z]{2}"
SHAPES: dict[str, tuple[Shape, ...]] = {
    "pip": (Shape((r"http(-v2)?/[0-9a-f]", rf"wheels/{_HEX2}", r"selfcheck/[^/]+")),),
    "torch": (Shape((r"hub/checkpoints/[^/]+\.(pth|pt|pyth|safetensors)", r"hub/[\w.-]+_[\w.-]+_[\w.-]+")),),
    "torch-extensions": (Shape((r"py\d+_(cu\d+|cpu|rocm\S*)",)),),
    "inductor": (Shape((rf"{_HEX2}", r"fxgraph", r"aotautograd", r"triton", r"cache", r"locks", r"tmp\w+")),),
    "triton": (Shape((r"[0-9A-Za-z_-]{43,64}",)),),
    "cuda": (Shape((r"[0-9a-f]", r"index")),),
    "jax": (Shape((r"jit_[^/]+-[0-9a-f]{64}(-cache|-atime)?",)),),
    "vllm": (Shape((r"torch_compile_cache/[0-9a-f]+", r"torch_aot_compile/[^/]+", r"assets/[^/]+")),),
    "numba": (Shape((r"[^/]+_[0-9a-f]{40}",)),),
    "wandb-cache": (Shape((r"artifacts/obj/(md5|etag)/[0-9a-f]{2}",)),),
    "hf-xet": (Shape((r"([^/]+/)?(shard-cache|shard_cache|chunk-cache|chunk_cache)/[^/]+", r"logs/[^/]+\.log")),),
    "hf-assets": (Shape((r"[\w.-]+/[\w.-]+",)),),
    "hf-datasets-downloads": (
        Shape((r"[^/]+\.incomplete", r"tmp[a-z0-9_]{8}"), "partial", Cost.SECONDS),
        Shape((r"[0-9a-f]{64}(\.[\w.-]+)?",)),
    ),
    "hf-datasets-extracted": (Shape((r"[0-9a-f]{64}",)),),
    "hf-datasets": (
        # A build that was interrupted: its folder carries the mark until it is whole.
        Shape((r"([^/]+/){1,3}[0-9a-f.]+\.incomplete", r"([^/]+/){0,4}tmp[a-z0-9_]{8}"), "partial", Cost.SECONDS),
        Shape((r"([^/]+/){1,4}cache-[0-9a-f]+(_\d+_of_\d+)?\.arrow",), "map", Cost.MINUTES),
        Shape((r"[^/]+/[^/]+/[^/]+/[0-9a-f]{16,}",), "build", Cost.DOWNLOAD),
    ),
    "kagglehub": (Shape((r"(models|datasets|notebooks|competitions)/[^/]+/[^/]+",)),),
    "keras": (Shape((r"models/[^/]+",)),),
    "nltk": (Shape((r"(corpora|tokenizers|taggers|models|chunkers)/[^/]+",)),),
    "tfds": (Shape((r"[\w-]+/[\w.-]+/\d+\.\d+\.\d+",)),),
    "tfhub": (Shape((r"[0-9a-f]{40}(\.descriptor\.txt)?",)),),
    "unsloth": (Shape((r"[\w.-]+\.py", r"__pycache__")),),
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
    for path, relative in _below(root, shapes, apart):
        shape = next(shape for shape in shapes if _has(shape, relative))
        seen = survey.look([path], idle_minutes=cache.idle_minutes)
        yield Item(
            cache.id, shape.kind, f"{cache.id}/{relative}", root, (path,), shape.cost or cache.cost,
            seen.single_bytes, seen.linked, (), seen.files, seen.newest, seen.problem or seen.used,
        )  # fmt: skip


def _below(root: Path, shapes: tuple[Shape, ...], apart: frozenset[Path]) -> Iterator[tuple[Path, str]]:
    """Things with one of the shapes; a thing is not searched for others, unless it only holds results of its own."""
    stack = [("", 0)]
    while stack and shapes:
        prefix, depth = stack.pop()
        with suppress(OSError), os.scandir(root / prefix) as entries:
            for entry in sorted(entries, key=lambda one: one.name):
                relative = f"{prefix}{entry.name}"
                if Path(entry.path) in apart:
                    continue
                shape = next((shape for shape in shapes if _has(shape, relative)), None)
                if shape:
                    yield Path(entry.path), relative
                if (
                    entry.is_dir(follow_symlinks=False)
                    and depth < _DEEPEST
                    and (shape is None or shape.kind == "build")
                ):
                    stack.append((f"{relative}/", depth + 1))


def _has(shape: Shape, relative: str) -> bool:
    return any(re.fullmatch(pattern, relative) for pattern in shape.paths)
