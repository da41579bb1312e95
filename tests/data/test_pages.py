"""Pages are measured as they pass by, whatever the footer says."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.data.subsets import numbers, table

from outlast import data
from outlast.data import pages
from outlast.data.pages import PageWatch
from outlast.errors import BadInput


@pytest.mark.parametrize(
    "options",
    [{}, {"data_page_version": "2.0"}, {"use_dictionary": False}, {"write_page_index": True}, {"compression": "none"},
     {"data_page_size": 1000}, {"write_page_checksum": True}, {"compression": "gzip", "write_statistics": False}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("step", [7, 100_000])
def test_all_pages_of_a_column_are_followed_however_the_bytes_come(options: dict[str, Any], step: int) -> None:
    sink = io.BytesIO()
    pq.write_table(table(0, 3000), sink, row_group_size=1500, **options)
    content = sink.getvalue()
    metadata = pq.read_metadata(io.BytesIO(content))
    for group in range(2):
        for i in range(3):
            column = metadata.row_group(group).column(i)
            start = column.dictionary_page_offset or column.data_page_offset
            stop = start + column.total_compressed_size
            watch = PageWatch(start, stop, "here")
            for at in range(start, stop, step):
                watch.see(at, content[at : min(at + step, stop)])
            assert watch._values == column.num_values
            assert watch._next == stop


def test_a_page_that_is_too_large_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages.PageWatch.__init__, "__defaults__", (1_000_000,))
    texts = ["a"] * 900 + ["b" * 5_000_000] + ["c"] * 100
    pq.write_table(pa.table({"text": texts, "n": list(range(1001))}), tmp_path / "s.parquet", use_dictionary=False)
    with pytest.raises(BadInput, match=r"row group 0, column 'text'.*page of 5\.0 MB unpacked"):
        data.fetch(str(tmp_path / "s.parquet"), tmp_path / "o")
    data.fetch(str(tmp_path / "s.parquet"), tmp_path / "o", columns="n")
    assert len(numbers(tmp_path / "o")) == 1001


def test_bytes_that_are_no_page_are_damage() -> None:
    with pytest.raises(BadInput, match="no page begins at byte 10"):
        PageWatch(10, 1000, "here").see(10, b"\xff" * 900)
