"""Small data sets to take subsets of, and what a subset's folder holds."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from outlast.data import Manifest


def table(first: int, rows: int, *, size: int = 40) -> Any:
    """Rows numbered from ``first`` on: a text, a number, a list."""
    rng = random.Random(first)
    numbers = range(first, first + rows)
    return pa.table(
        {
            "text": [f"{n} " + "".join(rng.choices("abcdefgh ", k=size)) for n in numbers],
            "n": list(numbers),
            "tags": [[str(n % 3)] * (n % 3) for n in numbers],
        }
    )


def parquet(folder: Path, files: int = 3, rows: int = 500, *, group: int = 100, size: int = 40, **options: Any) -> Path:
    """A folder of Parquet files whose column n counts through all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(files):
        where = folder / f"part-{i}.parquet"
        pq.write_table(table(i * rows, rows, size=size), where, row_group_size=group, **options)
    return folder


def numbers(out: Path, part: str = "train") -> list[int]:
    """Column n of one part of a subset, in order."""
    shards = [shard.path for shard in Manifest.load(out).shards if shard.path.startswith(part + "/")]
    return [n for shard in shards for n in pq.read_table(out / shard)["n"].to_pylist()]


def content(out: Path) -> dict[str, bytes]:
    """All that is readable in a subset's folder."""
    files = [path for path in out.rglob("*") if path.is_file() and ".outlast" not in path.parts]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}
