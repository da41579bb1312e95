"""`outlast.data.open`: every row is where it belongs, and bad input is said."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from outlast import data
from outlast.errors import BadInput
from tests.data.parquets import make_rows, text_of, write


def ids(rows: data.Rows) -> list[int]:
    return [row["id"] for row in rows]


def test_rows_are_dicts_in_the_files_order(tmp_path: Path) -> None:
    rows = data.open(make_rows(tmp_path, 95))
    assert len(rows) == 95
    assert rows[0] == {"id": 0, "text": text_of(0)} and rows[-1]["id"] == 94
    assert ids(rows) == list(range(95))
    assert [row["id"] for row in rows.__getitems__([50, 3, 50])] == [50, 3, 50]


def test_only_the_columns_that_were_asked_for_are_read(tmp_path: Path) -> None:
    assert data.open(make_rows(tmp_path, 5), columns=["text"])[4] == {"text": text_of(4)}


def test_shuffled_each_epoch_has_every_row_in_an_order_of_its_own(tmp_path: Path) -> None:
    rows = data.open(make_rows(tmp_path, 200), shuffle=True, seed=4, window=2000)
    assert rows.order.width < len(rows.order.groups)
    first, second = ids(rows.epoch(0)), ids(rows.epoch(1))
    assert sorted(first) == sorted(second) == list(range(200)) and first != second
    assert [rows[place]["id"] for place in range(200)] == first
    rows.set_epoch(1)
    assert ids(rows) == second


def test_the_order_does_not_depend_on_the_columns(tmp_path: Path) -> None:
    make_rows(tmp_path, 200)
    options = {"shuffle": True, "seed": 4, "window": 2000}
    narrow = data.open(tmp_path, columns=["id"], **options)
    assert ids(narrow) == ids(data.open(tmp_path, **options))


def test_rows_travel_to_a_worker_small_and_read_the_same_there(tmp_path: Path) -> None:
    rows = data.open(make_rows(tmp_path, 95), shuffle=True, seed=1).epoch(2)
    before = ids(rows)
    packed = pickle.dumps(rows)
    assert ids(pickle.loads(packed)) == before and len(packed) < 20_000


@pytest.mark.parametrize("kind", ["subset", "folder", "file"])
def test_a_subset_a_folder_and_a_file_can_be_opened(tmp_path: Path, kind: str) -> None:
    make_rows(tmp_path, 10)
    places = {"subset": tmp_path, "folder": tmp_path / "train", "file": tmp_path / "train" / "part-00000.parquet"}
    assert ids(data.open(places[kind])) == list(range(10))


def test_splits_are_apart(tmp_path: Path) -> None:
    make_rows(tmp_path, 9)
    make_rows(tmp_path, 2, split="validation")
    assert len(data.open(tmp_path)) == 9 and len(data.open(tmp_path, "validation")) == 2


def test_what_is_in_flight_is_not_read(tmp_path: Path) -> None:
    make_rows(tmp_path, 9)
    (tmp_path / "train" / ".part-00001.parquet").write_bytes(b"half")
    assert len(data.open(tmp_path)) == 9


def manifest(folder: Path, *names: str) -> None:
    sizes = {path.name: path.stat().st_size for path in (folder / "train").iterdir()}
    shards = [{"path": f"train/{name}", "size_bytes": sizes.get(name, 1), "blake3": "0" * 64} for name in names]
    (folder / "manifest.json").write_text(json.dumps({"shards": shards}))


def test_where_there_is_a_manifest_it_says_which_shards_are_the_sets(tmp_path: Path) -> None:
    make_rows(tmp_path, 80)
    manifest(tmp_path, "part-00001.parquet")
    assert ids(data.open(tmp_path)) == list(range(40, 80))
    manifest(tmp_path, "part-00001.parquet", "part-00002.parquet")
    with pytest.raises(BadInput, match="part-00002.parquet is in the manifest and not in the folder"):
        data.open(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(BadInput, match="manifest.json cannot be read"):
        data.open(tmp_path)


def test_a_window_in_words(tmp_path: Path) -> None:
    rows = data.open(make_rows(tmp_path, 200), window="2KB")
    assert 2 <= rows.order.width < 20


def test_reading_in_order_decodes_each_row_group_once(tmp_path: Path) -> None:
    rows = data.open(make_rows(tmp_path, 200), window=1)
    assert ids(rows) == list(range(200)) and rows._groups.decoded == 20


def test_rows_that_a_sampler_shuffles_again_are_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = data.open(make_rows(tmp_path, 50), shuffle=True)
    rows.__getitems__([0, 1, 2])
    rows.__getitems__([4, 8, 12])  # a rank's share
    assert capsys.readouterr().err == ""
    for _ in range(2):
        rows.__getitems__([7, 3])
    assert capsys.readouterr().err.count("a resume puts back one order of the two") == 1


def test_a_random_order_that_decodes_over_and_over_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = data.open(make_rows(tmp_path, 200), window=1)
    for number in range(200):
        rows[number * 37 % 200]
    said = capsys.readouterr().err
    assert said.count("decodes a row group for each 1.0 rows") == 1 and "shuffle=True" in said


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_small_row_groups_and_many_workers_in_our_order_are_no_such_case(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = data.open(make_rows(tmp_path, 1600, per_file=800), columns=["id"], shuffle=True, window=4000)
    assert sum(len(batch["id"]) for batch in rows.loader(8, workers=4)) == 1600
    assert capfd.readouterr().err == ""


def cut_short(folder: Path) -> None:
    file = folder / "train" / "part-00001.parquet"
    file.write_bytes(file.read_bytes()[:-20])


def not_parquet(folder: Path) -> None:
    (folder / "train" / "part-00001.parquet").write_text("id,text\n1,a\n")


def other_columns(folder: Path) -> None:
    parquet.write_table(pa.table({"id": ["1"]}), folder / "train" / "part-00001.parquet")


def empty(folder: Path) -> None:
    for file in (folder / "train").iterdir():
        file.unlink()
    parquet.write_table(pa.table({"id": pa.array([], pa.int64())}), folder / "train" / "part-00000.parquet")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (cut_short, "part-00001.parquet is no whole Parquet file"),
        (not_parquet, "part-00001.parquet is no whole Parquet file"),
        (other_columns, "has other columns than part-00000.parquet: id: string instead of id: int64, text: string"),
        (empty, "holds no row"),
    ],
)
def test_a_spoiled_folder_is_named(tmp_path: Path, spoil: object, said: str) -> None:
    make_rows(tmp_path, 80)
    spoil(tmp_path)  # type: ignore[operator]
    with pytest.raises(BadInput, match=said):
        data.open(tmp_path)


def test_a_damaged_row_group_is_named_when_it_is_read(tmp_path: Path) -> None:
    file = make_rows(tmp_path, 40) / "train" / "part-00000.parquet"
    raw = bytearray(file.read_bytes())
    raw[4:900] = bytes(896)
    file.write_bytes(raw)
    with pytest.raises(BadInput, match="row group 0 of .*part-00000.parquet cannot be read"):
        data.open(tmp_path)[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"split": "test"}, "no split 'test'; it has: train"),
        ({"split": "../train"}, "no split '../train'"),
        ({"columns": ["txt"]}, "no column 'txt'.*\n.*there are: id, text"),
        ({"window": 0}, "window is 0"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(tmp_path: Path, options: dict[str, object], said: str) -> None:
    make_rows(tmp_path, 5)
    with pytest.raises(BadInput, match=said):
        data.open(tmp_path, **options)  # type: ignore[arg-type]


def test_nothing_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is nothing at"):
        data.open(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="no Parquet file in"):
        data.open(tmp_path)
    with pytest.raises(IndexError):
        data.open(make_rows(tmp_path, 5))[5]


def test_files_that_were_replaced_under_a_reader_are_an_error_and_not_other_rows(tmp_path: Path) -> None:
    rows = data.open(make_rows(tmp_path, 40))
    write(tmp_path / "train/part-00000.parquet", range(100, 140), 10)
    with pytest.raises(BadInput, match="another file than when it was opened"):
        rows[0]


def test_where_names_tell_held_out_files_they_are_not_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "train-00000-of-00001.parquet", range(5), 5)
    write(tmp_path / "test-00000-of-00001.parquet", range(5, 9), 5)
    assert [row["id"] for row in data.open(tmp_path)] == [0, 1, 2, 3, 4]
    assert "of the 2 Parquet files" in capsys.readouterr().err
    assert len(data.open(tmp_path / "test-00000-of-00001.parquet")) == 4
