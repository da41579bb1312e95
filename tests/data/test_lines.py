"""JSON lines, CSV and text: types from the first part, exact rows, bombs and broken rows met with their place."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import zstandard

from outlast import data
from outlast.data.readers import lines as reader_of_lines
from outlast.data.readers import records
from outlast.errors import BadInput
from tests.data.subsets import content, numbers
from tests.torture.range_server import serving

ROWS: list[dict[str, Any]] = [
    {"text": f"né {n}\n", "n": n, "half": n / 2, "meta": {"a": [n]}, "none": None} for n in range(3000)
]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
PACK = {"jsonl": bytes, "jsonl.gz": gzip.compress, "jsonl.zst": zstandard.compress}


@pytest.fixture
def short_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first part is 100 rows, so that files of a test have a rest."""
    monkeypatch.setattr(reader_of_lines, "_PROBE_ROWS", 100)


def read(out: Path) -> list[dict[str, Any]]:
    return [row for shard in data.Manifest.load(out).shards for row in pq.read_table(out / shard.path).to_pylist()]


@pytest.mark.usefixtures("short_probes")
@pytest.mark.parametrize("end", PACK)
@pytest.mark.parametrize("remote", [False, True])
def test_all_rows_come_as_they_were_written(tmp_path: Path, end: str, remote: bool) -> None:
    path = tmp_path / f"a.{end}"
    path.write_bytes(PACK[end](LINES))
    with serving({path.name: path}) as server:
        manifest = data.fetch(f"{server.url}/{path.name}" if remote else str(path), tmp_path / "o")
    assert manifest.total_rows == 3000
    assert read(tmp_path / "o") == ROWS


@pytest.mark.usefixtures("short_probes")
@pytest.mark.parametrize("end", PACK)
def test_head_reads_no_further_than_it_must(tmp_path: Path, end: str) -> None:
    path = tmp_path / f"a.{end}"
    path.write_bytes(PACK[end](LINES))
    plan = data.plan(str(path), rows=500, split="90/10")
    assert plan.rows == 500 and plan.cost.is_estimate
    data.fetch(str(path), tmp_path / "o", rows=500, split="90/10")
    assert numbers(tmp_path / "o") == list(range(450))


@pytest.mark.usefixtures("short_probes")
def test_a_random_sample_counts_first_and_is_the_same_from_every_packing(tmp_path: Path) -> None:
    found = []
    for end, pack in PACK.items():
        path = tmp_path / f"a.{end}"
        path.write_bytes(pack(LINES))
        assert data.plan(str(path), rows=300, sample="random").must_count
        data.fetch(str(path), tmp_path / end, rows=300, sample="random")
        found.append(numbers(tmp_path / end))
    assert found[0] == found[1] == found[2] and len(set(found[0])) == 300 and max(found[0]) > 2000


@pytest.mark.usefixtures("short_probes")
def test_a_file_with_fewer_rows_than_it_seemed_to_have_is_planned_anew(tmp_path: Path) -> None:
    short = "".join(json.dumps({"n": n, "text": "x" * (1 if n < 100 else 400)}) + "\n" for n in range(600))
    (tmp_path / "s").mkdir()
    (tmp_path / "s/a.jsonl").write_text(short)
    (tmp_path / "s/b.jsonl").write_text("".join(json.dumps({"n": n, "text": ""}) + "\n" for n in range(600, 3000)))
    manifest = data.fetch(str(tmp_path / "s"), tmp_path / "o", rows=1000, split="90/10")
    assert manifest.rows == {"train": 900, "validation": 100}
    assert numbers(tmp_path / "o") == list(range(900))
    assert numbers(tmp_path / "o", "validation") == list(range(900, 1000))


def test_csv_keeps_quoted_lines_and_recognises_numbers(tmp_path: Path) -> None:
    sink = io.StringIO()
    writer = csv.writer(sink)
    writer.writerow(["text", "n", "x", "code"])
    writer.writerows([f'say "{n}",\nand go', n, n / 4, f"{n:03d}"] for n in range(50))
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf" + sink.getvalue().encode())
    manifest = data.fetch(str(tmp_path / "a.csv"), tmp_path / "o")
    assert manifest.columns == {"text": "string", "n": "int64", "x": "double", "code": "string"}
    assert read(tmp_path / "o")[7] == {"text": 'say "7",\nand go', "n": 7, "x": 1.75, "code": "007"}


def test_each_line_of_a_text_is_a_row(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\r\n\ntwo")
    data.fetch(str(tmp_path / "a.txt"), tmp_path / "o")
    assert [row["text"] for row in read(tmp_path / "o")] == ["one", "", "two"]


@pytest.mark.usefixtures("short_probes")
@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"n": "many"}', r"row 2,000, column 'n': expected int64.*got 'many'"),
        ('{"n": 1.5}', r"row 2,000, column 'n': expected int64"),
        ('{"n": "5"}', "expected int64"),
        ('{"n": true}', "expected int64"),
        ('{"meta": {"a": [1], "b": 2}}', "'b' that the first part does not have"),
        ("{broken", r"row 2,000 is no JSON"),
        ("[1, 2]", r"row 2,000: expected an object, got list"),
        ("\xff", r"row 2,000 is no UTF-8"),
    ],
)
def test_a_row_that_cannot_be_read_is_an_error_with_its_place(tmp_path: Path, line: str, said: str) -> None:
    lines = LINES.splitlines()
    lines.insert(2000, line.encode("latin-1"))
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    with pytest.raises(BadInput, match=said):
        data.fetch(str(tmp_path / "a.jsonl"), tmp_path / "o")
    assert content(tmp_path / "o") == {}


