"""A subset's folder: the rows that were asked for, the same bytes each time, grown from what is there."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from outlast import data, durable
from outlast.data import spans
from outlast.data.index import Run
from outlast.data.pool import Pool
from outlast.errors import BadInput, NoRoom, SourceChanged, VaultBusy
from tests.data.subsets import content, numbers, parquet, table


def test_head_is_the_first_rows_split_by_order(tmp_path: Path) -> None:
    source = parquet(tmp_path / "s")
    manifest = data.fetch(str(source), tmp_path / "o", rows=1100, split="90/10", columns="n,text")
    assert manifest.rows == {"train": 990, "validation": 110}
    assert numbers(tmp_path / "o") == list(range(990))
    assert numbers(tmp_path / "o", "validation") == list(range(990, 1100))
    assert list(manifest.columns) == ["n", "text"]
    assert pq.read_schema(tmp_path / "o/train/part-00000.parquet").names == ["n", "text"]


def test_everything_is_there_unchanged_and_read_by_others(tmp_path: Path) -> None:
    source = parquet(tmp_path / "s")
    data.fetch(str(source), tmp_path / "o", split="hash:2/1/1")
    parts = {part: numbers(tmp_path / "o", part) for part in ("train", "validation", "test")}
    assert sorted(sum(parts.values(), [])) == list(range(1500))
    assert all(found == sorted(found) for found in parts.values())
    loaded = datasets.load_dataset(str(tmp_path / "o"), cache_dir=str(tmp_path / "cache"))
    assert {part: found["n"][:] for part, found in loaded.items()} == parts
    whole = pa.concat_tables([pq.read_table(tmp_path / "o" / part) for part in parts]).sort_by("n")
    assert whole.equals(pa.concat_tables([table(i * 500, 500) for i in range(3)]))


@pytest.mark.parametrize("sample", ["head", "spread", "random", "random-groups"])
def test_a_subset_has_the_same_bytes_whether_fetched_at_once_or_grown(tmp_path: Path, sample: str) -> None:
    source = str(parquet(tmp_path / "s", size=300))
    wanted: dict[str, Any] = {"sample": sample, "seed": 3, "split": "hash:80/20"}
    data.fetch(source, tmp_path / "a", rows=400, **wanted)
    data.fetch(source, tmp_path / "a", rows=900, **wanted)
    data.fetch(source, tmp_path / "b", rows=900, **wanted)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert len(numbers(tmp_path / "a")) + len(numbers(tmp_path / "a", "validation")) == 900


def test_what_is_there_is_not_read_again(tmp_path: Path) -> None:
    source = parquet(tmp_path / "s")
    first = data.fetch_telling(str(source), tmp_path / "o", lambda progress: None, rows=1200)
    assert first.reused_rows == 0
    grown = data.fetch_telling(str(source), tmp_path / "o", lambda progress: None, rows=1300, columns="n,text")
    assert grown.reused_rows == 1200
    assert numbers(tmp_path / "o") == list(range(1300))
    again = data.fetch_telling(str(source), tmp_path / "o", lambda progress: None, rows=1300, columns="n,text")
    assert again.reused_rows == 1300 and again.manifest == grown.manifest


def test_a_shard_that_rotted_is_made_anew(tmp_path: Path) -> None:
    source = parquet(tmp_path / "s")
    data.fetch(str(source), tmp_path / "o", rows=300)
    good = content(tmp_path / "o")
    shard = tmp_path / "o/train/part-00000.parquet"
    rotten = bytearray(shard.read_bytes())
    rotten[100] ^= 1
    shard.write_bytes(rotten)
    data.fetch(str(source), tmp_path / "o", rows=300)
    assert content(tmp_path / "o") == good


def test_a_source_that_changed_is_an_error_and_the_old_subset_stays(tmp_path: Path) -> None:
    source = parquet(tmp_path / "s")
    data.fetch(str(source), tmp_path / "o", rows=300)
    before = content(tmp_path / "o")
    pq.write_table(table(7, 400), source / "part-0.parquet")
    with pytest.raises(SourceChanged, match=r"part-0\.parquet changed"):
        data.fetch(str(source), tmp_path / "o", rows=500)
    assert content(tmp_path / "o") == before


def test_two_fetches_into_one_folder_are_one_too_many(tmp_path: Path) -> None:
    source = str(parquet(tmp_path / "s"))
    data.fetch(source, tmp_path / "o", rows=10)
    with durable.locked(tmp_path / "o/.outlast/lock", wait=True), pytest.raises(VaultBusy, match="another process"):
        data.fetch(source, tmp_path / "o", rows=20)
    assert numbers(tmp_path / "o") == list(range(10))


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    source = str(parquet(tmp_path / "s"))
    (tmp_path / "o").mkdir()
    (tmp_path / "o/thesis.txt").write_text("mine")
    with pytest.raises(BadInput, match="something else"):
        data.fetch(source, tmp_path / "o", rows=10)
    assert content(tmp_path / "o") == {"thesis.txt": b"mine"}


def test_a_stranger_among_the_shards_is_not_swept_away(tmp_path: Path) -> None:
    source = str(parquet(tmp_path / "s"))
    data.fetch(source, tmp_path / "o", rows=10)
    (tmp_path / "o/train/notes.txt").write_text("mine")
    with pytest.raises(BadInput, match=r"notes\.txt is not of this subset"):
        data.fetch(source, tmp_path / "o", rows=20)
    assert (tmp_path / "o/train/notes.txt").read_text() == "mine"


def test_a_change_that_was_cut_short_anywhere_is_finished_by_the_next_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = str(parquet(tmp_path / "s"))
    data.fetch(source, tmp_path / "good", rows=900, split="2/1")
    good = content(tmp_path / "good")
    rename, replace = os.rename, os.replace
    for step in range(12):
        out = tmp_path / f"o{step}"
        data.fetch(source, out, rows=300, split="1/1/1")
        left = step

        def dying(call: Any) -> Any:
            def cut(*words: Any, **more: Any) -> Any:
                nonlocal left
                if left == 0:
                    raise KeyboardInterrupt
                left -= 1
                return call(*words, **more)

            return cut

        monkeypatch.setattr(os, "rename", dying(rename))
        monkeypatch.setattr(os, "replace", dying(replace))
        try:
            data.fetch(source, out, rows=900, split="2/1")
        except KeyboardInterrupt:
            pass
        finally:
            monkeypatch.setattr(os, "rename", rename)
            monkeypatch.setattr(os, "replace", replace)
        for part, old, new in (("train", range(100), range(600)), ("validation", range(100, 200), range(600, 900))):
            with suppress(BadInput):  # "is between two sets"; never a mixture
                assert [row["n"] for row in data.open(out, part)] in (list(old), list(new))
        data.fetch(source, out, rows=900, split="2/1")
        assert content(out) == good, step
        assert not (out / ".outlast/next").exists() and not (out / ".outlast/past").exists()


def test_what_does_not_fit_is_refused_before_a_row_is_read_and_says_how_many_would(tmp_path: Path) -> None:
    source = str(parquet(tmp_path / "s", size=2000))
    free = shutil.disk_usage(tmp_path).free
    plan = data.plan(source, out=tmp_path / "o", keep_free=free - 500_000)
    assert plan.fits is False and plan.rows_that_fit is not None and 0 < plan.rows_that_fit < 1500
    with pytest.raises(NoRoom, match="rows fit"):
        data.fetch(source, tmp_path / "o", keep_free=free - 500_000)
    assert content(tmp_path / "o") == {}


def test_max_bytes_takes_fewer_rows_and_says_so(tmp_path: Path) -> None:
    source = str(parquet(tmp_path / "s", size=2000))
    plan = data.plan(source, rows=1500, max_bytes="1MB")
    assert plan.rows is not None and 0 < plan.rows < 1500
    assert any("1,500" in note for note in plan.notes)
    manifest = data.fetch(source, tmp_path / "o", rows=1500, max_bytes="1MB")
    assert manifest.rows == {"train": plan.rows}
    assert sum(shard.size_bytes for shard in manifest.shards) <= 1_000_000


def test_a_plan_changes_nothing(tmp_path: Path) -> None:
    source = parquet(tmp_path / "s")
    plan = data.plan(str(source), rows=150, columns=["n"], out=tmp_path / "o")
    assert dict(plan.parts) == {"train": 150} and plan.cost.row_groups == 2 and plan.cost.wire_bytes == 0
    assert not (tmp_path / "o").exists()


def test_a_column_that_is_not_there_is_named_beside_those_that_are(tmp_path: Path) -> None:
    source = str(parquet(tmp_path / "s"))
    with pytest.raises(BadInput, match=r"no column 'txet'\n.*text, n, tags"):
        data.fetch(source, tmp_path / "o", columns="txet")
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("left", [0, 3, 11, 100, 2000, -1, -5, -100])
def test_a_parquet_file_cut_short_is_said_to_be(tmp_path: Path, left: int) -> None:
    source = parquet(tmp_path / "s", files=1)
    path = source / "part-0.parquet"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(BadInput, match="no whole Parquet file"):
        data.plan(str(source))


def test_damage_in_the_middle_of_a_file_is_an_error_with_its_place(tmp_path: Path) -> None:
    source = parquet(tmp_path / "s", files=1)
    path = source / "part-0.parquet"
    broken = bytearray(path.read_bytes())
    broken[1000:3000] = b"\xff" * 2000
    path.write_bytes(broken)
    with pytest.raises(BadInput, match=r"part-0\.parquet"):
        data.fetch(str(source), tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_files_of_other_types_are_refused_and_both_are_named(tmp_path: Path) -> None:
    source = parquet(tmp_path / "s", files=1)
    pq.write_table(pa.table({"text": [1], "n": [1], "tags": [["a"]]}), source / "part-9.parquet")
    with pytest.raises(BadInput, match=r"part-9\.parquet.*text is int64 there, string in the first"):
        data.fetch(str(source), tmp_path / "o")
    assert data.fetch(str(source), tmp_path / "o", columns="n").rows == {"train": 501}


@pytest.mark.parametrize("what", ["nothing", "no rows", "other files"])
def test_an_empty_source_is_an_error(tmp_path: Path, what: str) -> None:
    source = tmp_path / "s"
    source.mkdir()
    if what == "no rows":
        pq.write_table(table(0, 0), source / "a.parquet")
    elif what == "other files":
        (source / "README.md").write_text("hello")
    with pytest.raises(BadInput, match="no rows|no data"):
        data.fetch(str(source), tmp_path / "o")


def test_the_training_files_are_taken_where_names_tell_and_that_is_said(tmp_path: Path) -> None:
    source = tmp_path / "s"
    source.mkdir()
    for name, first in (("train-10", 20), ("train-9", 10), ("test-0", 0)):
        pq.write_table(table(first, 10), source / f"{name}.parquet")
    plan = data.plan(str(source))
    assert [file.path for file in plan.index.files] == ["train-9.parquet", "train-10.parquet"]
    assert any("train split" in note for note in plan.notes)
    assert data.plan(str(source / "test-*.parquet")).rows == 10


def test_a_manifest_that_names_a_file_outside_is_refused(tmp_path: Path) -> None:
    data.fetch(str(parquet(tmp_path / "s")), tmp_path / "o", rows=10)
    path = tmp_path / "o/manifest.json"
    document = json.loads(path.read_text())
    document["shards"][0]["path"] = "train/../../secret.parquet"
    path.write_text(json.dumps(document))
    with pytest.raises(BadInput, match="which no subset holds"):
        data.Manifest.load(tmp_path / "o")


def test_a_row_that_is_too_large_is_refused_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from outlast.data import fetching

    monkeypatch.setattr(fetching, "ROW_LIMIT", 10_000)
    source = tmp_path / "s.parquet"
    pq.write_table(pa.table({"text": ["a"] * 700 + ["b" * 20_000] + ["a"] * 50}), source)
    with pytest.raises(BadInput, match=r"s\.parquet, row 700 has 20\.0 kB"):
        data.fetch(str(source), tmp_path / "o")


@pytest.mark.parametrize("wanted", [{"rows": 0}, {"rows": -1}, {"sample": "tail"}, {"seed": -1}, {"columns": ""},
                                    {"columns": "a,a"}, {"max_bytes": "many"}, {"keep_free": -1}])  # fmt: skip
def test_what_makes_no_sense_is_refused(tmp_path: Path, wanted: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        data.plan(str(parquet(tmp_path / "s")), **wanted)


def test_a_bound_that_was_estimated_too_low_is_kept_all_the_same(tmp_path: Path) -> None:
    """The first part of this text packs well, the rest does not."""
    letters = "".join(json.dumps({"t": os.urandom(60).hex()}) + "\n" for _ in range(20_000))
    (tmp_path / "a.jsonl").write_text('{"t": "a"}\n' * 20_000 + letters)
    with pytest.raises(NoRoom, match="max_bytes is 500.0 kB") as raised:
        data.fetch(str(tmp_path / "a.jsonl"), tmp_path / "o", max_bytes="500KB")
    assert content(tmp_path / "o") == {}
    rows = int((raised.value.hint or "").split()[1].replace(",", ""))
    assert data.fetch(str(tmp_path / "a.jsonl"), tmp_path / "o", rows=rows // 2).rows == {"train": rows // 2}


def test_no_bound_is_none(tmp_path: Path) -> None:
    assert data.plan(str(parquet(tmp_path / "s")), max_bytes=0).rows == 1500


def test_an_empty_folder_of_the_users_stays(tmp_path: Path) -> None:
    (tmp_path / "o").mkdir()
    with pytest.raises(BadInput):
        data.fetch(str(tmp_path / "nowhere"), tmp_path / "o")
    assert list((tmp_path / "o").iterdir()) == []


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({"a": [1]}, "b is missing there, string in the first file"),
        ({"a": [1], "b": ["x"], "c": [2]}, "c is int64 there, missing in the first file"),
        ({"b": ["x"], "a": [1]}, "the same in another order"),
    ],
)
def test_files_of_other_columns_are_refused_and_what_differs_is_named(
    tmp_path: Path, second: dict[str, Any], said: str
) -> None:
    (tmp_path / "s").mkdir()
    pq.write_table(pa.table({"a": [1], "b": ["x"]}), tmp_path / "s/0.parquet")
    pq.write_table(pa.table(second), tmp_path / "s/1.parquet")
    with pytest.raises(BadInput, match=said):
        data.fetch(str(tmp_path / "s"), tmp_path / "o")
    assert data.fetch(str(tmp_path / "s"), tmp_path / "o", columns="a").rows == {"train": 2}


@pytest.mark.parametrize("kind", [pa.string_view(), pa.binary_view(), pa.list_(pa.string(), 1)])
def test_columns_of_rarer_types_are_there_unchanged(tmp_path: Path, kind: Any) -> None:
    value = [b"abc"] if kind == pa.binary_view() else ["abc"]
    column = pa.array([value if pa.types.is_fixed_size_list(kind) else value[0], None] * 50, kind)
    (tmp_path / "s").mkdir()
    pq.write_table(pa.table({"a": column}), tmp_path / "s/0.parquet")
    data.fetch(str(tmp_path / "s"), tmp_path / "o")
    assert pq.read_table(tmp_path / "o/train")["a"].to_pylist() == column.to_pylist()


def test_a_file_found_by_two_ways_counts_once(tmp_path: Path) -> None:
    parquet(tmp_path / "s/a", 1)
    (tmp_path / "s/b").symlink_to(tmp_path / "s/a")
    assert data.plan(f"{tmp_path}/s/*/*.parquet").rows == 500


def test_rows_that_two_unfinished_fetches_hold_are_read_from_one_of_them(tmp_path: Path) -> None:
    source = parquet(tmp_path / "s", 1, 500)
    for rows, name in ((500, "a"), (300, "b"), (100, "c")):
        data.fetch(str(source), tmp_path / name, rows=rows, sample="random", seed=rows)
    shards = [tmp_path / name / "train/part-00000.parquet" for name in "cba"]
    schema = pq.read_schema(shards[0]).remove_metadata()
    with closing(Pool(shards, ["part-0.parquet"], schema)) as pool:
        pieces = list(pool.pieces([Run(0, 250, 500)]))
        found = [n for piece in pieces for batch in pool.rows(piece) for n in batch.column("n").to_pylist()]
    assert found == list(range(250, 500))


def test_a_set_that_is_exchanged_under_an_open_one_is_never_read_as_it(tmp_path: Path) -> None:
    source = str(parquet(tmp_path / "s"))
    data.fetch(source, tmp_path / "o", rows=300, sample="random", seed=1)
    rows = data.open(tmp_path / "o")
    data.fetch(source, tmp_path / "o", rows=900, sample="random", seed=2)
    with pytest.raises(BadInput, match="is another file than when it was opened"):
        rows[0]
    (tmp_path / "o/train/part-00000.parquet").write_bytes((tmp_path / "s/part-0.parquet").read_bytes())
    with pytest.raises(BadInput, match="is not the one of the manifest"):
        data.open(tmp_path / "o")


@pytest.mark.parametrize("links", [True, False])
def test_shards_that_stay_as_they_are_take_no_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    monkeypatch.setattr(spans, "SHARD_BYTES", 20_000)
    source = str(parquet(tmp_path / "s"))
    data.fetch(source, tmp_path / "good", rows=1400, split="hash:2/1")
    data.fetch(source, tmp_path / "o", rows=1100, split="hash:2/1")
    first = (tmp_path / "o/train/part-00000.parquet").stat().st_ino
    if not links:
        monkeypatch.setattr(os, "link", lambda *names: os.stat("/nowhere"))
    found = data.fetch_telling(source, tmp_path / "o", lambda progress: None, rows=1400, split="hash:2/1")
    assert found.reused_rows == 1100
    assert content(tmp_path / "o") == content(tmp_path / "good")
    assert ((tmp_path / "o/train/part-00000.parquet").stat().st_ino == first) is links
