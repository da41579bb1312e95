"""`outlast checkpoints` and the command line around it, as a user calls them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.builders import MODEL, MOMENTS, flip_bit, kinds, make_vault, names, put_checkpoint, undeletable

from outlast import cli


class Result:
    """What a command left behind."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def facts(self) -> Any:
        return json.loads(self.out)

    @property
    def rows(self) -> dict[str, list[str]]:
        """Lines by their first word."""
        return {line.split()[0]: line.split() for line in self.out.splitlines() if line.strip()}


Command = Callable[..., Result]


@pytest.fixture
def outlast(capsys: pytest.CaptureFixture[str]) -> Command:
    """Call the command line; the exit code is that of the process."""

    def call(*words: object) -> Result:
        code = cli.main([str(word) for word in words])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call


# Around the commands


@pytest.mark.parametrize("word", ["--help", "-h", None])
def test_help_names_every_command(outlast: Command, word: str | None) -> None:
    done = outlast(*([word] if word else []))
    assert done.code == 0
    assert all(f"  {name}" in done.out for name in ("run", "why", "checkpoints", "doctor"))


def test_a_command_that_is_not_there_is_bad_input_with_a_hint(outlast: Command) -> None:
    done = outlast("chekpoints")
    assert done.code == 2 and "there is no command 'chekpoints'" in done.err and "hint: one of: run" in done.err


@pytest.mark.parametrize("command", [["checkpoints"], ["checkpoints", "list"], ["doctor"]])
def test_every_command_has_help_with_its_exit_codes(outlast: Command, command: list[str]) -> None:
    done = outlast(*command, "--help")
    assert done.code == 0 and "Usage: outlast" in done.out
    assert "Exit codes" in done.out or command == ["checkpoints"]


@pytest.mark.parametrize("words", [["list", "--no-such"], ["prune"], ["pin"], ["verify", "--dir"]])
def test_words_that_a_command_does_not_take_are_bad_input(outlast: Command, words: list[str]) -> None:
    assert outlast("checkpoints", *words).code == 2


@pytest.mark.parametrize("words", [["list"], ["verify"], ["prune", "--keep", "last=1"], ["pin", "checkpoint-10"]])
def test_a_folder_without_checkpoints_is_bad_input_with_a_hint(
    outlast: Command, tmp_path: Path, words: list[str]
) -> None:
    done = outlast("checkpoints", *words, "--dir", tmp_path)
    assert done.code == 2 and f"no checkpoints found at or below {tmp_path}" in done.err and "--dir" in done.err
    assert list(tmp_path.iterdir()) == [], "looking writes nothing"


# list


def test_list_shows_checkpoints_oldest_first_with_kind_size_and_notes(outlast: Command, tmp_path: Path) -> None:
    vault = make_vault(tmp_path / "runs", [9, 10])
    put_checkpoint(vault, 11, kind="light", metrics={"loss": 0.25, "other": 9.0})
    vault.pin("checkpoint-9")
    done = outlast("checkpoints", "list", "--dir", tmp_path)
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0] == str(tmp_path / "runs") and lines[1].split() == ["name", "step", "kind", "size", "saved", "notes"]
    assert [line.split()[0] for line in lines[2:]] == ["checkpoint-9", "checkpoint-10", "checkpoint-11"]
    assert done.rows["checkpoint-9"][1:5] == ["9", "full", "45.1", "kB"] and done.rows["checkpoint-9"][-1] == "pinned"
    assert done.rows["checkpoint-11"][2] == "light" and done.rows["checkpoint-11"][-1] == "loss=0.25"


def test_list_shows_what_has_no_seal_and_what_is_damaged(outlast: Command, tmp_path: Path) -> None:
    make_vault(tmp_path, [10])
    os.truncate(tmp_path / "checkpoint-10" / MODEL, 1)
    (tmp_path / "checkpoint-20").mkdir()
    done = outlast("checkpoints", "list", "--dir", tmp_path)
    assert done.rows["checkpoint-10"][2] == "damaged"
    assert done.rows["checkpoint-20"][1:3] == ["no", "seal"] and "trainer_state.json is missing" in done.out


