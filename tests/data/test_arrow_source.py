"""What `datasets` left on this machine is a source: its cache, and what save_to_disk wrote."""

from __future__ import annotations

from pathlib import Path

import datasets
import pyarrow as pa
import pytest

from outlast import data
from outlast.errors import BadInput
from tests.data.subsets import numbers, parquet, table
from tests.torture.range_server import serving


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """1,200 rows in two files."""
    datasets.Dataset(table(0, 1200)).save_to_disk(tmp_path / "saved", num_shards=2)
    return tmp_path / "saved"


@pytest.mark.parametrize("sample", ["head", "random"])
def test_a_saved_data_set_gives_the_rows_that_parquet_gives(saved: Path, tmp_path: Path, sample: str) -> None:
    source = parquet(tmp_path / "s", files=2, rows=600)
    for name, where in (("o", saved), ("p", source)):
        data.fetch(str(where), tmp_path / name, rows=700, sample=sample, columns="n")
    assert numbers(tmp_path / "o") == numbers(tmp_path / "p")


def test_the_cache_of_datasets_is_read_without_the_results_of_its_maps(tmp_path: Path) -> None:
    built = datasets.load_dataset(
        "parquet", data_dir=str(parquet(tmp_path / "s")), split="train", cache_dir=str(tmp_path / "cache")
    )
    built.map(lambda row: {"n": -row["n"]})
    manifest = data.fetch(str(tmp_path / "cache"), tmp_path / "o", columns="n")
    assert manifest.total_rows == 1500 and sorted(numbers(tmp_path / "o")) == list(range(1500))


def test_class_labels_stay_class_labels(tmp_path: Path) -> None:
    features = datasets.Features({"n": datasets.Value("int64"), "kind": datasets.ClassLabel(names=["no", "yes"])})
    datasets.Dataset.from_dict({"n": [1, 2], "kind": [0, 1]}, features=features).save_to_disk(tmp_path / "saved")
    data.fetch(str(tmp_path / "saved"), tmp_path / "o", columns="kind")
    loaded = datasets.load_dataset(str(tmp_path / "o"), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.features == {"kind": features["kind"]}


def test_an_arrow_file_cut_short_is_said_to_be(saved: Path, tmp_path: Path) -> None:
    path = sorted(saved.glob("*.arrow"))[1]
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(BadInput, match="no whole Arrow file"):
        data.fetch(str(saved), tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_arrow_files_elsewhere_are_not_read(saved: Path) -> None:
    with serving(saved) as server, pytest.raises(BadInput, match="where they lie on this machine only"):
        data.plan(f"{server.url}/")


def test_the_layout_of_arrow_files_with_a_footer_is_read_too(tmp_path: Path) -> None:
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink, pa.ipc.new_file(sink, table(0, 9).schema) as writer:
        writer.write_table(table(0, 300), max_chunksize=100)
    assert data.plan(str(tmp_path / "a.arrow")).rows == 300
    data.fetch(str(tmp_path / "a.arrow"), tmp_path / "o", rows=250)
    assert numbers(tmp_path / "o") == list(range(250))
