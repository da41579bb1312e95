"""`outlast data`: what a user sees, and the exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.builders import python
from tests.data.subsets import numbers, parquet

from outlast.cli import main


def test_a_plan_names_rows_bytes_and_memory_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(parquet(tmp_path / "s"))
    assert main(["data", "plan", source, "--rows", "1100", "--split", "90/10", "--columns", "text"]) == 0
    said = capsys.readouterr().out
    assert "train 990, validation 110, in 11 row groups" in said
    assert "wire     nothing: it lies here" in said and "memory   about" in said and "text (string)" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s"]


def test_a_plan_as_json_has_bytes_and_says_whether_it_fits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = str(parquet(tmp_path / "s"))
    assert main(["data", "plan", source, "--rows", "10", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["fits"] is True and document["rows"] == 10 and document["disk_bytes"] > 0
    free = shutil.disk_usage(tmp_path).free
    words = ["data", "plan", source, "-o", str(tmp_path / "o"), "--keep-free", str(free - 10_000)]
    assert main(words) == 3
    assert "DOES NOT FIT: about" in capsys.readouterr().out


def test_a_fetch_says_what_it_made_and_the_second_one_that_all_was_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = str(parquet(tmp_path / "s")), str(tmp_path / "o")
    assert main(["data", "fetch", source, "-o", out, "--rows", "100", "--split", "90/10"]) == 0
    assert "train 90, validation 10 rows in 2 files" in capsys.readouterr().out
    assert numbers(tmp_path / "o") == list(range(90))
    assert main(["data", "fetch", source, "-o", out, "--rows", "100", "--split", "90/10", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["reused_rows"] == 100 and document["manifest"]["rows"] == {"train": 90, "validation": 10}


@pytest.mark.parametrize(
    "words",
    [["plan", "nowhere"], ["plan", "ftp://x/y"], ["plan", "s3://"], ["plan", "hf://models/a/b"], ["fetch", "x"],
     ["plan", "hf://datasets/a"], ["plan", "https://"], ["plan", "x", "--rows", "0"]],
)  # fmt: skip
def test_bad_input_is_two_lines_and_exit_code_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("outlast: ") and "hint: " in said


def test_the_command_is_parsed_without_pyarrow() -> None:
    done = python("import sys, outlast.cli.data; print('pyarrow' in sys.modules, 'numpy' in sys.modules)")
    assert (done.stdout.strip(), done.stderr) == ("False False", "")