def test_list_as_json_has_sizes_in_bytes(outlast: Command, tmp_path: Path) -> None:
    vault = make_vault(tmp_path)
    put_checkpoint(vault, 10, metrics={"loss": 0.5})
    (tmp_path / "checkpoint-20").mkdir()
    (found,) = outlast("checkpoints", "list", "--dir", tmp_path, "--json").facts
    assert found["root"] == str(tmp_path)
    (checkpoint,) = found["checkpoints"]
    assert checkpoint["bytes"] == vault.get("checkpoint-10").bytes
    assert (checkpoint["name"], checkpoint["step"], checkpoint["kind"]) == ("checkpoint-10", 10, "full")
    assert (checkpoint["metrics"], checkpoint["pinned"]) == ({"loss": 0.5}, False)
    assert found["unsealed"]["checkpoint-20"]["kind"] is None


def test_the_current_folder_is_looked_at_by_default(
    outlast: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_vault(tmp_path, [10])
    monkeypatch.chdir(tmp_path)
    assert "checkpoint-10" in outlast("checkpoints", "list").out


# verify


def test_verify_says_that_all_is_well(outlast: Command, tmp_path: Path) -> None:
    make_vault(tmp_path, [10, 20])
    done = outlast("checkpoints", "verify", "--dir", tmp_path)
    assert done.code == 0
    assert done.rows["checkpoint-10"] == ["checkpoint-10", "full"]
    assert done.rows["checkpoint-20"] == ["checkpoint-20", "full"]


def test_verify_finds_one_flipped_bit_and_ends_with_3(outlast: Command, tmp_path: Path) -> None:
    make_vault(tmp_path, [10, 20])
    flip_bit(tmp_path / "checkpoint-20" / MOMENTS, 999)
    done = outlast("checkpoints", "verify", "--dir", tmp_path)
    assert done.code == 3 and done.rows["checkpoint-20"][1] == "damaged" and MOMENTS in done.out
    assert names(make_vault(tmp_path)) == ["checkpoint-10", "checkpoint-20"], "verifying changes nothing"


def test_verify_takes_a_folder_without_a_seal_for_a_problem(outlast: Command, tmp_path: Path) -> None:
    make_vault(tmp_path, [10])
    (tmp_path / "checkpoint-20").mkdir()
    done = outlast("checkpoints", "verify", "--dir", tmp_path, "--json")
    found = {one["name"]: one for one in done.facts}
    assert done.code == 3 and found["checkpoint-10"]["verifies"] and not found["checkpoint-20"]["verifies"]
    assert found["checkpoint-20"]["problems"][0] == "it has no seal"


def test_verify_reads_only_what_was_named(outlast: Command, tmp_path: Path) -> None:
    make_vault(tmp_path, [10, 20])
    flip_bit(tmp_path / "checkpoint-20" / MODEL)
    done = outlast("checkpoints", "verify", "checkpoint-10", "--dir", tmp_path)
    assert done.code == 0 and "checkpoint-20" not in done.out


@pytest.mark.parametrize("missing", [["checkpoint-99"], ["checkpoint-10", "checkpoint-99"]])
def test_verify_of_a_name_that_is_not_there_does_not_pass(outlast: Command, tmp_path: Path, missing: list[str]) -> None:
    make_vault(tmp_path, [10])
    done = outlast("checkpoints", "verify", *missing, "--dir", tmp_path)
    assert done.code == 2 and "checkpoint-99" in done.err


def test_verify_of_a_named_folder_with_a_torn_seal_says_that_it_has_none(outlast: Command, tmp_path: Path) -> None:
    make_vault(tmp_path, [10])
    (tmp_path / "checkpoint-10" / "outlast.json").write_bytes(b"{")
    done = outlast("checkpoints", "verify", "checkpoint-10", "--dir", tmp_path)
    assert done.code == 3 and "no seal" in done.out


@pytest.mark.parametrize("form", ["checkpoint-10", "checkpoint-10/", "{root}/checkpoint-10", "{root}/checkpoint-10/"])
def test_a_checkpoint_is_known_by_its_name_and_by_its_path(outlast: Command, tmp_path: Path, form: str) -> None:
    make_vault(tmp_path, [10, 20])
    name = form.format(root=tmp_path)
    done = outlast("checkpoints", "verify", name, "--dir", tmp_path, "--json")
    assert done.code == 0 and [one["name"] for one in done.facts] == ["checkpoint-10"]
    assert outlast("checkpoints", "pin", name, "--dir", tmp_path, "--json").facts[0]["pinned"] is True
    assert outlast("checkpoints", "verify", "checkpoint-1", "--dir", tmp_path).code == 2


def test_a_file_that_was_cut_is_named_where_the_rest_still_makes_a_light_one(outlast: Command, tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10])
    os.truncate(tmp_path / "checkpoint-10" / MOMENTS, 5)
    assert f"{MOMENTS} is not as long as it was sealed" in outlast("checkpoints", "list", "--dir", tmp_path).out
    done = outlast("doctor", "--dir", tmp_path)
    assert done.code == 1 and f"cut or overwritten: {MOMENTS}" in done.out
    assert kinds(vault) == {"checkpoint-10": "light"}


