"""Reading a journal as it grows, and what it tells."""

from pathlib import Path

from outlast.guard import Story, Tail
from outlast.journal import Event, Journal


def test_each_line_is_read_once_from_all_processes(tmp_path: Path):
    one = Journal(tmp_path, "r")
    tail = Tail(tmp_path, "r")
    one.write("started")
    (one.folder / "77.jsonl").write_text('{"t":1.5,"pid":77,"event":"hooked","supported":true}\n')
    assert [event.name for event in tail.news()] == ["hooked", "started"]
    assert tail.news() == []
    one.write("ended")
    assert [event.name for event in tail.news()] == ["ended"]


def test_a_torn_last_line_is_read_when_it_is_whole(tmp_path: Path):
    folder = tmp_path / ".outlast/journal/r"
    folder.mkdir(parents=True)
    file = folder / "5.jsonl"
    file.write_text('{"t":1,"pid":5,"event":"a"}\n{"t":2,"pid":5,')
    tail = Tail(tmp_path, "r")
    assert [event.name for event in tail.news()] == ["a"]
    with file.open("a") as more:
        more.write('"event":"b"}\n')
    assert [event.name for event in tail.news()] == ["b"]


def test_foreign_lines_are_read_past(tmp_path: Path):
    folder = tmp_path / ".outlast/journal/r"
    folder.mkdir(parents=True)
    (folder / "5.jsonl").write_text('[]\n3\n\0\0\n{"t":1,"pid":5,"event":"a"}\n')
    assert [event.name for event in Tail(tmp_path, "r").news()] == ["a"]


def test_a_journal_that_is_not_there_yet_has_no_news(tmp_path: Path):
    assert Tail(tmp_path, "r").news() == []


def told(*events: tuple[float, str, dict[str, object]]) -> Story:
    story = Story()
    story.add(Event(time, 1, name, facts) for time, name, facts in events)
    return story


def test_the_newest_seal_or_resume_is_the_way_back():
    story = told((1, "sealed", {"step": 10}), (3, "resumed", {"step": 10}), (2, "sealed", {"step": 20}))
    assert story.sealed_step() == 10


def test_an_old_interpreter_is_not_hooked():
    assert not told((1, "hooked", {"supported": False})).hooked()
    assert told((1, "hooked", {"supported": True})).hooked()
    assert not told((1, "hooked", {"supported": True})).hooked(since=2)


def test_a_pause_lasts_until_it_goes_on():
    story = told((1, "paused", {}))
    assert story.is_waiting()
    story.add([Event(2, 1, "continued", {})])
    assert not story.is_waiting()
