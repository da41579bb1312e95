"""From a notice to the request that the training leaves; without the thread, but for where it is what is tested."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.metadata_server import ACTION, clouds

from outlast.guard import Lookout
from outlast.guard.stop import Stop
from outlast.host import Notice
from outlast.host.metadata import Answer
from outlast.journal import Journal, read

END = Notice(1000.0, True, "AWS EC2, /spot", "AWS will terminate this spot instance")
GUESS = Notice(930.0, False, "Google Cloud, /preempted", "Google Cloud preempts this machine")
RISK = Notice(None, False, "AWS EC2, /rebalance", "AWS sees a higher risk")
QUIET = Answer((), None)


class World:
    """A run whose machine's end the test announces."""

    def __init__(self, home: Path) -> None:
        self.home, self.answer = home, QUIET
        self.lines: list[str] = []
        self.asked: list[Stop] = []
        self.journal = Journal(home, "r")
        self.lookout = self.made(lambda: self.answer)

    def made(self, read: Callable[[], Answer] | None) -> Lookout:
        return Lookout(self.lines.append, self.journal.write, self.ask, read, clock=lambda: 900.0)

    def ask(self, stop: Stop) -> bool:
        self.asked.append(stop)
        return True

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
    assert world.asked == []
    world.look(Answer((END,), None))
    assert world.asked == [Stop(1000.0, "notice", END.text)]
    assert world.lines == ["AWS will terminate this spot instance, in 100.0 s (AWS EC2, /spot)"]


def test_it_is_said_once_and_asked_in_each_round_since_the_training_may_be_another(world: World) -> None:
    for _ in range(3):
        world.look(Answer((END,), None))
    assert len(world.lines) == len(world.told("notice")) == 1
    assert world.asked == 3 * [Stop(1000.0, "notice", END.text)]


def test_a_time_that_nobody_told_is_said_to_be_the_least(world: World) -> None:
    world.look(Answer((GUESS,), None))
    assert world.lines == ["Google Cloud preempts this machine, in no less than 30.0 s (Google Cloud, /preempted)"]


def test_a_warning_that_may_come_to_nothing_is_said_and_stops_nothing(world: World) -> None:
    world.look(Answer((RISK,), None))
    assert world.asked == []
    assert world.lines == ["AWS sees a higher risk (AWS EC2, /rebalance)"]


def test_a_server_that_does_not_answer_is_journaled_once_and_not_shown(world: World) -> None:
    for _ in range(3):
        world.look(Answer((), "/latest/api/token: timed out"))
    assert [event["why"] for event in world.told("notices_unread")] == ["/latest/api/token: timed out"]
    assert world.lines == []


# The thread


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "outlast-lookout"]


def test_where_nobody_can_be_asked_there_is_no_thread(world: World) -> None:
    lookout = world.made(None)
    lookout.start()
    assert threads() == []
    assert lookout.stop() is None


def test_the_thread_asks_by_itself_and_ends_when_told(world: World) -> None:
    with clouds() as cloud:
        cloud.answers[ACTION] = '{"action": "stop", "time": "2027-01-15T08:02:00Z"}'
        environment = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": cloud.url}
        lookout = Lookout.here(world.lines.append, world.journal.write, world.ask, environment)
        lookout.start()
        assert threads() == ["outlast-lookout"]
        while not world.asked:
            assert threads(), "it died"
        assert lookout.stop() is None
    assert threads() == []
    assert world.told("lookout")[0]["provider"] == "aws"


def test_what_the_thread_died_of_is_handed_over(world: World) -> None:
    def breaks() -> Answer:
        raise RuntimeError("a bug")

    lookout = world.made(breaks)
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

    lookout = world.made(slow)
    lookout.start()
    waits.wait(60)
    lookout.stop()
    goes_on.set()
    while threads():
        pass
    assert world.lines == [] and world.asked == []
