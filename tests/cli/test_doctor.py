"""`outlast doctor`: what is wrong here, and the fix."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from tests.builders import MODEL, fill, make_vault, undeletable

import outlast.cli.doctor  # noqa: F401 (patched below)
from outlast import cli
from outlast.doctor import CHECKS, gather


@pytest.fixture(autouse=True)
def everything_else_is_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What else is wrong with this machine is none of these tests' business: all that is looked at is the test's."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING", "TRANSFORMERS_", "XDG_", "WANDB_"))]:
        monkeypatch.delenv(name)
    mine = {"shm": tmp_path, "python": sys.executable}
    monkeypatch.setattr(sys.modules["outlast.cli.doctor"], "gather", lambda *a, **more: gather(*a, **{**more, **mine}))


def doctor(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    code = cli.main(["doctor", *map(str, words)])
    return code, capsys.readouterr().out


def found(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[str, Any]]:
    """The exit code, and the last answer of each check."""
    code, out = doctor(capsys, *words, "--json")
    return code, {one["id"]: one for one in json.loads(out)}


def test_where_nothing_is_wrong_it_says_so_in_few_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_vault(tmp_path, [10])
    code, out = doctor(capsys, "--dir", tmp_path, "--budget", f"{tmp_path}=50GB")
    assert code == 0 and out.rstrip().endswith("Nothing is wrong.")
    assert f"{tmp_path}: the next full save needs 307.6 kB" in out
    marks = [line for line in out.splitlines() if line.startswith(("✓", "!", "✗"))]
    assert len(marks) == 4 and all(line.startswith("✓") for line in marks)


def test_looking_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = found(capsys, "--dir", tmp_path, "--budget", f"{tmp_path}=50GB")
    assert code == 0 and list(tmp_path.iterdir()) == []


def test_each_check_answers_in_json_with_the_same_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "checkpoint-40").mkdir()
    _, out = doctor(capsys, "--dir", tmp_path, "--json")
    answers = json.loads(out)
    keys = {"id", "status", "title", "evidence", "fix", "path", "figures", "fixed"}
    assert all(set(answer) == keys for answer in answers)
    assert {answer["id"] for answer in answers} == {check.id for check in CHECKS}
    assert {answer["status"] for answer in answers} <= {"ok", "skipped", "warning", "error"}
    assert all(bool(answer["fix"]) == (answer["status"] in ("warning", "error")) for answer in answers)


def test_each_volume_comes_with_the_limit_that_holds_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--dir", tmp_path, "--budget", f"{tmp_path}=10MB")
    _, out = doctor(capsys, *words)
    assert "limited by" in out and f"budget {tmp_path}" in out
    figures = found(capsys, *words)[1]["disk-low"]["figures"]
    assert figures["total_bytes"] == 10**7 and 0 < figures["free_bytes"] <= 10**7


def test_a_save_that_will_not_fit_is_an_error_beforehand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_vault(tmp_path, [10], model=400_000, moments=800_000)
    code, answers = found(capsys, "--dir", tmp_path, "--budget", f"{tmp_path}=2500kB")
    save = answers["next-save-does-not-fit"]
    assert code == 2 and save["status"] == "error" and "the next full save" in save["evidence"]
    assert save["figures"]["saves_that_fit"] == 0
    assert save["figures"]["need_bytes"] > save["figures"]["free_bytes"]


def test_a_warning_is_exit_code_1_with_its_evidence_and_its_fix(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "checkpoint-40").mkdir()
    code, out = doctor(capsys, "--dir", tmp_path)
    lines = out.splitlines()
    said = f"! unsealed-checkpoint: {tmp_path}/checkpoint-40: no seal: trainer_state.json is missing"
    at = next(number for number, line in enumerate(lines) if line.startswith(said))
    assert code == 1 and lines[at + 1].startswith("    fix: mkdir -p") and "Nothing is wrong" not in out


def test_errors_come_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_vault(tmp_path, [10])
    (tmp_path / "checkpoint-10" / MODEL).unlink()
    (tmp_path / "checkpoint-40").mkdir()
    code, out = doctor(capsys, "--dir", tmp_path)
    assert code == 2 and out.index("✗ damaged-checkpoint") < out.index("! unsealed-checkpoint") < out.index("✓ volumes")


def test_a_cut_file_of_a_sealed_one_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_vault(tmp_path, [10])
    os.truncate(tmp_path / "checkpoint-10" / MODEL, 1)
    code, out = doctor(capsys, "--dir", tmp_path)
    assert code == 2 and f"{tmp_path}/checkpoint-10" in out


def test_deletions_that_did_not_finish_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vault = make_vault(tmp_path, [10])
    fill(vault.own / "trash" / "checkpoint-5.0a", 5)
    code, out = doctor(capsys, "--dir", tmp_path)
    assert code == 1 and "of deletions did not finish" in out


def test_a_folder_that_cannot_be_written_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "closed").mkdir()
    with undeletable(tmp_path / "closed"):
        code, out = doctor(capsys, "--dir", tmp_path / "closed")
    assert code == 2 and f"✗ not-writable: {tmp_path}/closed cannot be written to" in out


def test_little_room_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").write_bytes(bytes(990_000))
    code, out = doctor(capsys, "--dir", tmp_path, "--budget", f"{tmp_path}=1MB")
    assert code == 2 and f"(budget {tmp_path})" in out and "fix: outlast clean" in out


def test_a_budget_that_cannot_be_read_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--dir", str(tmp_path), "--budget", "much"]) == 2
    assert "expected DIR=SIZE" in capsys.readouterr().err


def test_an_interpreter_that_is_not_there_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--dir", str(tmp_path), "--python", "/no/python"]) == 2
    assert "there is no interpreter /no/python" in capsys.readouterr().err


def test_a_folder_that_is_not_there_yet_is_said_not_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--dir", tmp_path / "runs", "--budget", f"{tmp_path / 'typo'}=50GB"]
    _, out = doctor(capsys, *words)
    assert out.count(f"(not there yet: figures of {tmp_path})") == 2


def test_a_budget_that_is_overdrawn_shows_by_how_much(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").write_bytes(b"x" * 50_000)
    code, out = doctor(capsys, "--dir", tmp_path, "--budget", f"{tmp_path}=1kB")
    assert code == 2 and "  0 B (" in out and "over)" in out and "  -" not in out


# --fix


def test_fixing_makes_what_can_be_taken_back_and_says_how(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "new" / "torch"))
    code, out = doctor(capsys, "--dir", tmp_path)
    assert code == 1 and not (tmp_path / "new").exists()
    code, out = doctor(capsys, "--dir", tmp_path, "--fix")
    assert code == 0 and (tmp_path / "new" / "torch").is_dir()
    assert f"fixed cache-missing: made {tmp_path}/new/torch" in out
    assert f"    undo: rmdir {tmp_path}/new/torch {tmp_path}/new" in out


def test_fixing_leaves_alone_what_cannot_be_taken_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "checkpoint-40").mkdir()
    (tmp_path / ".cache" / "huggingface" / "hub" / "models--a--b" / "snapshots" / "1").mkdir(parents=True)
    link = tmp_path / ".cache" / "huggingface" / "hub" / "models--a--b" / "snapshots" / "1" / "w"
    link.symlink_to("nothing")
    code, out = doctor(capsys, "--dir", tmp_path, "--fix")
    assert code == 1 and (tmp_path / "checkpoint-40").is_dir() and link.is_symlink() and "fixed" not in out


def test_what_was_fixed_is_in_the_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    _, answers = found(capsys, "--dir", tmp_path, "--fix")
    assert answers["cache-missing"]["status"] == "ok"
    assert answers["cache-missing"]["fixed"] == {
        "done": f"made {tmp_path}/torch",
        "undo": f"rmdir {tmp_path}/torch",
    }


def test_it_does_not_import_torch(tmp_path: Path) -> None:
    code = "import sys, outlast.cli.doctor; sys.exit('torch' in sys.modules or 'huggingface_hub' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
