"""Passing on a command's output: what reaches the log, the terminal and the diagnosis."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from outlast import durable
from outlast.launch.output import Output


class Ends:
    """An `Output` between a command that the test plays and files that the test reads."""

    def __init__(self, folder: Path, *, shared: bool = False) -> None:
        self.log = folder / "err"
        self.err = os.open(self.log, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        self.out = os.dup(self.err) if shared else os.open(folder / "out", os.O_RDWR | os.O_CREAT)
        self.output = Output(self.out, self.err)
        # The command's ends, as it would inherit them.
        self.child = {theirs: os.dup(ours) for ours, theirs in self.output.connect()}
        self.output.start()

    def write(self, stream: int, data: bytes) -> None:
        os.write(self.child[stream], data)

    def stop(self) -> str:
        for fd in self.child.values():
            os.close(fd)
        assert self.output.stop() is None
        os.close(self.out)
        os.close(self.err)
        return self.log.read_bytes().decode()


def test_both_streams_arrive_and_the_end_of_stderr_is_kept(tmp_path: Path):
    ends = Ends(tmp_path)
    ends.write(1, b"to out\n")
    ends.write(2, b"x" * 20_000 + b"\nlast line\n")
    assert ends.stop().endswith("last line\n")
    assert (tmp_path / "out").read_text() == "to out\n"
    assert ends.output.text().endswith("last line\n")
    assert len(ends.output.tail) == 16 * 1024


class EndsJustNow(threading.Event):
    """A command that writes its last line and ends at the moment when it is asked for."""

    def __init__(self, last_words: Callable[[], object]) -> None:
        super().__init__()
        self.last_words = last_words

    def is_set(self) -> bool:
        if not super().is_set():
            self.last_words()
            self.set()
        return super().is_set()


def test_the_last_line_arrives_however_late_it_came_before_the_end(tmp_path: Path):
    err = os.open(tmp_path / "err", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    child: list[int] = []
    ends = EndsJustNow(lambda: os.write(child[0], b"kept\n"))
    output = Output(err, err, _stop=ends)
    child.extend({os.dup(ours) for ours, _ in output.connect()})
    output.start()
    ends.wait()
    assert output.stop() is None
    for fd in (err, *child):
        os.close(fd)
    assert (tmp_path / "err").read_text() == "kept\n"


def test_two_streams_into_one_log_share_one_pipe(tmp_path: Path):
    ends = Ends(tmp_path, shared=True)
    for number in range(50):
        ends.write(1 + number % 2, b"%d\n" % number)
    assert ends.stop().split() == [str(number) for number in range(50)]


def test_our_own_line_starts_on_a_line_of_its_own(tmp_path: Path):
    ends = Ends(tmp_path)
    ends.write(2, b"progress 50%")
    while not ends.output.text():
        pass
    ends.output.line("paused")
    assert ends.stop() == "progress 50%\noutlast: paused\n"


def test_a_status_line_gives_way_to_the_next_output(tmp_path: Path):
    ends = Ends(tmp_path)
    ends.output.status("12 MB free")
    ends.output.status("12 MB free")
    ends.write(2, b"step 1\n")
    assert ends.stop() == "\x1b[2m12 MB free\x1b[0m\r\r\x1b[2Kstep 1\n"


def test_a_status_line_does_not_break_a_progress_bar(tmp_path: Path):
    ends = Ends(tmp_path)
    ends.write(2, b"\rprogress 50%")
    while not ends.output.text():
        pass
    ends.output.status("12 MB free")
    assert ends.stop() == "\rprogress 50%"


def test_what_a_full_log_did_not_take_is_counted_and_told_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ends = Ends(tmp_path)
    write_all, full = durable.write_all, [True]

    def on_a_volume(fd: int, data: bytes) -> None:
        if full[0]:
            raise OSError(errno.ENOSPC, "full")
        write_all(fd, data)

    monkeypatch.setattr(durable, "write_all", on_a_volume)
    ends.write(2, b"lost\n")
    while not ends.output.lost_bytes:
        pass
    full[0] = False
    ends.write(2, b"kept\n")
    assert ends.stop() == "\n[outlast: 5 bytes lost, the log was full]\nkept\n"
    assert ends.output.lost_bytes == 5


def test_the_diagnosis_has_what_the_log_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ends = Ends(tmp_path)

    def full(fd: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(durable, "write_all", full)
    ends.write(2, b"OSError: [Errno 28] No space left on device\n")
    ends.stop()
    assert "No space left" in ends.output.text()
