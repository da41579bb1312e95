"""Leaving in time: what a training does when it is asked to, in processes of its own where signals are real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.builders import python

from outlast.budget.clock import Deadline
from outlast.guard import stop as stops
from outlast.guard.stop import Stop
from outlast.journal import HOME_VARIABLE, RUN_VARIABLE, Journal, read
from outlast.train.leaving import Leaving, Stopped, patience


def _steps_for(seconds: float) -> Iterator[int]:
    """Steps of a hundredth of a second each."""
    for step in range(2, 2 + int(seconds * 100)):
        time.sleep(0.01)
        yield step


FAR = Deadline(time.time() + 86400, "the deadline of a day")


@pytest.fixture
def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path))
    monkeypatch.setenv(RUN_VARIABLE, "run")
    return tmp_path


def test_nothing_asked_nothing_due(tmp_path: Path) -> None:
    leaving = Leaving(Journal(tmp_path))
    assert [leaving.after_step(step) for step in range(5)] == [None] * 5


def test_a_deadline_far_away_lets_it_train_and_one_that_is_near_does_not(tmp_path: Path) -> None:
    assert Leaving(Journal(tmp_path), deadline=FAR).after_step(1) is None
    near = Deadline(time.time() + 1, "the deadline of 1s")
    assert Leaving(Journal(tmp_path), deadline=near).after_step(1) == Stop(near.by, "deadline", near.why)


def test_a_slow_save_makes_it_leave_earlier(tmp_path: Path) -> None:
    deadline = Deadline(time.time() + 60, "the deadline of 60s")
    leaving = Leaving(Journal(tmp_path), deadline=deadline, save_bytes=lambda: 10_000_000_000)
    leaving.begin(signals=())
    assert leaving.after_step(1) is not None  # 10 GB were never measured: minutes, by the guess
    leaving.pace.save(1.0)
    assert leaving.after_step(2) is None
    leaving.end()


def test_what_is_asked_of_the_run_is_heard_between_steps(guarded: Path) -> None:
    leaving = Leaving(Journal(guarded, "run"))
    assert leaving.after_step(1) is None
    asked = Stop(time.time(), "memory", "it leaks")
    stops.put(guarded, "run", asked)
    heard = [leaving.after_step(step) for step in _steps_for(1.0)]
    assert set(heard) == {None, asked}, "looked at a few times a second, not after each step"


@pytest.mark.parametrize(("cause", "code"), [("deadline", 0), ("notice", 0), ("signal", 0), ("memory", 1)])
def test_it_leaves_with_its_step_in_the_journal(tmp_path: Path, cause: str, code: int) -> None:
    journal = Journal(tmp_path, "run")
    with pytest.raises(Stopped) as found:
        Leaving(journal).leave(Stop(1.0, cause, "because"), 42)
    assert (found.value.code, found.value.step) == (code, 42)
    assert "42" in str(found.value) and "because" in str(found.value)
    [event] = [event for event in read(tmp_path, "run") if event.name == "stopped"]
    assert (event.get("step"), event.get("cause")) == (42, cause)


def test_without_a_supervisor_it_says_itself_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Stopped):
        Leaving(Journal(tmp_path)).leave(Stop(1.0, "deadline", "the deadline of 9h"), 42)
    said = capsys.readouterr().err
    assert "step 42" in said and "9h" in said and "start the same command again" in said


def test_signals_do_again_what_they_did_before_once_training_is_over(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    leaving = Leaving(Journal(tmp_path))
    leaving.begin()
    assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    leaving.end()
    leaving.end()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == before


def test_a_handler_of_the_programs_own_stays(tmp_path: Path) -> None:
    def own(*_: object) -> None: ...

    before = signal.signal(signal.SIGTERM, own)
    try:
        leaving = Leaving(Journal(tmp_path, "run"))
        leaving.begin()
        assert signal.getsignal(signal.SIGTERM) is own
        leaving.end()
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)
    [event] = [event for event in read(tmp_path, "run") if event.name == "can_leave"]
    assert event.get("signals") == ["SIGUSR1"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_a_request_to_leave(tmp_path: Path, number: signal.Signals) -> None:
    leaving = Leaving(Journal(tmp_path))
    leaving.begin()
    try:
        assert leaving.after_step(1) is None
        os.kill(os.getpid(), number)
        stop = leaving.after_step(2)
        assert stop is not None and stop.cause == "signal" and number.name in stop.why
    finally:
        leaving.end()


def test_a_signal_that_comes_again_later_ends_it_as_without_outlast(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, time\nfrom pathlib import Path\nfrom outlast.journal import Journal\n"
        "from outlast.train.leaving import Leaving\n"
        "Leaving(Journal(Path(sys.argv[1]))).begin()\n"
        "os.kill(os.getpid(), signal.SIGTERM); os.kill(os.getpid(), signal.SIGTERM); print('alive', flush=True)\n"
        "time.sleep(2.1); os.kill(os.getpid(), signal.SIGTERM); print('still alive')"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "alive\n")


def test_a_forked_worker_dies_of_sigterm_so_that_its_pool_can_end(tmp_path: Path) -> None:
    code = (
        "import multiprocessing, sys, time\nfrom pathlib import Path\nfrom outlast.journal import Journal\n"
        "from outlast.train.leaving import Leaving\n"
        "Leaving(Journal(Path(sys.argv[1]))).begin()\n"
        "child = multiprocessing.get_context('fork').Process(target=time.sleep, args=(600,))\n"
        "child.start(); child.terminate(); child.join(60); print(child.exitcode)"
    )
    assert python(code, str(tmp_path)).stdout.strip() == str(-signal.SIGTERM)


def test_a_save_that_waits_for_room_is_given_up_when_the_time_has_come(guarded: Path) -> None:
    leaving = Leaving(Journal(guarded, "run"))
    leaving.begin(signals=())
    try:
        patience(0.0)
        stops.put(guarded, "run", Stop(time.time() - 1, "signal", "it was asked to stop"))
        with pytest.raises(SystemExit) as found:
            patience(0.0)
    finally:
        leaving.end()
    assert found.value.code == 128 + signal.SIGTERM
    [event] = [event for event in read(guarded, "run") if event.name == "stopped"]
    assert event.get("step") is None


def test_its_pace_is_journaled_once_it_is_known(tmp_path: Path) -> None:
    leaving = Leaving(Journal(tmp_path, "run"))
    leaving.total_steps = 1000
    leaving.begin(signals=())
    leaving._began -= 60  # a minute ago
    for step in range(1, 20):
        leaving.after_step(step)
    leaving.end()
    paces = [event for event in read(tmp_path, "run") if event.name == "pace"]
    assert len(paces) == 1 and paces[0].get("total_steps") == 1000
