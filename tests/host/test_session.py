"""When a session began."""

from __future__ import annotations

import os
from pathlib import Path

from outlast.host.session import began, this_session


def fake(root: Path, name: str = "init", ticks: int = 500) -> Path:
    (root / "proc/1").mkdir(parents=True)
    rest = " ".join(["S", "0", "1", "1", *["0"] * 15, str(ticks), "0", "0"])
    (root / "proc/1/stat").write_text(f"1 ({name}) {rest}\n")
    (root / "proc/stat").write_text("cpu 1 2 3\nbtime 1790000000\nprocesses 9\n")
    return root


def test_it_began_with_process_1(tmp_path: Path) -> None:
    assert began(root=fake(tmp_path)) == 1790000000 + 500 / os.sysconf("SC_CLK_TCK")


def test_a_name_with_brackets_and_spaces_does_not_shift_the_fields(tmp_path: Path) -> None:
    assert began(root=fake(tmp_path, "a) (b 7 8")) == 1790000000 + 500 / os.sysconf("SC_CLK_TCK")


def test_what_proc_does_not_say_is_not_known(tmp_path: Path) -> None:
    assert began(root=tmp_path) is None
    fake(tmp_path)
    (tmp_path / "proc/stat").write_text("btime\n")
    assert began(root=tmp_path) is None


def test_this_machine_began_in_the_past() -> None:
    now = this_session()
    assert now.began is not None and now.began < os.stat("/proc/self").st_mtime + 60
