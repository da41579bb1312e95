"""A plan in words that last: the key that tells two subsets apart, and the manifest. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

import pyarrow as pa
from blake3 import blake3

from outlast.data.index import FileIndex, Run, count
from outlast.data.manifest import Manifest, ShardFile, UsedFile
from outlast.data.planning import Plan
from outlast.data.ranges import wanted_groups
from outlast.data.request import Request
from outlast.version import __version__

_LAYOUT = 1
"""Counts up when the same rows would be written as other bytes."""


def manifest_of(plan: Plan, shards: Sequence[ShardFile], key: str) -> Manifest:
    """The manifest of a plan whose shards are made."""
    runs = [run for span in plan.spans for run in span.runs]
    return Manifest(
        source=plan.index.source,
        revision=plan.index.revision,
        request=_told(plan.request),
        rows=dict(plan.parts),
        total_rows=plan.index.total_rows,
        columns=dict(plan.index.columns),
        files=tuple(_used(plan, number, list(mine)) for number, mine in groupby(sorted(runs), lambda run: run.file)),
        shards=tuple(sorted(shards, key=lambda shard: shard.path)),
        key=key,
        written_by={"outlast": __version__, "pyarrow": pa.__version__},
    )


def plan_key(plan: Plan, schema: Any) -> str:
    """Digest of all that decides a subset's bytes: which rows of which state of which files, columns, split, writer."""
    used = sorted({run.file for span in plan.spans for run in span.runs})
    told = {
        "layout": [_LAYOUT, pa.__version__],
        "revision": plan.index.revision,
        "files": [(plan.index.files[i].path, state(plan.index.source, plan.index.files[i])) for i in used],
        "schema": str(schema),
        "split": [str(plan.request.split), plan.request.seed if plan.request.split.by_hash else 0],
        "spans": [[span.runs, [shard.name for shard in span.shards]] for span in plan.spans],
    }
    return blake3(json.dumps(told).encode()).hexdigest()


def state(source: str, file: FileIndex | UsedFile) -> str:
    """What tells that a file is the one that it was: size and version; without a version, where it is from."""
    size = file.size if isinstance(file, FileIndex) else file.size_bytes
    return f"{file.version or f'of {source}'}, {size} bytes"


def _told(asked: Request) -> dict[str, Any]:
    """A request as it stands in the manifest; what is to stay free on this machine is no part of the subset."""
    told = {**asdict(asked), "split": str(asked.split), "columns": asked.columns and list(asked.columns)}
    del told["keep_free"]
    return told


def _used(plan: Plan, number: int, runs: list[Run]) -> UsedFile:
    file = plan.index.files[number]
    groups = None
    if file.groups is not None and any(group.chunks for group in file.groups):
        touched = [need.group for need in wanted_groups(file, runs)]
        groups = tuple(_ranges(touched))
    return UsedFile(file.path, file.size, file.version, count(runs), groups)


def _ranges(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    first = last = None
    for number in numbers:
        if last is not None and number != last + 1:
            yield first, last + 1  # type: ignore[misc]
            first = number
        first, last = number if first is None else first, number
    if first is not None and last is not None:
        yield first, last + 1
