"""Finding a run's folders of checkpoints."""

from __future__ import annotations

from pathlib import Path

from tests.builders import make_vault, put_checkpoint

from outlast.checkpoints import vaults_of
from outlast.journal import Journal


def test_a_folder_of_checkpoints_is_found_where_it_is_and_below(tmp_path: Path) -> None:
    make_vault(tmp_path / "runs" / "a", [10])
    (tmp_path / "runs" / "b" / "checkpoint_3").mkdir(parents=True)
    (tmp_path / "runs" / "empty").mkdir()
    assert vaults_of(tmp_path) == [tmp_path / "runs" / "a", tmp_path / "runs" / "b"]
    assert vaults_of(tmp_path / "runs" / "a") == [tmp_path / "runs" / "a"]


def test_a_folder_that_holds_a_journal_alone_is_none(tmp_path: Path) -> None:
    Journal(tmp_path).write("started")
    assert vaults_of(tmp_path) == []


def test_a_folder_of_checkpoints_elsewhere_is_found_by_the_journal(tmp_path: Path) -> None:
    elsewhere = make_vault(tmp_path / "elsewhere", [10])
    journal = Journal(tmp_path / "home")
    journal.write("sealed", root=str(elsewhere.root))
    journal.write("sealed", root=str(tmp_path / "deleted since"))
    assert vaults_of(tmp_path / "home") == [elsewhere.root]


def test_neither_environments_nor_checkpoints_are_searched(tmp_path: Path) -> None:
    make_vault(tmp_path / ".venv" / "runs", [10])
    make_vault(tmp_path / "node_modules", [10])
    vault = make_vault(tmp_path / "runs", [10])
    put_checkpoint(vault, 20)
    (tmp_path / "runs" / "checkpoint-20" / "checkpoint-5").mkdir()
    assert vaults_of(tmp_path) == [tmp_path / "runs"]


def test_links_are_not_followed(tmp_path: Path) -> None:
    make_vault(tmp_path / "outside", [10])
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "link").symlink_to(tmp_path / "outside")
    assert vaults_of(tmp_path / "home") == []


def test_journals_that_name_no_folder_do_not_push_out_those_that_do(tmp_path: Path) -> None:
    elsewhere = make_vault(tmp_path / "elsewhere", [10])
    Journal(tmp_path / "home", "20260101T000000").write("sealed", root=str(elsewhere.root))
    for number in range(5):
        Journal(tmp_path / "home", f"20260102T00000{number}").write("pinned", path="x")
    assert vaults_of(tmp_path / "home") == [elsewhere.root]
