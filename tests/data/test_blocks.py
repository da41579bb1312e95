"""`outlast.data.blocks`: the same text gives the same bytes, made once; what is old goes, what is in use stays."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from outlast import data, journal
from outlast.data.text import making, packed, store
from outlast.errors import BadInput, NoRoom
from outlast.host import Limit, Room
from tests.data.parquets import make_rows, text_of

ROWS = 300
EOS = "<|endoftext|>"


def trained(special: list[str] | None = None, size: int = 320) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[EOS] if special is None else special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text_of(number) for number in range(50)], trainer)
    return tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return trained()


@pytest.fixture
def rows(tmp_path: Path) -> data.Rows:
    return data.open(make_rows(tmp_path / "rows", ROWS))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many parts and many batches of little text."""
    monkeypatch.setattr(making, "SHARD_BYTES", 2000)
    monkeypatch.setattr(making, "_BATCH_TEXTS", 7)


def contents(folder: Path) -> dict[str, bytes]:
    return {entry.name: entry.read_bytes() for entry in folder.iterdir()}


def test_blocks_are_the_texts_tokens_with_eos_between_and_bos_and_eos_around(
    rows: data.Rows, tokenizer: Tokenizer, cache: Path
) -> None:
    made = data.blocks(rows, tokenizer, length=32, cache=cache)
    eos = tokenizer.token_to_id(EOS)
    flat = [token for number in range(ROWS) for token in [*tokenizer.encode(text_of(number)).ids, eos]]
    assert len(made) == len(flat) // 30
    for number, block in enumerate(made):
        assert block.tolist() == [eos, *flat[number * 30 : (number + 1) * 30], eos]
    assert made[0].dtype == torch.int64 and made[-1].shape == (32,)
    assert made.index.tokens == len(flat) and made.index.left_over == len(flat) % 30
    with pytest.raises(IndexError):
        made[len(made)]


def test_a_second_call_finds_them_and_tokenises_nothing(
    rows: data.Rows, tokenizer: Tokenizer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = data.blocks(rows, tokenizer, length=32, cache=cache)
    monkeypatch.setattr(making.Maker, "make", lambda *_: pytest.fail("made again"))
    second = data.blocks(rows, tokenizer, length=32, cache=cache)
    assert second.folder == first.folder and second.key == first.key
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.usefixtures("small_parts")
def test_the_same_text_gives_the_same_bytes_elsewhere(rows: data.Rows, tokenizer: Tokenizer, tmp_path: Path) -> None:
    one, other = (data.blocks(rows, tokenizer, length=32, cache=tmp_path / name) for name in "ab")
    assert contents(one.folder) == contents(other.folder)
    assert len(one.index.parts) > 3


def test_what_the_users_tokenizer_is_set_to_cut_or_fill_up_changes_nothing(
    rows: data.Rows, tokenizer: Tokenizer, cache: Path
) -> None:
    plain = data.blocks(rows, tokenizer, length=32, cache=cache)
    own = Tokenizer.from_str(tokenizer.to_str())
    own.enable_truncation(4)
    own.enable_padding(length=8)
    assert data.blocks(rows, own, length=32, cache=cache).key == plain.key
    assert own.truncation is not None and own.padding is not None


@pytest.mark.parametrize("kind", ["file", "folder", "transformers"])
def test_a_tokenizer_in_any_form_is_the_same_one(
    rows: data.Rows, tokenizer: Tokenizer, cache: Path, tmp_path: Path, kind: str
) -> None:
    given: Any = tmp_path / "tokenizer.json"
    tokenizer.save(str(given))
    if kind == "folder":
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": {"content": EOS}, "eos_token": EOS}))
        given = tmp_path
    if kind == "transformers":
        from transformers import PreTrainedTokenizerFast

        given = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=EOS, eos_token=EOS)
    plain = data.blocks(rows, tokenizer, length=32, cache=cache)
    made = data.blocks(rows, given, length=32, cache=tmp_path / "other")
    assert [block.tolist() for block in made] == [block.tolist() for block in plain]
    # Transformers adds to the decoder, which is a part of the tokenizer: another key, by the letter.
    assert made.key == plain.key or kind == "transformers"


def test_a_large_vocabulary_takes_four_bytes_a_token(tokenizer: Tokenizer, cache: Path) -> None:
    made = data.blocks(["abc " * 50], tokenizer, length=8, cache=cache, bos=70_000)
    assert made.index.dtype == "<u4" and made[0][0] == 70_000


