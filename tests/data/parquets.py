"""Small Parquet folders, as `outlast data fetch` lays them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet


def text_of(number: int) -> str:
    return f"document {number}: " + "reading is remembering, " * (number % 7)


def make_rows(folder: Path, rows: int, *, split: str = "train", per_file: int = 40, per_group: int = 10) -> Path:
    """Rows 0 to ``rows`` with the columns ``id`` and ``text``, in as many files as it takes; returns the folder."""
    numbers = list(range(rows))
    (folder / split).mkdir(parents=True, exist_ok=True)
    for part, start in enumerate(range(0, rows, per_file)):
        write(folder / split / f"part-{part:05d}.parquet", numbers[start : start + per_file], per_group)
    return folder


def write(path: Path, numbers: Sequence[int], per_group: int) -> None:
    table = pa.table({"id": list(numbers), "text": [text_of(number) for number in numbers]})
    parquet.write_table(table, path, compression="zstd", row_group_size=per_group)
