"""From a notice to the request that the training leaves; without the thread, but for where it is what is tested."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.metadata_server import ACTION, clouds

from outlast.guard import Lookout, Subject
from outlast.guard.stop import Stop, ask, asked
from outlast.host import Notice
from outlast.host.metadata import Answer
from outlast.journal import Journal, read

END = Notice(1000.0, True, "AWS EC2, /spot", "AWS will terminate this spot instance")
GUESS = Notice(930.0, False, "Google Cloud, /preempted", "Google Cloud preempts this machine")
RISK = Notice(None, False, "AWS EC2, /rebalance", "AWS sees a higher risk")
QUIET = Answer((), None)


@dataclass
class Screen:
    lines: list[str] = field(default_factory=list)

    def line(self, text: str) -> None:
        self.lines.append(text)

    def status(self, text: str) -> bool:
        return True


class World:
    """A run whose machine's end the test announces."""

    def __init__(self, home: Path) -> None:
        self.home, self.answer, self.screen = home, QUIET, Screen()
        self.journal = Journal(home, "r")
        self.lookout = Lookout(
            Subject(home, "r"), self.screen, self.journal.write, lambda: self.answer, clock=lambda: 900.0
        )

    def look(self, answer: Answer) -> None:
        self.answer = answer
        self.lookout.look()

    def told(self, name: str) -> list[dict[str, object]]:
        return [dict(event.facts) for event in read(self.home, "r") if event.name == name]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_an_end_that_is_announced_asks_the_training_to_leave_by_then(world: World) -> None:
    world.look(QUIET)
    assert asked(world.home, "r") is None
    world.look(Answer((END,), None))
    assert asked(world.home, "r") == Stop(1000.0, "notice", END.text)
    assert world.screen.lines == ["AWS will terminate this spot instance, in 100.0 s (AWS EC2, /spot)"]


def test_it_is_said_and_asked_once(world: World) -> None:
    for _ in range(3):
        world.look(Answer((END,), None))
    assert len(world.screen.lines) == len(world.told("notice")) == 1


def test_of_several_ends_the_earliest_counts(world: World) -> None:
    world.look(Answer((END,), None))
    world.look(Answer((END, GUESS), None))
    assert asked(world.home, "r") == Stop(930.0, "notice", GUESS.text)
    assert "in no less than 30.0 s" in world.screen.lines[-1]


def test_an_earlier_deadline_stays(world: World) -> None:
    ask(world.home, "r", Stop(500.0, "deadline", "the deadline of 9h"))
    world.look(Answer((END,), None))
    assert asked(world.home, "r") == Stop(500.0, "deadline", "the deadline of 9h")


def test_a_warning_that_may_come_to_nothing_is_said_and_stops_nothing(world: World) -> None:
    world.look(Answer((RISK,), None))
    assert asked(world.home, "r") is None
    assert world.screen.lines == ["AWS sees a higher risk (AWS EC2, /rebalance)"]


def test_a_server_that_does_not_answer_is_journaled_once_and_not_shown(world: World) -> None:
    for _ in range(3):
        world.look(Answer((), "/latest/api/token: timed out"))
    assert [event["why"] for event in world.told("notices_unread")] == ["/latest/api/token: timed out"]
    assert world.screen.lines == []


def test_a_request_that_cannot_be_written_is_tried_again(world: World) -> None:
    stop = world.home / ".outlast/journal/r/stop"
    stop.mkdir(parents=True)
    for _ in range(2):
        world.look(Answer((END,), None))
    assert len([line for line in world.screen.lines if "could not be asked" in line]) == 1
    stop.rmdir()
    world.look(Answer((END,), None))
    assert asked(world.home, "r") == Stop(1000.0, "notice", END.text)


# The thread


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "outlast-lookout"]


def test_where_nobody_can_be_asked_there_is_no_thread(world: World) -> None:
    lookout = Lookout(Subject(world.home, "r"), world.screen, world.journal.write, None)
    lookout.start()
    assert threads() == []
    assert lookout.stop() is None


def test_the_thread_asks_by_itself_and_ends_when_told(world: World) -> None:
    with clouds() as cloud:
        cloud.answers[ACTION] = '{"action": "stop", "time": "2027-01-15T08:02:00Z"}'
        environment = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": cloud.url}
        lookout = Lookout.here(Subject(world.home, "r"), world.screen, world.journal.write, environment)
        lookout.start()
        assert threads() == ["outlast-lookout"]
        while asked(world.home, "r") is None:
            assert threads(), "it died"
        assert lookout.stop() is None
    assert threads() == []
    assert world.told("lookout")[0]["provider"] == "aws"


def test_what_the_thread_died_of_is_handed_over(world: World) -> None:
    def breaks() -> Answer:
        raise RuntimeError("a bug")

    lookout = Lookout(Subject(world.home, "r"), world.screen, world.journal.write, breaks)
    lookout.start()
    while threads():
        pass
    assert isinstance(lookout.stop(), RuntimeError)
    assert lookout.stop() is None


def test_a_thread_that_waits_for_a_slow_server_says_nothing_when_the_run_is_over(world: World) -> None:
    waits, goes_on = threading.Event(), threading.Event()

    def slow() -> Answer:
        waits.set()
        goes_on.wait(60)
        return Answer((END,), None)

    lookout = Lookout(Subject(world.home, "r"), world.screen, world.journal.write, slow)
    lookout.start()
    waits.wait(60)
    lookout.stop()
    goes_on.set()
    while threads():
        pass
    assert world.screen.lines == [] and asked(world.home, "r") is None
