"""The guard's rounds, without its thread: fake clock, fake volume, real journal."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from outlast.guard import Subject, Watch
from outlast.host import Budget, Limit, Room
from outlast.journal import Journal, read

MB = 10**6


@dataclass
class Screen:
    lines: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)

    def line(self, text: str) -> None:
        self.lines.append(text)

    is_busy: bool = False

    def status(self, text: str) -> bool:
        if not self.is_busy:
            self.shown.append(text)
        return not self.is_busy


class World:
    """A run that is watched, with a volume and a clock that the test sets."""

    def __init__(self, home: Path, *, is_terminal: bool = False) -> None:
        self.free, self.now = 40 * MB, 0.0
        self.held: list[bool] = []
        self.screen = Screen()
        self.journal = Journal(home, "r")
        self.watch = Watch(
            Subject(home, "r", is_terminal=is_terminal), self.screen, self.journal.write, self.held.append,
            clock=lambda: self.now, measure=self.measure,
        )  # fmt: skip

    def measure(self, place: Path, budgets: Sequence[Budget]) -> Room:
        return Room(place, 1, (Limit("statvfs", self.free, 45 * MB),), None)

    def look(self, seconds: float = 1.0) -> None:
        self.now += seconds
        self.watch.look()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_the_user_is_told_that_saves_are_guarded(world: World):
    world.journal.write("hooked", supported=True)
    world.look()
    assert "hooked" in world.screen.lines[0]


def test_the_user_is_told_when_nothing_took_the_hooks(world: World):
    world.look(0.5)
    assert world.screen.lines == []
    world.look(5)
    assert "watching only" in world.screen.lines[0]


def test_a_late_handshake_corrects_what_was_said(world: World):
    world.look(5)
    world.journal.write("hooked", supported=True)
    world.look()
    assert any(line.startswith("hooked") for line in world.screen.lines)


def test_an_unhooked_program_is_stopped_below_the_floor_and_goes_on_with_room(world: World):
    world.look(5)
    world.free = MB // 2
    world.look()
    world.free = 30 * MB
    world.look()
    assert world.held == [True, False]
    assert any("paused" in line for line in world.screen.lines)
    names = [event.name for event in read(world.journal.home, "r")]
    assert names == ["mode", "warned", "paused", "continued"]


def test_a_program_stopped_amid_a_save_stays_stopped_until_a_whole_save_fits(world: World):
    for free in (45, 45, 45, 45, 45, 45, 31.6, 31.6, 31.6, 18.2, 18.2, 18.2, 4.8, 4.8, 4.8, 4.8):
        world.free = int(free * MB)
        world.look()
    assert world.held == []
    for free in (4, 4, 4, 4, 12, 12, 12):
        world.free = free * MB
        world.look()
    assert world.held == [True]
    world.free = 18 * MB
    world.look()
    assert world.held == [True, False]


def test_a_hooked_program_is_left_to_its_saves(world: World):
    world.journal.write("hooked", supported=True)
    world.free = 0
    world.look(5)
    world.look(5)
    assert world.held == []


def test_nothing_is_stopped_before_a_handshake_could_have_come(world: World):
    world.free = 0
    world.look(0.5)
    assert world.held == []


def test_a_signal_finds_the_program_running(world: World):
    world.look(5)
    world.free = 0
    world.look()
    world.watch.release()
    world.look()
    assert world.held == [True, False]


def test_without_a_terminal_a_line_comes_only_when_its_meaning_changed_and_not_too_often(world: World):
    world.journal.write("hooked", supported=True)
    for step in (10, 20):
        world.journal.write("sealed", step=step, bytes=13 * MB, root=str(world.watch.subject.home))
    for _ in range(100):
        world.look()
    assert len([line for line in world.screen.lines if "free" in line]) == 1
    world.free = 5 * MB
    for _ in range(100):
        world.look()
    said = [line for line in world.screen.lines if "free" in line]
    assert len(said) == 2 and "the next save makes room first" in said[1]


def test_on_a_terminal_one_line_is_kept_up_to_date(tmp_path: Path):
    world = World(tmp_path, is_terminal=True)
    world.look(5)
    assert world.screen.shown == [f"outlast: 40.0 MB of 45.0 MB free ({world.watch.subject.home})"]


def test_a_save_that_waits_for_room_is_what_the_line_shows(tmp_path: Path):
    world = World(tmp_path, is_terminal=True)
    world.journal.write("hooked", supported=True)
    world.journal.write("paused", why="checkpoint-40 needs 9.0 MB more")
    world.look()
    assert "checkpoint-40 needs 9.0 MB more" in world.screen.shown[-1]


def test_the_thread_hands_over_what_it_died_of(world: World):
    def broken(place: Path, budgets: Sequence[Budget]) -> Room:
        raise RuntimeError("broken gauge")

    world.watch.measure = broken
    world.watch.start(0.0)
    world.watch._thread.join(10)
    assert "broken gauge" in str(world.watch.stop())


def test_a_progress_bar_is_not_broken_by_the_status_line(tmp_path: Path):
    world = World(tmp_path, is_terminal=True)
    world.screen.is_busy = True
    for _ in range(20):
        world.look()
    assert world.screen.shown == []
    assert len([line for line in world.screen.lines if "free" in line]) == 1


def test_a_limit_that_is_close_is_told_once(world: World):
    world.free = 4 * MB
    for _ in range(5):
        world.look()
    assert len([line for line in world.screen.lines if "are left in" in line]) == 1