def test_lists_and_iterators_of_the_same_texts_are_the_same_set(tokenizer: Tokenizer, cache: Path) -> None:
    texts = [text_of(number) for number in range(60)]
    once = data.blocks(iter(texts), tokenizer, length=16, cache=cache)
    again = data.blocks(texts, tokenizer, length=16, cache=cache)
    third = data.blocks((text for text in texts), tokenizer, length=16, cache=cache)
    assert once.folder == again.folder == third.folder
    assert [entry.name for entry in (cache / ".outlast" / "blocks").iterdir()] == []


def test_texts_that_join_to_the_same_are_not_the_same(tokenizer: Tokenizer, cache: Path) -> None:
    one = data.blocks(["ab" * 40, "c" * 40], tokenizer, length=8, cache=cache, name="one")
    other = data.blocks(["ab" * 40 + "c" * 40], tokenizer, length=8, cache=cache, name="other")
    assert one.key != other.key


CHANGES: list[dict[str, Any]] = [
    {"length": 33},
    {"wrap": False},
    {"bos": 5},
    {"eos": 7},
    {"tokenizer": trained(size=330)},
    {"rows": 299},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_whatever_goes_in_is_in_the_key(
    tmp_path: Path, rows: data.Rows, tokenizer: Tokenizer, cache: Path, change: dict[str, Any]
) -> None:
    first = data.blocks(rows, tokenizer, length=32, cache=cache)
    options: dict[str, Any] = {"rows": rows, "tokenizer": tokenizer, "length": 32} | change
    if isinstance(options["rows"], int):
        options["rows"] = data.open(make_rows(tmp_path / "fewer", options["rows"]))
    assert data.blocks(cache=cache, **options).key != first.key


def test_a_manifest_that_speaks_of_other_bytes_is_not_believed(
    tmp_path: Path, rows: data.Rows, tokenizer: Tokenizer, cache: Path
) -> None:
    plain = data.blocks(rows, tokenizer, length=32, cache=cache).key
    keys = []
    for more in (0, 1):
        shards = [
            {"path": f"train/{file.path.name}", "size_bytes": file.file_bytes + more, "blake3": "ab" * 32}
            for file in rows.files
        ]
        (tmp_path / "rows" / "manifest.json").write_text(json.dumps({"shards": shards}))
        keys.append(data.blocks(rows, tokenizer, length=32, cache=cache).key)
    assert keys[0] != plain == keys[1]


def test_another_column_is_another_key(tokenizer: Tokenizer, cache: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    parquet.write_table(pa.table({"a": ["xy" * 30], "b": ["xy" * 30]}), tmp_path / "two.parquet")
    rows = data.open(tmp_path / "two.parquet")
    keys = {data.blocks(rows, tokenizer, length=8, cache=cache, column=column).key for column in "ab"}
    assert len(keys) == 2


# Old sets


def grown(tmp_path: Path) -> data.Rows:
    return data.open(make_rows(tmp_path / "rows", ROWS + 10))


def test_an_old_set_of_the_same_source_goes_when_the_new_one_stands(
    tmp_path: Path, rows: data.Rows, tokenizer: Tokenizer, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = data.blocks(rows, tokenizer, length=32, cache=cache).folder
    other = data.blocks(rows, tokenizer, length=16, cache=cache).folder
    new = data.blocks(grown(tmp_path), tokenizer, length=32, cache=cache).folder
    assert not old.exists() and new.exists() and other.exists()
    assert "old token blocks, which newer ones replace" in capsys.readouterr().err
    events = [event for run in journal.runs(cache) for event in journal.read(cache, run)]
    assert [(event.name, event.get("folder")) for event in events] == [("old_blocks_removed", str(old))]
    assert list((cache / ".outlast" / "trash").iterdir()) == []


def test_an_old_set_in_use_stays_until_nobody_reads_it(
    tmp_path: Path, rows: data.Rows, tokenizer: Tokenizer, cache: Path
) -> None:
    reading = data.blocks(rows, tokenizer, length=32, cache=cache)
    first = reading[0]
    data.blocks(grown(tmp_path), tokenizer, length=32, cache=cache)
    assert torch.equal(packed.Blocks(reading.folder)[0], first)
    folder = reading.folder
    del reading
    data.blocks(data.open(make_rows(tmp_path / "rows", ROWS + 20)), tokenizer, length=32, cache=cache)
    assert not folder.exists()


def test_folders_that_are_not_ours_stay(tmp_path: Path, rows: data.Rows, tokenizer: Tokenizer, cache: Path) -> None:
    strangers = {"blocks-mine": {"hello": 1}, "blocks-theirs": {"format": "outlast-blocks", "version": 9}}
    for name, index in strangers.items():
        (cache / name).mkdir(parents=True)
        (cache / name / "index.json").write_text(json.dumps(index))
    (cache / "notes.txt").write_text("mine")
    data.blocks(rows, tokenizer, length=32, cache=cache)
    data.blocks(grown(tmp_path), tokenizer, length=32, cache=cache)
    assert {entry.name for entry in cache.iterdir()} > {*strangers, "notes.txt"}


@pytest.mark.parametrize("spoil", ["cut", "gone", "index"])
def test_a_set_that_was_spoiled_is_made_again(rows: data.Rows, tokenizer: Tokenizer, cache: Path, spoil: str) -> None:
    folder = data.blocks(rows, tokenizer, length=32, cache=cache).folder
    whole = contents(folder)
    part = folder / "part-00000.bin"
    if spoil == "cut":
        os.truncate(part, 100)
    elif spoil == "gone":
        part.unlink()
    else:
        (folder / "index.json").write_text("{")
    with pytest.raises(BadInput, match="no whole blocks"):
        data.Blocks(folder)
    data.blocks(rows, tokenizer, length=32, cache=cache)
    assert contents(folder) == whole


# Going on


class Killed(BaseException):
    pass


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("after", [0, 1, 3])
@pytest.mark.parametrize("where", ["write", "finish"])
def test_stopped_anywhere_it_goes_on_at_the_last_whole_part_to_the_same_bytes(
    rows: data.Rows, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int, where: str
) -> None:
    whole = contents(data.blocks(rows, tokenizer, length=32, cache=tmp_path / "whole").folder)
    real, calls = getattr(making._Part, where), iter(range(100))

    def struck(self: Any, *arguments: Any) -> Any:
        if next(calls) == after:
            raise Killed
        return real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(making._Part, where, struck)
        with pytest.raises(Killed):
            data.blocks(rows, tokenizer, length=32, cache=tmp_path / "cut")
    assert not list((tmp_path / "cut").glob("blocks-*"))
    began: list[int] = []
    since = packed.texts_of(rows, "text", "").since

    def seen(self: Any, document: int) -> Iterator[str]:
        began.append(document)
        return since(document)

    monkeypatch.setattr("outlast.data.text.texts.RowTexts.since", seen)
    assert contents(data.blocks(rows, tokenizer, length=32, cache=tmp_path / "cut").folder) == whole
    if where == "finish" and after:
        assert began[0] > 0


def test_a_set_that_does_not_fit_is_refused_before_anything_is_written(
    rows: data.Rows, tokenizer: Tokenizer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nearly_full(path: Path) -> Room:
        return Room(path, None, (Limit("statvfs", 1000, 10**6),), None)

    monkeypatch.setattr(making, "room", nearly_full)
    monkeypatch.setattr(making._Part, "write", lambda *_: pytest.fail("written"))
    with pytest.raises(NoRoom, match=r"take about .* are free \(statvfs\)[\s\S]*roomier"):
        data.blocks(rows, tokenizer, length=32, cache=cache)


def _make(folder: str, tokenizer: str, cache: str, out: Any) -> None:
    made = data.blocks(data.open(folder), Tokenizer.from_str(tokenizer), length=32, cache=cache)
    out.put((str(made.folder), made.index.blocks))


def test_two_processes_at_once_make_one_set(tmp_path: Path, tokenizer: Tokenizer, cache: Path) -> None:
    folder = make_rows(tmp_path / "rows", ROWS)
    spawn = multiprocessing.get_context("spawn")
    out = spawn.Queue()
    arguments = (str(folder), tokenizer.to_str(), str(cache), out)
    processes = [spawn.Process(target=_make, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    answers = {out.get(timeout=120) for _ in processes}
    for process in processes:
        process.join()
    out.close()
    out.join_thread()
    assert len(answers) == 1
    assert list((cache / ".outlast" / "blocks").iterdir()) == []


# Reading


def test_a_loader_of_blocks_has_an_exact_position_too(rows: data.Rows, tokenizer: Tokenizer, cache: Path) -> None:
    made = data.blocks(rows, tokenizer, length=32, cache=cache)
    whole = [batch.tolist() for batch in made.loader(4, shuffle=True, seed=2)]
    assert sorted(row for batch in whole for row in batch) == sorted(block.tolist() for block in made)
    loader = made.loader(4, shuffle=True, seed=2)
    batches = iter(loader)
    next(batches), next(batches)
    resumed = made.loader(4, shuffle=True, seed=2, workers=1)
    resumed.load_state_dict(loader.state_dict())
    assert [batch.tolist() for batch in resumed] == whole[2:]


def test_blocks_travel_to_a_worker_and_hold_their_folder_there(
    rows: data.Rows, tokenizer: Tokenizer, cache: Path
) -> None:
    made = data.blocks(rows, tokenizer, length=32, cache=cache)
    there = pickle.loads(pickle.dumps(made))
    assert torch.equal(there[3], made[3])
    del made
    assert store.hold(there.folder) is not None


def test_workers_forked_after_tokenising_do_not_warn(tmp_path: Path, tokenizer: Tokenizer, cache: Path) -> None:
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    program = f"""
import os
from outlast import data
made = data.blocks(["some text " * 400], {str(tmp_path / "tokenizer.json")!r}, length=8, cache={str(cache)!r})
print(sum(len(batch) for batch in made.loader(4, workers=1)), "TOKENIZERS_PARALLELISM" in os.environ)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr == "" and done.stdout.split()[1] == "False"


# Bad input


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"length": 2}, "length is 2"),
        ({"length": 10**6}, "no block of 1000000"),
        ({"column": "txt"}, "no column 'txt'[\\s\\S]*id, text"),
        ({"column": "id"}, "is int64; expected text"),
        ({"bos": "<s>"}, "bos is '<s>', which the tokenizer does not have"),
        ({"eos": -1}, "eos is -1"),
        ({"rows": "text"}, "expected rows or texts, got str"),
        ({"rows": ["a", 1]}, "text 1 is a int"),
        ({"tokenizer": 3}, "the tokenizer is a int"),
        ({"tokenizer": "/nowhere/tokenizer.json"}, "there is no tokenizer at /nowhere"),
    ],
)
def test_what_cannot_be_is_said(
    rows: data.Rows, tokenizer: Tokenizer, cache: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        data.blocks(**{"rows": rows, "tokenizer": tokenizer, "length": 32, "cache": cache} | options)


def test_a_tokenizer_that_names_no_end_of_text_is_told_how_to(rows: data.Rows, cache: Path) -> None:
    nameless = trained(special=[])
    with pytest.raises(BadInput, match=r"does not say which token is its EOS[\s\S]*eos=NUMBER"):
        data.blocks(rows, nameless, length=32, cache=cache)
    assert len(data.blocks(rows, nameless, length=32, cache=cache, eos=3, wrap=False)) > 0


def test_a_row_without_text_is_named(tmp_path: Path, tokenizer: Tokenizer, cache: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    parquet.write_table(pa.table({"text": ["a", None]}), tmp_path / "x.parquet")
    with pytest.raises(BadInput, match="row 1 of .* has no text in 'text'"):
        data.blocks(data.open(tmp_path / "x.parquet"), tokenizer, length=8, cache=cache)


def test_a_file_that_is_no_tokenizer_is_said(rows: data.Rows, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BadInput, match="tokenizer.json is no tokenizer"):
        data.blocks(rows, tmp_path / "tokenizer.json", length=8, cache=cache)


def test_two_files_of_one_folder_are_two_sources(tmp_path: Path, tokenizer: Tokenizer, cache: Path) -> None:
    folder = make_rows(tmp_path / "both", 80) / "train"
    train = data.blocks(data.open(folder / "part-00000.parquet"), tokenizer, length=16, cache=cache).folder
    gc.collect()  # nobody reads it any more
    held_out = data.blocks(data.open(folder / "part-00001.parquet"), tokenizer, length=16, cache=cache).folder
    assert train.is_dir() and held_out.is_dir() and train != held_out


def test_a_tokenizer_with_dropout_gives_the_same_bytes_too(
    rows: data.Rows, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawing = Tokenizer(models.BPE(unk_token="<s>", dropout=0.5))
    drawing.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=99, special_tokens=["<s>", "</s>"])
    drawing.train_from_iterator((row["text"] for row in rows), trainer)
    sets = [data.blocks(rows, drawing, length=16, cache=tmp_path / name) for name in ("one", "two")]
    assert torch.equal(torch.stack(list(sets[0])), torch.stack(list(sets[1])))
    assert "dropout is off for blocks" in capsys.readouterr().err
    assert drawing.model.dropout == 0.5


def test_a_text_that_is_no_unicode_is_named(tokenizer: Tokenizer, cache: Path) -> None:
    with pytest.raises(BadInput, match="half of a surrogate pair.*ud800"):
        data.blocks(["a", "b \ud800"], tokenizer, length=16, cache=cache)
