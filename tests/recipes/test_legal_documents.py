from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from legal import licences
from legal.documents import Document, Sentence, read
from legal.splits import place, split
from outlast.errors import BadInput

WHOLE = [
    Document("a", (Sentence("It is so.", "facts"), Sentence("It was held.", "ruling"))),
    Document("b", (Sentence("Thus, no.", "ruling"),)),
]


def _rows() -> list[dict[str, str]]:
    return [{"document": d.name, "text": s.text, "label": s.label} for d in WHOLE for s in d.sentences]


def _as_json(folder: Path) -> None:
    many = [{"id": d.name, "sentences": [{"text": s.text, "label": s.label} for s in d.sentences]} for d in WHOLE]
    (folder / "many.json").write_text(json.dumps(many))


def _as_one_file_each(folder: Path) -> None:
    for d in WHOLE:
        lists = {"sentences": [s.text for s in d.sentences], "labels": [s.label for s in d.sentences]}
        (folder / f"{d.name}.json").write_text(json.dumps(lists))


def _as_lines(folder: Path) -> None:
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, _rows())) + "\n\n")


def _as_document_lines(folder: Path) -> None:
    _as_json(folder)
    many = json.loads((folder / "many.json").read_text())
    (folder / "many.json").unlink()
    (folder / "many.jsonl").write_text("\n".join(map(json.dumps, many)))


def _as_csv(folder: Path) -> None:
    rows = "".join(f'{row["document"]},"{row["text"]}",{row["label"]}\n' for row in _rows())
    (folder / "rows.csv").write_text("document,sentence,label\n" + rows)


@pytest.mark.parametrize("write", [_as_json, _as_one_file_each, _as_lines, _as_document_lines, _as_csv])
def test_the_same_documents_are_read_from_every_form(tmp_path: Path, write) -> None:
    write(tmp_path)
    assert read(tmp_path) == WHOLE
    only = list(tmp_path.iterdir())
    if len(only) == 1:
        assert read(only[0]) == WHOLE


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.json", '{"sentences": [{"text": "x"}]}', "sentence 1: expected a label, came nothing"),
        ("a.json", '{"sentences": ["x", "y"]}', "sentence 1: expected a label, came nothing"),
        ("a.json", '{"sentences": ["x", "y"], "labels": ["p"]}', "2 sentences, labels: 1"),
        ("a.json", '{"sentences": []}', "a document without sentences"),
        ("a.json", "[]", "a document without sentences"),
        ("a.json", '{"text": "x", "label": "y"}', "came an object with the keys text, label"),
        ("a.json", '{"sentences": [', "is not JSON"),
        ("a.json", '{"sentences": [{"text": " ", "label": "y"}]}', "expected a text, came ' '"),
        ("a.jsonl", '{"text": "x", "label": "y"}\n{"text": "z"}', "a.jsonl, line 2: expected a label"),
        ("a.jsonl", "7", "line 1: expected an object, came a int"),
        ("a.jsonl", "", "a document without sentences"),
        ("a.csv", "text,role_of\nx,y\n", "no column for the label; its columns are text, role_of"),
        ("a.csv", "text,label\nx,\n", "a.csv, line 2: expected a label, came ''"),
        ("a.csv", "text,label\n", "a document without sentences"),
        ("a.csv", "", "its columns are none"),
        ("a.csv", "text,label\nthe court, in sum, held,facts\n", "a.csv, line 2: 4 fields, the header has 2"),
        ("a.json", "[" * 100_000, "is not JSON"),
        ("a.txt", "x", "no .json, .jsonl or .csv file"),
    ],
)
def test_what_is_missing_is_named_with_its_place(tmp_path: Path, name: str, text: str, expected: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BadInput) as caught:
        read(tmp_path)
    assert expected in str(caught.value) and caught.value.hint


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"sentences": ["x"], "labels": ["y"]}'),
        ("a.jsonl", '{"text": "x", "label": "y"}'),
        ("a.csv", "text,label\nx,y\n"),
    ],
)
def test_the_mark_that_windows_puts_before_a_text_is_no_part_of_it(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8-sig")
    (document,) = read(tmp_path)
    assert [(one.text, one.label) for one in document.sentences] == [("x", "y")]


def test_other_encodings_a_missing_folder_and_two_documents_of_one_name_are_errors(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no"):
        read(tmp_path / "nowhere")
    (tmp_path / "latin.csv").write_bytes("text,label\nd\xe9j\xe0,x\n".encode("latin-1"))
    with pytest.raises(BadInput, match="not UTF-8"):
        read(tmp_path)
    (tmp_path / "latin.csv").unlink()
    for name in ("one.jsonl", "two.jsonl"):
        (tmp_path / name).write_text('{"document": "same", "text": "x", "label": "y"}')
    with pytest.raises(BadInput, match="both hold a document 'same'"):
        read(tmp_path)


def test_licences_become_documents_of_which_no_sentence_stands_twice(tmp_path: Path) -> None:
    """A sentence that two licences share would be in training and held out."""
    source = tmp_path / "source"
    source.mkdir()
    shared = "You may copy and distribute verbatim copies of this text."
    for name in ("X", "Y"):
        own = [f"Under licence {name} the number {word} is granted to you." for word in ("one", "two", "three")]
        (source / name).write_text("TITLE\n\n" + " ".join([*own[:2], shared]) + "\n\n" + own[2] + "\n")
    assert licences.write(tmp_path / "out", licences=("X", "Y"), source=source) == 7
    found = read(tmp_path / "out")
    assert [(d.name, len(d.sentences)) for d in found] == [("X/part-00", 4), ("Y/part-00", 3)]
    assert {s.label for s in found[0].sentences} == {"X"}
    with pytest.raises(BadInput, match="no Z in"):
        licences.write(tmp_path / "out", licences=("Z",), source=source)


NAMES = st.sets(st.text(min_size=1, max_size=8), min_size=2, max_size=60)


def _documents(names: set[str]) -> list[Document]:
    return [Document(name, (Sentence("a", "x"), Sentence("b", "y"))) for name in sorted(names)]


def _split(names: set[str], seed: int, subset: float = 1.0):
    try:
        return split(_documents(names), validation=0.3, seed=seed, subset=subset)
    except BadInput:
        held_out = [place(name, seed, "validation") < 0.3 for name in names]
        assert all(held_out) or not any(held_out)
        return None


@given(NAMES, st.integers(0, 9), st.floats(0.01, 1))
def test_no_document_is_on_both_sides_and_small_subsets_are_part_of_large_ones(
    names: set[str], seed: int, subset: float
) -> None:
    whole, part = _split(names, seed), _split(names, seed, subset)
    if whole is None or part is None:
        return
    train, held_out = {d.name for d in whole.train}, {d.name for d in whole.validation}
    assert train | held_out == names and not train & held_out
    assert part.validation == whole.validation and part.labels == whole.labels
    assert set(part.train) <= set(whole.train) and len(part.train) == max(1, round(subset * len(train)))


@given(NAMES, NAMES, st.integers(0, 9))
def test_a_document_stays_where_it_is_when_others_come(names: set[str], more: set[str], seed: int) -> None:
    before, after = _split(names, seed), _split(names | more, seed)
    if before is None or after is None:
        return
    assert {d.name for d in before.train} <= {d.name for d in after.train}
    assert {d.name for d in before.validation} <= {d.name for d in after.validation}


def test_one_class_is_nothing_to_classify() -> None:
    with pytest.raises(BadInput, match="every sentence is labelled 'x'"):
        split([Document(str(n), (Sentence("a", "x"),)) for n in range(40)], validation=0.3, seed=0)
