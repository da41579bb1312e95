"""`outlast migrate`: what a user sees."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from outlast import cli


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    blobs = home / ".cache" / "huggingface" / "hub" / "models--a--b" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "x").write_bytes(os.urandom(50_000))
    return blobs.parent.parent


def migrate(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    try:
        code = cli.main(["migrate", *map(str, words)])
    except SystemExit as end:
        assert isinstance(end.code, int)
        code = end.code
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_plan_is_shown_then_done(hub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = migrate(capsys, "hf-hub", tmp_path / "new" / "hub")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == f"{hub} -> {tmp_path}/new/hub" and lines[-1].startswith("freed: ")
    assert "both are on one volume" in out and f"switched: {hub} is now at" in out
    assert hub.readlink() == tmp_path / "new" / "hub"


def test_a_dry_run_changes_nothing(hub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = migrate(capsys, "hf-hub", tmp_path / "new", "--dry-run")
    assert code == 0 and "a symbolic link stays" in out
    assert not hub.is_symlink() and os.listdir(tmp_path) == ["home"]


def test_the_variable_is_printed_last_for_a_shell(
    hub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = migrate(capsys, "hf-hub", tmp_path / "a b" / "hub", "--env")
    assert code == 0 and out.splitlines()[-1] == f"export HF_HUB_CACHE='{tmp_path}/a b/hub'"
    assert not hub.exists() and (tmp_path / "a b" / "hub" / "models--a--b").is_dir()


def test_a_program_gets_one_document(hub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = migrate(capsys, "hf-hub", tmp_path / "new", "--json")
    found = json.loads(out)
    assert code == 0 and found["moved"] and found["kept"] is None and found["bytes"] >= 50_000
    assert (found["source"], found["target"]) == (str(hub), str(tmp_path / "new"))


def test_what_is_there_already_is_said_to_be(hub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    migrate(capsys, "hf-hub", tmp_path / "new")
    code, out, _ = migrate(capsys, "hf-hub", tmp_path / "new")
    assert code == 0 and "it is there already" in out
    code, _, err = migrate(capsys, "hf-hub", tmp_path / "newer")
    assert code == 2 and f"is a link already: it is at {tmp_path}/new" in err and "hint: to move it on" in err


@pytest.mark.parametrize("words", [("nonsense", "/data/x"), ("/usr", "/data/x"), ("~", "/data/x"), ("hf-hub", "~")])
def test_what_is_never_moved_is_bad_input(
    hub: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, str]
) -> None:
    code, _, err = migrate(capsys, *words)
    assert code == 2 and "hint: " in err and hub.is_dir()


def test_what_is_in_use_is_an_error_that_names_who(
    hub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (hub / "models--a--b" / "blobs" / "x").open("rb"):
        code, out, err = migrate(capsys, "hf-hub", tmp_path / "new")
    assert code == 1 and f"{os.getpid()} (" in err and "not now: " in out
