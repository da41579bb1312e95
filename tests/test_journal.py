"""The journal: written whole or not at all, never in the way of the run, read past whatever a crash left."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast import durable, journal
from tests.builders import python

FACTS = st.dictionaries(
    st.text().filter(lambda name: name not in ("t", "pid", "event")),
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.lists(st.integers()),
    max_size=4,
)


def file_of(one: journal.Journal) -> Path:
    return one.folder / f"{os.getpid()}.jsonl"


def told(one: journal.Journal) -> list[str]:
    return [event.name for event in journal.read(one.home, one.run)]


@given(facts=FACTS, name=st.text())
def test_what_was_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, name: str, facts: dict[str, object]
) -> None:
    one = journal.Journal(tmp_path_factory.mktemp("home"), "run")
    one.write(name, **facts)
    one.close()
    (event,) = journal.read(one.home, "run")
    assert (event.name, event.pid, dict(event.facts)) == (name, os.getpid(), facts)


def test_what_json_does_not_know_is_written_as_text(tmp_path: Path) -> None:
    one = journal.Journal(tmp_path)
    one.write("seen", path=tmp_path, error=ValueError("odd"))
    (event,) = journal.read(tmp_path, one.run)
    assert (event.get("path"), event.get("error"), event.get("absent", 7)) == (str(tmp_path), "odd", 7)


def test_facts_that_no_json_can_hold_do_not_stop_the_run(tmp_path: Path) -> None:
    one = journal.Journal(tmp_path)
    circle: list[object] = []
    circle.append(circle)
    one.write("odd", keys={(1, 2): 3})
    one.write("odder", circle=circle)
    one.write("after")
    assert told(one) == ["odd", "odder", "after"]


def test_a_torn_last_line_is_read_past(tmp_path: Path) -> None:
    one = journal.Journal(tmp_path)
    one.write("first")
    one.write("second")
    one.close()
    whole = file_of(one).read_bytes()
    for length in range(whole.index(b"\n") + 1, len(whole) - 1):
        file_of(one).write_bytes(whole[:length])
        assert told(one) == ["first"]


def test_writing_goes_on_after_a_torn_line(tmp_path: Path) -> None:
    one = journal.Journal(tmp_path, "run")
    one.write("first")
    one.close()
    with file_of(one).open("ab") as file:
        file.write(b'{"t":1.0,"pid":')
    again = journal.Journal(tmp_path, "run")
    again.write("second")
    assert told(again) == ["first", "second"]


def test_foreign_lines_and_what_a_crash_left_behind_are_skipped(tmp_path: Path) -> None:
    one = journal.Journal(tmp_path)
    one.write("mine")
    one.close()
    with file_of(one).open("ab") as file:
        file.write(b'not json\n[1, 2]\n"text"\nnull\n{"event": "no time"}\n\x00\x00\x00\n\xff\xfe\n{"t":"x"}\n')
    (one.folder / "notes.txt").write_text('{"t": 1, "pid": 1, "event": "of another name"}\n')
    assert told(one) == ["mine"]


def test_lines_of_several_processes_come_in_the_order_of_their_time(tmp_path: Path) -> None:
    folder = tmp_path / journal.FOLDER / "journal" / "run"
    folder.mkdir(parents=True)
    (folder / "1.jsonl").write_text('{"t": 1.0, "pid": 1, "event": "first"}\n{"t": 3.0, "pid": 1, "event": "third"}\n')
    (folder / "2.jsonl").write_text('{"t": 2.0, "pid": 2, "event": "second"}\n')
    assert [event.name for event in journal.read(tmp_path, "run")] == ["first", "second", "third"]


def test_a_forked_child_gets_a_file_of_its_own_and_no_line_is_lost_or_doubled(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from outlast.journal import Journal
one = Journal(Path(sys.argv[1]), "run")
one.write("before")
if os.fork() == 0:
    one.write("child")
    os._exit(0)
os.wait()
one.write("after")
"""
    assert python(code, tmp_path).stderr == ""
    found = journal.read(tmp_path, "run")
    assert [event.name for event in found] == ["before", "child", "after"]
    assert found[0].pid == found[2].pid != found[1].pid
    assert len(list((tmp_path / journal.FOLDER / "journal" / "run").iterdir())) == 2


def test_a_folder_that_cannot_be_written_does_not_stop_the_run_and_its_lines_come_later(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("a file where the folder should be")
    one = journal.Journal(home)
    one.write("kept", number=1)
    one.write("kept", number=2)
    home.unlink()
    one.write("written")
    found = journal.read(home, one.run)
    assert [(event.name, event.get("number")) for event in found] == [("kept", 1), ("kept", 2), ("written", None)]
    assert found[0].time <= found[2].time


def test_of_endless_lines_that_cannot_be_written_the_newest_are_kept(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.touch()
    one = journal.Journal(home)
    for number in range(1500):
        one.write("kept", number=number)
    home.unlink()
    one.write("written")
    found = journal.read(home, one.run)
    assert found[-1].name == "written" and found[-2].get("number") == 1499
    assert len(found) == 1000


class FullVolume:
    """A volume that takes a few bytes of a line and is then full, until something gives way."""

    def __init__(self) -> None:
        self.is_full = True
        self.gave_way = 0

    def write_all(self, fd: int, data: bytes | memoryview) -> None:
        if self.is_full:
            os.write(fd, bytes(data)[:5])
            raise OSError(errno.ENOSPC, "No space left on device")
        os.write(fd, data)

    def give_way(self) -> bool:
        self.gave_way += 1
        self.is_full = False
        return True


def test_on_a_full_volume_the_spare_gives_way_and_the_line_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = FullVolume()
    monkeypatch.setattr(durable, "write_all", volume.write_all)
    one = journal.Journal(tmp_path, spare=volume.give_way)
    one.write("in spite of it")
    assert told(one) == ["in spite of it"] and volume.gave_way == 1


def test_on_a_full_volume_without_a_spare_nothing_is_torn_and_the_line_comes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = FullVolume()
    monkeypatch.setattr(durable, "write_all", volume.write_all)
    one = journal.Journal(tmp_path, spare=lambda: False)
    one.write("late")
    assert file_of(one).read_bytes() == b""
    volume.is_full = False
    one.write("next")
    assert told(one) == ["late", "next"]


def test_blocks_reserved_ahead_are_given_back_at_the_end(tmp_path: Path) -> None:
    one = journal.Journal(tmp_path)
    one.write("line")
    one.close()
    assert file_of(one).stat().st_blocks * 512 <= 4096
    one.write("opened again")
    assert told(one) == ["line", "opened again"]


def test_runs_are_listed_oldest_first(tmp_path: Path) -> None:
    made = []
    for _ in range(3):
        one = journal.Journal(tmp_path)
        one.write("line")
        made.append(one.run)
    assert journal.runs(tmp_path) == made and len(set(made)) == 3


def test_where_nothing_was_journaled_there_is_nothing_to_read(tmp_path: Path) -> None:
    assert journal.runs(tmp_path) == [] and journal.read(tmp_path, "run") == []


def test_a_process_below_a_guarded_run_writes_into_that_runs_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(journal.HOME_VARIABLE, str(tmp_path))
    monkeypatch.setenv(journal.RUN_VARIABLE, "guarded")
    assert journal.from_environment(Path("/elsewhere")).folder == tmp_path / journal.FOLDER / "journal" / "guarded"


def test_a_process_of_its_own_writes_where_it_is(tmp_path: Path) -> None:
    assert journal.from_environment(tmp_path).home == tmp_path