def test_a_json_array_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"n": 1},\n{"n": 2}]')
    with pytest.raises(BadInput, match="jq"):
        data.plan(str(tmp_path / "a.json"))


@pytest.mark.parametrize("end", ["txt.gz", "jsonl.zst"])
def test_a_packed_file_cut_short_is_an_error(tmp_path: Path, end: str) -> None:
    packed = (gzip.compress if end.endswith("gz") else zstandard.compress)(LINES)
    (tmp_path / f"a.{end}").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(BadInput, match="cannot be unpacked|is no JSON"):
        data.fetch(str(tmp_path / f"a.{end}"), tmp_path / "o")


@pytest.mark.parametrize("end", ["jsonl.gz", "txt.gz", "csv.zst"])
def test_a_bomb_is_refused_in_bounded_memory(tmp_path: Path, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "ROW_LIMIT", 4 << 20)
    zeros = bytes(200 << 20)
    bomb = gzip.compress(zeros, 1) if end.endswith("gz") else zstandard.compress(zeros)
    del zeros
    (tmp_path / f"a.{end}").write_bytes(bomb)
    tracemalloc.start()
    try:
        with pytest.raises(BadInput, match="row 0 has more than 4.2 MB"):
            data.plan(str(tmp_path / f"a.{end}"))
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.usefixtures("short_probes")
def test_an_interrupted_fetch_of_lines_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from outlast.data import spans

    monkeypatch.setattr(spans, "SHARD_BYTES", 1)  # the least rows a shard
    with serving({"a.jsonl": LINES}) as server:
        told = []

        def stop(progress: data.Progress) -> None:
            told.append(progress)
            if progress.rows == 2500:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            data.fetch_telling(f"{server.url}/a.jsonl", tmp_path / "o", stop, rows=2900)
        server.sent = 0
        server.requests.clear()
        data.fetch(f"{server.url}/a.jsonl", tmp_path / "o", rows=2900)
    assert numbers(tmp_path / "o") == list(range(2900))
    first_of_rest = min(int((asked or "=0-")[6:].split("-")[0]) for _, asked in server.requests[1:])
    assert first_of_rest > len(LINES) // 2


@pytest.mark.usefixtures("short_probes")
@pytest.mark.parametrize("late", ["02139", " 7", "1_000", "+49", "0.5", "٣"])
def test_a_number_that_would_be_written_otherwise_is_never_changed_silently(tmp_path: Path, late: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text("zip\n" + "12345\n" * 200 + late + "\n")
    with pytest.raises(BadInput, match=r"row 200, column 'zip': expected int64"):
        data.fetch(str(path), tmp_path / "o")
    path.write_text("zip\n" + late + "\n" + "12345\n" * 10)
    data.fetch(str(path), tmp_path / "o2")
    assert read(tmp_path / "o2")[0] == {"zip": 0.5 if late == "0.5" else late}


@pytest.mark.usefixtures("short_probes")
def test_numbers_that_no_double_holds_keep_their_digits(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,x\n12345678901234567890,1.5\n12345678901234567891,1e400\n")
    data.fetch(str(path), tmp_path / "o", columns="id")
    assert [row["id"] for row in read(tmp_path / "o")] == ["12345678901234567890", "12345678901234567891"]
    path.write_text("x\n" + "0.5\n" * 200 + "9007199254740993\n")
    with pytest.raises(BadInput, match=r"row 200, column 'x'.*all of its digits"):
        data.fetch(str(path), tmp_path / "o2")


def test_ends_of_lines_within_quotes_are_content(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'a,b\r\n1,"x\r\ny"\r\n\r\n2,"x\ny"\r\n3,z')
    data.fetch(str(path), tmp_path / "o")
    assert [row["b"] for row in read(tmp_path / "o")] == ["x\r\ny", "x\ny", "z"]


@pytest.mark.usefixtures("short_probes")
def test_a_column_that_appears_late_is_not_lost_silently(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n' * 200 + '{"a": 1, "b": null}\n{"a": 2, "b": "here"}\n')
    with pytest.raises(BadInput, match="row 201 has a column 'b' that the first part does not have"):
        data.fetch(str(path), tmp_path / "o")
    data.fetch(str(path), tmp_path / "o", columns="a")
    assert read(tmp_path / "o")[-1] == {"a": 2}


@pytest.mark.parametrize("bad", ['"\\ud800"', "{}", "[{}]", '{"a": {}}', "18446744073709551616", "[1, [2]]"])
def test_a_column_that_nothing_can_hold_is_an_error_only_where_it_is_wanted(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "x", "bad": {bad}}}\n' * 3)
    with pytest.raises(BadInput, match="column 'bad'"):
        data.fetch(str(path), tmp_path / "o")
    data.fetch(str(path), tmp_path / "o", columns="text")
    assert read(tmp_path / "o") == [{"text": "x"}] * 3