# prune


def test_a_misspelt_metric_deletes_nothing(outlast: Command, tmp_path: Path) -> None:
    vault = make_vault(tmp_path)
    for step in (10, 20, 30):
        put_checkpoint(vault, step, metrics={"val_loss": float(step)})
    done = outlast("checkpoints", "prune", "--keep", "last=1,best=1,metric=val_los", "--dir", tmp_path, "--json")
    assert done.code == 2 and "val_loss" in done.facts["hint"] and len(names(vault)) == 3
    done = outlast("checkpoints", "prune", "--keep", "last=1,best=1,metric=val_loss", "--dir", tmp_path)
    assert done.code == 0 and names(vault) == ["checkpoint-10", "checkpoint-30"]
    assert str(tmp_path) in done.out and "kB" in done.out


def test_a_dry_run_says_what_would_go_and_why_and_deletes_nothing(outlast: Command, tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10, 20])
    done = outlast("checkpoints", "prune", "--keep", "last=1", "--dry-run", "--dir", tmp_path)
    assert done.code == 0 and "would delete" in done.out and "not wanted by last=1" in done.out
    assert "among the last 1" in done.out and names(vault) == ["checkpoint-10", "checkpoint-20"]


def test_prune_deletes_what_the_rules_do_not_keep(outlast: Command, tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10, 20, 30])
    done = outlast("checkpoints", "prune", "--keep", "last=1", "--dir", tmp_path, "--json")
    assert done.code == 0 and names(vault) == ["checkpoint-30"]
    assert {one["name"]: one["fate"] for one in done.facts} == {
        "checkpoint-10": "deleted",
        "checkpoint-20": "deleted",
        "checkpoint-30": "keep",
    }
    assert all(one["freed_bytes"] > 0 for one in done.facts if one["fate"] == "deleted")


def test_prune_works_in_a_folder_to_which_checkpoints_were_copied(outlast: Command, tmp_path: Path) -> None:
    make_vault(tmp_path / "runs", [10, 20])
    for step in (10, 20):
        shutil.copytree(tmp_path / "runs" / f"checkpoint-{step}", tmp_path / "copy" / f"checkpoint-{step}")
    done = outlast("checkpoints", "prune", "--keep", "last=1", "--dir", tmp_path / "copy")
    assert done.code == 0 and names(make_vault(tmp_path / "copy")) == ["checkpoint-20"]


