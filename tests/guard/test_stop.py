"""Requests to leave: the earliest counts, a reader sees all of one or none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.guard import stop
from outlast.guard.stop import Mailbox, Stop


def test_of_several_requests_the_earliest_counts(tmp_path: Path) -> None:
    late, early = Stop(200.0, "deadline", "the deadline"), Stop(100.0, "notice", "a notice")
    assert stop.ask(tmp_path, "run", late) == late
    assert stop.ask(tmp_path, "run", early) == early
    assert stop.ask(tmp_path, "run", late) == early == stop.asked(tmp_path, "run")


def test_a_mailbox_sees_what_is_asked_replaced_and_taken_back(tmp_path: Path) -> None:
    box = Mailbox(tmp_path, "run")
    assert box.look() is None
    first, second = Stop(2.0, "deadline", "a"), Stop(1.0, "signal", "b")
    stop.put(tmp_path, "run", first)
    assert box.look() == first == box.look()
    stop.put(tmp_path, "run", second)
    assert box.look() == second
    stop.put(tmp_path, "run", None)
    assert box.look() is None


def test_what_is_taken_back_twice_or_was_never_there_is_no_error(tmp_path: Path) -> None:
    stop.put(tmp_path, "run", None)
    stop.put(tmp_path, "run", None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"by": "x", "cause": "a", "why": "b"}',
        "\x00",
        "null",
        "[" * 60_000,
        '{"by": 1e999, "cause": "signal", "why": ""}',
        '{"by": NaN, "cause": "signal", "why": ""}',
        '{"by": 1, "cause": "boredom", "why": ""}',
        '{"by": ' + "9" * 4000 + ', "cause": "signal", "why": ""}',
    ],
)
def test_a_torn_or_foreign_file_asks_for_nothing(tmp_path: Path, text: str) -> None:
    path = stop.path_of(tmp_path, "run")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert stop.asked(tmp_path, "run") is None
    assert Mailbox(tmp_path, "run").look() is None


@given(st.floats(0, 4e9), st.sampled_from(stop.CAUSES), st.text(max_size=80).filter(lambda t: "\ud800" not in t))
def test_what_is_put_is_what_is_asked(
    tmp_path_factory: pytest.TempPathFactory, by: float, cause: str, why: str
) -> None:
    home = tmp_path_factory.mktemp("home")
    stop.put(home, "run", Stop(by, cause, why))
    assert stop.asked(home, "run") == Stop(by, cause, why)


def test_what_is_no_file_holds_nobody_up(tmp_path: Path) -> None:
    """A pipe would be waited for, a device read for ever."""
    path = stop.path_of(tmp_path, "run")
    path.parent.mkdir(parents=True)
    for make in (os.mkfifo, os.mkdir, lambda place: os.symlink("/dev/zero", place)):
        make(path)
        assert stop.asked(tmp_path, "run") is None
        assert Mailbox(tmp_path, "run").look() is None
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    with path.open("wb") as file:
        file.truncate(1 << 32)
    assert stop.asked(tmp_path, "run") is None
