"""Asking a run's trainings to leave, from the supervisor's side."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from outlast.budget.clock import Deadline
from outlast.guard import Story
from outlast.guard import stop as stops
from outlast.guard.stop import Stop
from outlast.journal import Event
from outlast.launch.departure import GRACE_SECONDS, KILL_SECONDS, Departure

NOW = 1000.0
DEADLINE = Deadline(NOW + 3600, "the deadline of 1h")


@dataclass
class Desk:
    """A departure with a clock, a journal and a screen of its own."""

    home: Path
    deadline: Deadline | None = None
    now: float = NOW
    story: Story = field(default_factory=Story)
    lines: list[str] = field(default_factory=list)
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.departure = Departure(
            self.home, "run", self.deadline, lambda: self.story,
            lambda name, **facts: self.events.append((name, facts)), self.lines.append,
            lambda: self.story, lambda: self.now,
        )  # fmt: skip
        self.departure.begin()

    def hears(self, name: str, pid: int = 7, **facts: Any) -> None:
        self.now += 1
        self.story.add([Event(self.now, pid, name, facts)])

    @property
    def asked(self) -> Stop | None:
        return stops.asked(self.home, "run")


def test_the_deadline_is_there_from_the_start_of_each_attempt(tmp_path: Path) -> None:
    desk = Desk(tmp_path, DEADLINE)
    assert desk.asked == Stop(DEADLINE.by, "deadline", DEADLINE.why)
    desk.hears("can_leave")
    assert desk.departure.ask(Stop(desk.now, "memory", "it leaks"))
    assert desk.asked.cause == "memory"
    desk.now += 60
    desk.departure.begin()
    assert desk.asked == Stop(DEADLINE.by, "deadline", DEADLINE.why)


def test_nobody_is_asked_who_would_not_see_it(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    assert not desk.departure.ask(Stop(NOW, "memory", "it leaks"))
    desk.hears("can_leave")
    desk.hears("cannot_leave")
    assert not desk.departure.ask(Stop(NOW, "memory", "it leaks"))
    assert desk.asked is None and not desk.events


def test_the_first_sigterm_becomes_a_request_and_the_second_is_passed_on(tmp_path: Path) -> None:
    desk = Desk(tmp_path, DEADLINE)
    desk.hears("can_leave")
    assert desk.departure.takes(signal.SIGTERM, "process 1 (slurmstepd)")
    assert desk.asked.cause == "signal" and "slurmstepd" in desk.asked.why
    assert desk.departure.takes(signal.SIGTERM, "a parent that passes it on"), "one wish that came twice"
    desk.now += 3
    assert not desk.departure.takes(signal.SIGTERM, "process 1 (slurmstepd)")


def test_a_training_that_was_asked_twice_and_is_still_there_is_killed_once(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.hears("can_leave")
    desk.departure.takes(signal.SIGTERM, "somebody")
    desk.now += 3
    desk.departure.takes(signal.SIGTERM, "somebody")
    assert not desk.departure.is_deaf()
    desk.now += KILL_SECONDS
    assert desk.departure.is_deaf() and not desk.departure.is_deaf()
    desk.departure.takes(signal.SIGTERM, "somebody")
    desk.hears("cannot_leave")
    desk.now += KILL_SECONDS
    assert not desk.departure.is_deaf(), "it has left its steps: its end is its own"


def test_signals_that_ask_for_no_end_and_programs_without_hooks_get_theirs_as_before(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    assert not desk.departure.takes(signal.SIGTERM, "somebody")
    desk.hears("can_leave")
    assert not desk.departure.takes(signal.SIGHUP, "somebody")
    assert not desk.departure.takes(signal.SIGUSR2, "somebody")
    assert desk.departure.takes(signal.SIGUSR1, "somebody")


def test_a_program_without_hooks_gets_sigterm_a_grace_before_the_deadline_once(tmp_path: Path) -> None:
    desk = Desk(tmp_path, DEADLINE)
    desk.now = DEADLINE.by - GRACE_SECONDS - 1
    assert not desk.departure.look()
    desk.now += 1
    assert desk.departure.look()
    assert not desk.departure.look()


def test_a_training_that_leaves_by_itself_has_until_the_deadline(tmp_path: Path) -> None:
    desk = Desk(tmp_path, DEADLINE)
    desk.hears("can_leave")
    desk.now = DEADLINE.by - 1
    assert not desk.departure.look()
    desk.now = DEADLINE.by
    assert desk.departure.look(), "it still trains"


@pytest.mark.parametrize("event", ["stopped", "cannot_leave"])
def test_a_training_that_has_left_or_ended_is_not_touched(tmp_path: Path, event: str) -> None:
    """What the script does after its training, an upload perhaps, goes on until the machine ends it."""
    desk = Desk(tmp_path, DEADLINE)
    desk.hears("can_leave")
    desk.hears(event, cause="deadline", why="", step=3)
    desk.hears("cannot_leave")
    desk.now = DEADLINE.by + 1
    assert not desk.departure.look()


def test_from_where_it_goes_on_is_told_once(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.hears("resumed", step=40)
    desk.departure.look()
    desk.departure.look()
    assert desk.lines == ["goes on from the seal of step 40"]


def test_how_long_it_takes_is_told_once_an_attempt(tmp_path: Path) -> None:
    desk = Desk(tmp_path, DEADLINE)
    desk.hears("pace", step=10, total_steps=28_010, step_seconds=1.44)
    desk.now = NOW
    desk.departure.look()
    desk.departure.look()
    assert [line for line in desk.lines if "28,000" in line] == [
        "28,000 steps need 11.2 h; this session ends in 60 min: 12 sessions"
    ]


def test_a_short_run_without_a_deadline_is_not_told_its_time(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.hears("pace", step=10, total_steps=110, step_seconds=1.0)
    desk.departure.look()
    assert desk.lines == []


def test_what_is_left_is_counted_from_the_newest_seal(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.hears("pace", step=10, total_steps=110, step_seconds=1.0)
    desk.hears("sealed", step=60)
    assert desk.departure.eta().left_steps == 50


def test_a_request_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.hears("can_leave")
    folder = stops.path_of(tmp_path, "run").parent
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("in the way")
    assert not desk.departure.ask(Stop(NOW, "memory", "it leaks"))
    assert desk.events[0][0] == "not_asked" and "cannot be written" in desk.lines[-1]


def test_a_session_that_ends_by_itself_is_pointed_out_to_who_gave_no_deadline(tmp_path: Path) -> None:
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": "1790000000"}
    hint = Desk(tmp_path).departure.hint(job)
    assert hint is not None and "SLURM_JOB_END_TIME" in hint and "--deadline auto" in hint
    assert Desk(tmp_path, DEADLINE).departure.hint(job) is None
    assert Desk(tmp_path).departure.hint({"SLURM_JOB_ID": "7"}) is None


def test_a_training_that_began_since_the_last_look_is_asked_all_the_same(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.now += 1
    desk.departure.reread = lambda: Story({"can_leave": [Event(desk.now, 7, "can_leave", {})]})
    assert desk.departure.takes(signal.SIGTERM, "somebody")
    assert desk.asked is not None
