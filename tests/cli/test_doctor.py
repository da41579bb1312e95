"""`outlast doctor`: what is wrong here, and the fix."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.builders import MODEL, fill, make_vault, undeletable

from outlast import cli


@pytest.fixture(autouse=True)
def temporary_files_are_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What else is wrong with this machine is none of these tests' business: every volume is that of the test."""
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))


def doctor(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    with pytest.raises(SystemExit) as end:
        cli.main(["doctor", *map(str, words)])
    assert isinstance(end.value.code, int)
    return end.value.code, capsys.readouterr().out


def facts(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, Any]:
    code, out = doctor(capsys, *words, "--json")
    return code, json.loads(out)


def test_where_nothing_is_wrong_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_vault(tmp_path, [10])
    code, out = doctor(capsys, "--dir", tmp_path, "--budget", f"{tmp_path}=50GB")
    assert code == 0 and out.rstrip().endswith("Nothing is wrong.")
    assert f"{tmp_path}: the next full save needs 307.6 kB" in out


def test_it_looks_at_a_folder_without_checkpoints_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = facts(capsys, "--dir", tmp_path, "--budget", f"{tmp_path}=50GB")
    assert (code, found["next_save"], found["findings"]) == (0, {}, [])
    assert list(tmp_path.iterdir()) == [], "looking writes nothing"


def test_each_volume_comes_with_the_limit_that_holds_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, found = facts(capsys, "--dir", tmp_path, "--budget", f"{tmp_path}=10MB")
    here = found["volumes"]["this folder"]
    assert (here["path"], here["source"], here["total_bytes"]) == (str(tmp_path), f"budget {tmp_path}", 10**7)
    assert 0 < here["free_bytes"] <= 10**7


def test_a_save_that_will_not_fit_is_found_beforehand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_vault(tmp_path, [10], model=400_000, moments=800_000)
    code, found = facts(capsys, "--dir", tmp_path, "--budget", f"{tmp_path}=2500kB")
    save = found["next_save"][str(tmp_path)]
    assert code == 3 and save["saves_that_fit"] == 0 and save["need_bytes"] > save["free_bytes"]
    assert any("the next full save" in finding["what"] and finding["fix"] for finding in found["findings"])


def test_a_partial_checkpoint_is_found_with_what_it_lacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "checkpoint-40").mkdir()
    code, out = doctor(capsys, "--dir", tmp_path)
    assert code == 3
    assert f"- {tmp_path}/checkpoint-40: no seal: trainer_state.json is missing" in out and "  fix: " in out


def test_a_cut_file_of_a_sealed_one_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_vault(tmp_path, [10])
    os.truncate(tmp_path / "checkpoint-10" / MODEL, 1)
    code, out = doctor(capsys, "--dir", tmp_path)
    assert code == 3 and f"{tmp_path}/checkpoint-10" in out


def test_deletions_that_did_not_finish_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vault = make_vault(tmp_path, [10])
    fill(vault.own / "trash" / "checkpoint-5.0a", 5)
    code, out = doctor(capsys, "--dir", tmp_path)
    assert code == 3 and "of deletions did not finish" in out


def test_a_folder_that_cannot_be_written_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "closed").mkdir()
    with undeletable(tmp_path / "closed"):
        code, out = doctor(capsys, "--dir", tmp_path / "closed")
    assert code == 3 and f"- {tmp_path}/closed: cannot be written to" in out


def test_little_room_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").write_bytes(bytes(990_000))
    code, out = doctor(capsys, "--dir", tmp_path, "--budget", f"{tmp_path}=1MB")
    assert code == 3 and f"free (budget {tmp_path})" in out and "free some space" in out


def test_a_budget_that_cannot_be_read_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--dir", str(tmp_path), "--budget", "much"]) == 2
    assert "expected DIR=SIZE" in capsys.readouterr().err


def test_a_folder_that_is_not_there_yet_is_said_not_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--dir", tmp_path / "runs", "--budget", f"{tmp_path / 'typo'}=50GB"]
    _, out = doctor(capsys, *words)
    assert out.count(f"(not there yet: figures of {tmp_path})") == 2


def test_a_budget_that_is_overdrawn_shows_by_how_much(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").write_bytes(b"x" * 50_000)
    code, out = doctor(capsys, "--dir", tmp_path, "--budget", f"{tmp_path}=1kB")
    assert code == 3 and "  0 B (" in out and "over)" in out and "  -" not in out