def test_what_could_not_be_deleted_is_said_and_ends_with_3(outlast: Command, tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10, 20])
    with undeletable(tmp_path / "checkpoint-10"):
        done = outlast("checkpoints", "prune", "--keep", "last=1", "--dir", tmp_path)
    assert done.code == 3 and "NOT deleted" in done.out and names(vault) == ["checkpoint-10", "checkpoint-20"]


def test_rules_that_cannot_be_read_are_bad_input_with_an_example(outlast: Command, tmp_path: Path) -> None:
    make_vault(tmp_path, [10])
    done = outlast("checkpoints", "prune", "--keep", "newest=1", "--dir", tmp_path)
    assert done.code == 2 and "cannot read 'newest=1'" in done.err and "hint: --keep last=2" in done.err


# pin


def test_a_pinned_checkpoint_outlives_pruning_until_it_is_unpinned(outlast: Command, tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10, 20])
    assert outlast("checkpoints", "pin", "checkpoint-10", "--dir", tmp_path).out.startswith("pinned ")
    outlast("checkpoints", "prune", "--keep", "last=1", "--dir", tmp_path)
    assert names(vault) == ["checkpoint-10", "checkpoint-20"]
    assert outlast("checkpoints", "pin", "checkpoint-10", "--off", "--dir", tmp_path).out.startswith("unpinned ")
    outlast("checkpoints", "prune", "--keep", "last=1", "--dir", tmp_path)
    assert names(vault) == ["checkpoint-20"]


def test_a_checkpoint_that_is_not_there_cannot_be_pinned(outlast: Command, tmp_path: Path) -> None:
    make_vault(tmp_path, [10])
    done = outlast("checkpoints", "pin", "checkpoint-99", "--dir", tmp_path)
    assert done.code == 2 and "no sealed checkpoint 'checkpoint-99'" in done.err


def test_no_command_but_prune_changes_a_checkpoint(outlast: Command, tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10, 20])
    for words in (["list"], ["verify"], ["pin", "checkpoint-10"], ["prune", "--keep", "last=1", "--dry-run"]):
        outlast("checkpoints", *words, "--dir", tmp_path)
    outlast("doctor", "--dir", tmp_path)
    assert kinds(vault) == {"checkpoint-10": "full", "checkpoint-20": "full"}


def test_a_bad_call_of_a_program_is_answered_in_json_too(outlast: Command, tmp_path: Path) -> None:
    done = outlast("checkpoints", "verify", "nothing", "--dir", tmp_path, "--json")
    assert done.code == 2 and set(done.facts) == {"error", "hint"}


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        (["clean", "--nosuch"], "No such option: --nosuch", "outlast clean --help"),
        (["migrate"], "Missing argument 'CACHE'", "outlast migrate --help"),
        (["checkpoints", "lisst"], "No such command 'lisst'", "outlast checkpoints --help"),
        (["checkpoints", "prune", "--lasst"], "No such option: --lasst", "outlast checkpoints prune --help"),
        (["nosuch"], "there is no command 'nosuch'", "see outlast --help"),
    ],
)
def test_a_call_that_cannot_be_read_is_answered_in_json_too(
    outlast: Command, words: list[str], error: str, hint: str
) -> None:
    done = outlast(*words, "--json")
    assert done.code == 2 and error in done.facts["error"] and hint in done.facts["hint"]
    assert f"outlast: {done.facts['error']}\n  hint: {done.facts['hint']}\n" == done.err


def test_json_that_a_guarded_command_is_asked_for_is_none_of_ours(outlast: Command) -> None:
    done = outlast("run", "--nosuch", "--", "true", "--json")
    assert (done.code, done.out) == (2, "") and "No such option: --nosuch" in done.err


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    make_vault(tmp_path, [10])
    for words in (["--help"], ["checkpoints", "list", "--dir", str(tmp_path)]):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run([sys.executable, "-m", "outlast", *words], stdout=writer, stderr=subprocess.PIPE)
        os.close(writer)
        assert done.stderr == b"" and done.returncode != 0
