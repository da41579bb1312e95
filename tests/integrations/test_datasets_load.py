"""`load_dataset` of files on this machine, with a subset asked for: what comes back, and what is left alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest

from outlast.integrations.datasets import load, wanted


@pytest.fixture
def load_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """The guarded function; its subsets and journal lie under tmp_path."""
    monkeypatch.setattr(datasets.load, "load_dataset", datasets.load.load_dataset)
    monkeypatch.setattr(load, "_given", {})
    monkeypatch.chdir(tmp_path)
    for name in ("OUTLAST_RUN", "OUTLAST_DIR", "LOCAL_RANK", wanted.OWT_VARIABLE, wanted.VARIABLE):
        monkeypatch.delenv(name, raising=False)
    datasets.disable_progress_bars()
    load.install(datasets.load)
    guarded = datasets.load.load_dataset
    yield lambda *args, **more: guarded(*args, cache_dir=str(tmp_path / "cache"), **more)
    datasets.enable_progress_bars()


@pytest.fixture
def text(tmp_path: Path) -> str:
    """A data set of 100 rows with labels, and 20 to test with, in Parquet."""
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    for name, rows in (("train-00000-of-00002", 50), ("train-00001-of-00002", 50), ("test-00000-of-00001", 20)):
        content = {"text": [f"{name} {i}" for i in range(rows)], "label": [i % 2 for i in range(rows)]}
        made = datasets.Dataset.from_dict(content, features=features)
        made.to_parquet(tmp_path / "text" / f"{name}.parquet")
    return str(tmp_path / "text")


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("outlast: ")]


def test_a_subset_has_the_first_rows_of_each_split_and_the_features_of_the_whole(
    load_dataset, text: str, monkeypatch, capsys
):
    monkeypatch.setenv(wanted.VARIABLE, "text=60")
    both = load_dataset(text)
    assert {name: len(part) for name, part in both.items()} == {"train": 60, "test": 20}
    assert both["train"].features["label"].names == ["no", "yes"]
    assert [both["train"][i]["text"] for i in (0, 49, 50, 59)] == [
        "train-00000-of-00002 0", "train-00000-of-00002 49", "train-00001-of-00002 0", "train-00001-of-00002 9",
    ]  # fmt: skip
    (line,) = told(capsys)
    assert "60 and 20 rows (--subset): train is its rows 0 to 60, test is its rows 0 to 20" in line


def test_where_the_subset_is_the_whole_split_a_tail_is_what_was_asked_for(load_dataset, text: str, monkeypatch):
    monkeypatch.setenv(wanted.VARIABLE, "text=60")
    assert [len(load_dataset(text, split=f"test[{cut}]")) for cut in ("-15:", ":-15", "-100000:")] == [15, 5, 2]
    assert [len(load_dataset(text, split=f"train[{cut}]")) for cut in ("-15:", ":-15")] == [6, 54]


def test_slices_that_overlap_in_the_subset_alone_are_told(load_dataset, text: str, monkeypatch, capsys):
    monkeypatch.setenv(wanted.VARIABLE, "text=60")
    load_dataset(text, split=["train[:58]", "train[-30:]"])
    overlap, done = told(capsys)
    assert "train[-30:] and train[:58] share 4 rows" in overlap and "is a subset here" in done


def test_a_file_that_changed_is_another_subset(load_dataset, text: str, tmp_path: Path, monkeypatch):
    monkeypatch.setenv(wanted.VARIABLE, "text=10")
    assert load_dataset(text, split="test")[0]["text"].startswith("test-00000")
    datasets.Dataset.from_dict({"text": ["new"] * 30, "label": [0] * 30}).to_parquet(
        tmp_path / "text/test-00000-of-00001.parquet"
    )
    assert load_dataset(text, split="test")[0]["text"] == "new"
    assert len(list((tmp_path / "cache/outlast-subsets").glob("*/test-10-*/manifest.json"))) == 2


def test_a_shard_that_somebody_deleted_is_made_again(load_dataset, text: str, tmp_path: Path, monkeypatch):
    monkeypatch.setenv(wanted.VARIABLE, "text=10")
    load_dataset(text, split="test")
    (shard,) = (tmp_path / "cache").glob("outlast-subsets/*/*/train/*.parquet")
    before = shard.read_bytes()
    shard.unlink()
    assert len(load_dataset(text, split="test[:5]")) == 5 and shard.read_bytes() == before


def test_a_subset_is_found_again_when_its_source_is_gone(load_dataset, text: str, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv(wanted.VARIABLE, "text=10")
    first = load_dataset(text, split="test[:8]")
    Path(text).rename(tmp_path / "away")
    again = load_dataset(text, split="test[:8]")
    assert (again[:], again.features, again._fingerprint) == (first[:], first.features, first._fingerprint)
    assert "the subset that was fetched before is used" in told(capsys)[1]
    with pytest.raises(Exception, match="away|text"):
        load_dataset(text, split="train")  # that split was never fetched: the original call, and its error


@pytest.mark.parametrize(
    ("names", "more", "why"),
    [
        (["a.csv"], {"sep": ";"}, "options of its own (sep)"),
        (["a.jsonl", "deep/b.jsonl"], {}, "several folders"),
    ],
)
def test_what_cannot_be_cut_is_loaded_whole_and_that_is_said(
    load_dataset, tmp_path: Path, monkeypatch, capsys, names: list[str], more: dict[str, str], why: str
):
    content = {"csv": "text;n\na;1\nb;2\n", "jsonl": '{"text": "a"}\n'}
    for name in names:
        path = tmp_path / "odd" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content[name.rpartition(".")[2]])
    monkeypatch.setenv(wanted.VARIABLE, "odd=1")
    assert len(load_dataset(str(tmp_path / "odd"), split="train", **more)) == 2
    (line,) = told(capsys)
    assert "no subset of it can be had, so it is loaded whole" in line and why in line


def test_a_data_set_of_pictures_is_left_to_datasets(load_dataset, tmp_path: Path, monkeypatch, capsys):
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd/a.png").write_bytes(b"")
    monkeypatch.setenv(wanted.VARIABLE, "odd=1")
    seen: list[str] = []
    monkeypatch.setattr(datasets.builder.DatasetBuilder, "download_and_prepare", lambda self, **_: seen.append("whole"))
    with pytest.raises(FileNotFoundError):  # nothing was prepared
        load_dataset(str(tmp_path / "odd"), split="train")
    assert seen == ["whole"] and "read by 'imagefolder'" in told(capsys)[0]


def test_json_lines_and_csv_are_cut_too(load_dataset, tmp_path: Path, monkeypatch):
    monkeypatch.setenv(wanted.VARIABLE, "lines=3;cells=4")
    (tmp_path / "lines").mkdir()
    (tmp_path / "lines/a.jsonl").write_text("".join(json.dumps({"text": f"row {i}", "n": i}) + "\n" for i in range(9)))
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells/a.csv").write_text("text,n\n" + "".join(f"row {i},{i}\n" for i in range(9)))
    assert load_dataset(str(tmp_path / "lines"), split="train")["n"][:] == [0, 1, 2]
    assert load_dataset(str(tmp_path / "cells"), split="train")["text"][:] == [f"row {i}" for i in range(4)]


def test_a_number_that_the_script_set_wrongly_is_told_and_changes_nothing(
    load_dataset, tmp_path: Path, monkeypatch, capsys, text: str
):
    Path(text).rename(tmp_path / "openwebtext")
    monkeypatch.setenv(wanted.OWT_VARIABLE, "all")
    assert len(load_dataset(str(tmp_path / "openwebtext"), split="train")) == 100
    assert "OWT_SUBSET_NUM: expected a number of rows" in told(capsys)[0]


def test_the_same_words_mean_other_files_in_another_folder_and_on_another_day(
    load_dataset, tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.setenv(wanted.VARIABLE, "data=10;json=10")
    for project in ("a", "b"):
        (tmp_path / project / "data").mkdir(parents=True)
    written = tmp_path / "a/data/train.jsonl"
    written.write_text('{"text": "old"}\n' * 20)
    monkeypatch.chdir(tmp_path / "a")
    assert load_dataset("./data", split="train")[0]["text"] == "old"
    assert load_dataset("json", data_files={"train": ["data/train.jsonl"]}, split="train")[0]["text"] == "old"
    written.write_text('{"text": "newer"}\n' * 20)
    assert load_dataset("json", data_files={"train": ["data/train.jsonl"]}, split="train")[0]["text"] == "newer"
    monkeypatch.chdir(tmp_path / "b")
    with pytest.raises(FileNotFoundError):  # its own error: never the other project's rows
        load_dataset("./data", split="train")


def test_the_flag_for_loading_scripts_which_means_nothing_any_more_does_not_cost_the_subset(
    load_dataset, text: str, monkeypatch
):
    monkeypatch.setenv(wanted.VARIABLE, "text=60")
    assert len(load_dataset(text, split="train", trust_remote_code=False)) == 60
