"""The watch of main memory, round by round: a made-up limit, a clock and a journal in memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from outlast.guard import RamWatch, Story
from outlast.guard.ram_watch import timings
from outlast.host import MemoryLimit
from outlast.journal import Event

MB = 10**6


class World:
    """A command whose memory the test sets."""

    def __init__(self, *, can_leave: bool = True, folder: str | None = "/g", is_shared: bool = False) -> None:
        self.now, self.can_leave, self.heard = 0.0, can_leave, can_leave
        self.limit: MemoryLimit | None = MemoryLimit(folder, False, 1000 * MB, 300 * MB, 0, is_shared)
        self.asked: list[str] = []
        self.lines: list[str] = []
        self.events: list[tuple[str, dict[str, object]]] = []
        self.story, self.found, self.own = Story(), 0, 0
        self.watch = RamWatch(
            7, self.ask, self.record, self.lines.append,
            clock=lambda: self.now, find=self.find, again=lambda limit: self.limit or limit, own=lambda pid: self.own,
        )  # fmt: skip

    def ask(self, why: str) -> bool:
        self.asked.append(why)
        return self.heard

    def record(self, name: str, **facts: object) -> None:
        self.events.append((name, facts))
        self.story.add([Event(self.now, 1, name, dict(facts))])

    def find(self, pid: int) -> MemoryLimit | None:
        self.found += 1
        return self.limit

    def go(self, seconds: float, pace: float = 0.0, every: float = 0.25) -> None:
        """Time goes on; memory grows by so many bytes a second."""
        for _ in range(int(seconds / every)):
            self.now += every
            if self.limit is not None:
                self.limit = replace(self.limit, held_bytes=int(self.limit.held_bytes + pace * every))
            self.watch.look(self.story, can_leave=self.can_leave)


def test_a_training_that_grows_is_asked_once_in_time() -> None:
    world = World()
    world.go(11, 60 * MB)
    assert len(world.asked) == 1
    assert "of 1.0 GB of main memory are held, 3.6 GB more each minute: the limit comes in" in world.asked[0]
    assert world.events == [], "who takes the request journals it"


def test_what_is_loaded_before_the_first_step_is_not_judged() -> None:
    world = World(can_leave=False)
    world.go(10, 60 * MB)
    world.can_leave = True
    world.go(20)
    assert world.asked == [] and world.lines == []


def test_what_cannot_be_asked_is_only_told_and_never_ended() -> None:
    world = World(can_leave=False)
    world.go(61)
    world.go(11, 60 * MB)
    ((name, facts),) = world.events
    assert name == "memory_close" and "more each minute" in str(facts["why"])
    (line,) = world.lines
    assert line.endswith("The kernel may kill it: nothing in it can be asked to save first")


def test_after_the_last_step_nothing_is_said_of_what_grew_in_training() -> None:
    world = World()
    world.go(6, 60 * MB)
    world.can_leave = world.heard = False
    world.go(20)
    assert world.lines == []


def test_growth_that_is_not_ours_is_told_and_nobody_is_asked() -> None:
    world = World(folder=None, is_shared=True)
    world.own = 100 * MB
    world.go(11, 60 * MB)
    assert world.asked == [] and world.lines[0].endswith("a restart would not give it back")
    world = World(folder=None, is_shared=True)
    for _ in range(44):
        world.own += 15 * MB
        world.go(0.25, 60 * MB)
    assert len(world.asked) == 1


def test_a_steady_leak_is_told_once_with_its_pace_and_its_end() -> None:
    world = World()
    world.go(1500, MB / 6)
    assert [name for name, _ in world.events] == ["leak_found"]
    assert world.events[0][1]["bytes_per_minute"] == pytest.approx(10 * MB, rel=0.02)
    assert len(world.lines) == 1 and "10.0 MB a minute" in world.lines[0]


def test_a_leak_too_slow_for_ten_minutes_is_found_in_the_whole_run() -> None:
    world = World()
    world.go(6 * 3600, 0.4 * MB / 60, every=10)
    assert [name for name, _ in world.events] == ["leak_found"]


def test_where_nothing_can_be_read_nothing_is_said() -> None:
    world = World()
    world.limit = None
    world.go(20)
    assert (world.asked, world.lines, world.events) == ([], [], [])


def test_the_limit_is_looked_for_now_and_then_and_only_read_between() -> None:
    world = World()
    world.go(60)
    assert world.found <= 13


def event(time: float, name: str, **facts: object) -> Event:
    return Event(time, 7, name, dict(facts))


def test_step_and_save_times_are_those_of_the_journal() -> None:
    story = Story()
    assert timings(story) == (None, None)
    story.add([event(10, "sealed", step=10, seconds=2.0)])
    assert timings(story) == (None, 2.0)
    story.add([event(40, "sealed", step=20, seconds=5.0), event(50, "sealed", step=30)])
    assert timings(story) == (3.0, 5.0)
    story.add([event(60, "pace", step=40, step_seconds=0.5)])
    assert timings(story) == (0.5, 5.0)
    odd = Story()
    odd.add([event(1, "sealed", step="x"), event(2, "sealed", step=5, seconds=1.0), event(3, "sealed", step=5)])
    assert timings(odd) == (None, 1.0)
