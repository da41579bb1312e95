"""recipes/lora: conversations from files."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora import offline
from lora.records import Turn, conversation, held_out, load
from outlast.errors import BadInput

PAIR = (Turn("user", "a?"), Turn("assistant", "b"))


@pytest.mark.parametrize(
    ("record", "turns"),
    [
        ({"prompt": "a?", "response": "b"}, PAIR),
        ({"instruction": "a?", "input": "", "output": "b"}, PAIR),
        ({"instruction": "a?", "output": "b"}, PAIR),
        ({"instruction": "a?", "input": "x", "output": "b"}, (Turn("user", "a?\n\nx"), Turn("assistant", "b"))),
        ({"messages": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}]}, PAIR),
        ({"prompt": None, "instruction": "a?", "output": "b"}, PAIR),  # a Parquet row has every column of its table
    ],
)
def test_three_forms_are_one_conversation(record: dict[str, object], turns: tuple[Turn, ...]) -> None:
    assert conversation(record) == turns


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"question": "a?"}, "none of the known forms; it has question"),
        ({"prompt": "a?", "response": 3}, "response: expected text, came int"),
        ({"messages": [{"role": "user", "content": "a?"}]}, "nothing to learn"),
        ({"messages": [{"role": "bot", "content": "a?"}]}, "expected a role"),
        ({"messages": [{"role": "assistant"}]}, "content: expected text"),
        ({"messages": "a?"}, "expected a list"),
        ([], "expected an object"),
    ],
)
def test_what_is_no_conversation_is_said(record: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        conversation(record)


def test_an_error_names_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"prompt": "a?", "response": "b"}\n\n{"prompt": "a?"}\n')
    with pytest.raises(BadInput, match=r"a\.jsonl, line 3: none of the known forms") as told:
        load(file)
    assert "messages" in told.value.hint


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"prompt": "a?", "respo', "line 1: not JSON"),
        ("a.json", b'[{"prompt": "a?"', "not JSON"),
        ("a.json", b"[" * 100_000, "not JSON"),
        ("a.jsonl", b"[" * 100_000, "line 1: not JSON"),
        ("a.jsonl", b'{"prompt": ' + b"9" * 5000 + b"}", "line 1: not JSON"),
        ("a.jsonl", b"\xff\xfe", "not UTF-8"),
        ("a.jsonl", b"\n", "no records"),
        ("a.csv", b"a,b\n", r"expected \.jsonl"),
        ("a.parquet", b"PAR1 but cut short", "cannot be read as Parquet"),
    ],
)
def test_a_damaged_file_is_a_clear_error(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=said):
        load(tmp_path / name)


def test_a_folder_that_is_empty_or_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no .jsonl, .json or .parquet file in it"):
        load(tmp_path)
    with pytest.raises(BadInput, match="no such file or folder"):
        load(tmp_path / "none")


def test_a_subset_folder_is_read_part_by_part_in_the_order_of_its_names(tmp_path: Path) -> None:
    for part, answers in {"train": ["1", "2"], "validation": ["3"]}.items():
        (tmp_path / part).mkdir()
        for number, answer in enumerate(answers):
            table = pyarrow.table({"prompt": ["a?"], "response": [answer], "other": [b"\0"]})
            pyarrow.parquet.write_table(table, tmp_path / part / f"part-{number:05}.parquet")
    (tmp_path / "manifest.json").write_text("{}")
    assert [turns[-1].content for turns in load(tmp_path)] == ["1", "2"]
    assert [turns[-1].content for turns in load(tmp_path, "validation")] == ["3"]


def test_messages_in_parquet_are_read_and_a_limit_ends_the_reading(tmp_path: Path) -> None:
    rows = [[{"role": "user", "content": "a?"}, {"role": "assistant", "content": str(n)}] for n in range(9)]
    pyarrow.parquet.write_table(pyarrow.table({"messages": rows}), tmp_path / "a.parquet")
    assert [turns[-1].content for turns in load(tmp_path / "a.parquet", limit=4)] == ["0", "1", "2", "3"]


def test_a_json_file_is_one_list_or_lines(tmp_path: Path) -> None:
    record = {"instruction": "a?", "input": "", "output": "b"}
    (tmp_path / "a.json").write_text(json.dumps([record, record], indent=2))
    (tmp_path / "b.json").write_text(json.dumps(record) + "\n")
    assert load(tmp_path / "a.json") == [PAIR, PAIR]
    assert load(tmp_path / "b.json") == [PAIR]
    line = json.dumps(record)
    for name, text in (("a.json", f"[{line}]"), ("b.json", line), ("c.jsonl", line)):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")  # as Windows writes it
        assert load(tmp_path / name) == [PAIR]
    (tmp_path / "a.json").write_text(json.dumps([record, 3]))
    with pytest.raises(BadInput, match=r"a\.json, record 2: expected an object"):
        load(tmp_path / "a.json")


def test_a_line_past_the_limit_is_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": "a?", "response": "b"}) + "\nnot JSON\n")
    assert load(tmp_path / "a.jsonl", limit=1) == [PAIR]


@given(prompts=st.lists(st.text(max_size=4), max_size=60), more=st.text(max_size=4), share=st.floats(0, 0.9))
def test_holding_out_is_complete_disjoint_by_prompt_and_stable_under_growth(
    prompts: list[str], more: str, share: float
) -> None:
    made = [(Turn("user", prompt), Turn("assistant", str(n))) for n, prompt in enumerate(prompts)]
    train, validation = held_out(made, share)
    assert sorted(train + validation, key=made.index) == made
    assert {turns[0] for turns in train}.isdisjoint(turns[0] for turns in validation)
    grown = [*made, (Turn("user", more), Turn("assistant", "new"))]
    assert [turns for turns in held_out(grown, share)[1] if turns in made] == validation


def test_about_the_share_that_was_asked_for_is_held_out() -> None:
    made = [(Turn("user", f"{n}?"), Turn("assistant", "b")) for n in range(4000)]
    assert 320 < len(held_out(made, 0.1)[1]) < 480


def test_offline_data_answers_with_the_docstring_of_the_name() -> None:
    found = {turns[0].content: turns[1].content for turns in offline.conversations(300)}
    assert len(found) > 290
    assert found["What does base64.b64encode do?"] == (base64.b64encode.__doc__ or "").splitlines()[0]
    assert not [name for name in found if "._" in name]


def test_offline_data_is_the_same_each_time() -> None:
    assert offline.conversations(50) == offline.conversations(60)[:50]
