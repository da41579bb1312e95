"""What a user can really write at a path."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.errors import BadInput
from outlast.host import BUDGETS_VARIABLE, Budget, declared_budgets, existing, room

BLOCK = 4096


def figures(*, free: int, total: int = 1000, files: int = 500, free_files: int = 400) -> os.statvfs_result:
    """A file system's figures in blocks; of the free ones two are for root alone."""
    return os.statvfs_result((BLOCK, BLOCK, total, free + 2, free, files, free_files + 2, free_files, 0, 255))


def test_without_a_budget_it_is_what_a_user_may_write_not_what_root_may(tmp_path: Path) -> None:
    found = room(tmp_path, [], statvfs=lambda path: figures(free=10))
    assert (found.free_bytes, found.total_bytes, found.source) == (10 * BLOCK, 1000 * BLOCK, "statvfs")


def test_a_real_folder_has_figures(tmp_path: Path) -> None:
    found = room(tmp_path, [])
    expected = os.statvfs(tmp_path)
    assert found.total_bytes == expected.f_blocks * expected.f_frsize
    assert found.device == os.stat(tmp_path).st_dev


@given(free=st.integers(0, 1000), limit=st.integers(1, 8 << 20), used=st.integers(0, 8 << 20))
def test_it_is_the_least_of_all_limits_and_says_which(free: int, limit: int, used: int) -> None:
    here = Path("/").resolve()
    found = room(here, [Budget(here, limit)], statvfs=lambda path: figures(free=free), used=lambda path: used)
    left = limit - used
    assert found.free_bytes == min(free * BLOCK, left)
    if free * BLOCK != left:
        assert found.source == ("statvfs" if free * BLOCK < left else f"budget {here}")
        assert found.total_bytes == (1000 * BLOCK if free * BLOCK < left else limit)
    assert [one.free_bytes for one in found.limits] == sorted([free * BLOCK, left])


def test_what_cannot_be_read_is_unknown_and_never_nothing(tmp_path: Path) -> None:
    def unreadable(path: str) -> os.statvfs_result:
        raise OSError(5, "I/O error")

    found = room(tmp_path, [], statvfs=unreadable)
    assert found.free_bytes is None and found.total_bytes is None and found.free_inodes is None


def test_a_budget_counts_where_statvfs_cannot_be_read(tmp_path: Path) -> None:
    def unreadable(path: str) -> os.statvfs_result:
        raise OSError(5, "I/O error")

    found = room(tmp_path, [Budget(tmp_path.resolve(), 100)], statvfs=unreadable, used=lambda path: 30)
    assert (found.free_bytes, found.total_bytes) == (70, 100)
    assert found.source == f"budget {tmp_path.resolve()}"


def test_a_budget_counts_what_is_really_below_its_folder(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(b"x" * 10_000)
    before = room(tmp_path / "deep", [Budget(tmp_path.resolve(), 10**6)]).free_bytes
    (tmp_path / "another").write_bytes(b"x" * 50_000)
    after = room(tmp_path / "deep", [Budget(tmp_path.resolve(), 10**6)]).free_bytes
    assert before is not None and after is not None
    assert before < 10**6 - 10_000 and before - after >= 50_000


def test_a_budget_that_is_overdrawn_says_by_how_much(tmp_path: Path) -> None:
    found = room(tmp_path, [Budget(tmp_path.resolve(), 100)], used=lambda path: 500)
    assert found.free_bytes == -400


def test_a_budget_of_another_folder_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "ab").mkdir()
    found = room(tmp_path / "ab", [Budget((tmp_path / "a").resolve(), 1)], statvfs=lambda path: figures(free=7))
    assert found.free_bytes == 7 * BLOCK


def test_a_path_that_does_not_exist_yet_is_measured_where_it_would_be(tmp_path: Path) -> None:
    found = room(tmp_path / "not" / "there", [Budget(tmp_path.resolve(), 100)], used=lambda path: 40)
    assert found.path == tmp_path and found.free_bytes == 60


def test_a_link_into_a_budget_is_held_to_it(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    found = room(tmp_path / "link", [Budget((tmp_path / "real").resolve(), 100)], used=lambda path: 0)
    assert found.free_bytes == 100


def test_a_file_system_that_makes_inodes_on_demand_has_no_number_of_them(tmp_path: Path) -> None:
    assert room(tmp_path, [], statvfs=lambda path: figures(free=1, files=0, free_files=0)).free_inodes is None
    assert room(tmp_path, [], statvfs=lambda path: figures(free=1, files=9, free_files=0)).free_inodes == 0


def test_the_nearest_folder_of_a_file_is_its_own(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert existing(tmp_path / "file") == tmp_path
    assert existing(tmp_path / "file" / "below" / "a file") == tmp_path


def test_a_relative_path_that_is_not_there_is_measured_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert existing(Path("not/there")) == tmp_path


def test_a_budget_is_read_from_folder_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Budget.parse("runs/a=45MB") == Budget(tmp_path.resolve() / "runs/a", 45 * 10**6)
    assert Budget.parse("a=b=1kB").root.name == "a=b"


def test_a_budget_may_name_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Budget.parse("~/runs=1kB").root == tmp_path.resolve() / "runs"


@pytest.mark.parametrize("text", ["", "45MB", "=45MB", "runs", "runs=", "runs=much", "runs=0"])
def test_a_budget_without_folder_or_size_is_refused(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        Budget.parse(text)
    assert caught.value.hint


def test_declared_budgets_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BUDGETS_VARIABLE, f"{tmp_path}=100{os.pathsep}/somewhere=5MB")
    assert declared_budgets() == (Budget(tmp_path.resolve(), 100), Budget(Path("/somewhere"), 5 * 10**6))
    assert room(tmp_path, used=lambda path: 1).free_bytes == 99


def test_without_the_variable_nothing_is_declared() -> None:
    assert declared_budgets({}) == ()
