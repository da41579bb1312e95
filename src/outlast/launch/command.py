"""One attempt: start the command, pass signals on, wait for its end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from outlast.errors import BadInput
from outlast.launch import processes
from outlast.launch.ends import Sent

_TICK_SECONDS = 0.25
FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""Signals that the command gets from us."""
_BLOCKED = (*FORWARDED, signal.SIGINT, signal.SIGCHLD, signal.SIGWINCH)
# Python ignores these two, and an ignored signal stays ignored over exec: the command gets the default back.
_DEFAULTS = (signal.SIGPIPE, signal.SIGXFSZ)


@contextmanager
def signals_waited_for() -> Iterator[set[signal.Signals | int]]:
    """Keep our signals for `wait`, which reads them with their sender; no handler runs.

    Must be entered before any thread is started, since threads inherit the mask.

    Yields:
        The mask as it was, which the command gets.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
    try:
        yield set(before)
    finally:
        # What is still pending was for the command, which has ended: it must not end us in the middle of the summary.
        while signal.sigtimedwait(_BLOCKED, 0):
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start(
    command: Sequence[str],
    environment: Mapping[str, str],
    streams: Sequence[tuple[int, int]],
    mask: set[signal.Signals | int],
) -> int:
    """Start the command in our process group, with stdin as ours.

    Args:
        command: words; no shell.
        environment: all of it.
        streams: pairs of (our descriptor, number in the command).
        mask: blocked signals that the command starts with.

    Returns:
        Its process id.

    Raises:
        BadInput: when it cannot be started.
    """
    actions = [(os.POSIX_SPAWN_DUP2, ours, theirs) for ours, theirs in streams]
    try:
        return os.posix_spawnp(
            command[0], list(command), dict(environment), file_actions=actions, setsigmask=mask, setsigdef=_DEFAULTS
        )
    except OSError as error:
        raise BadInput(
            f"cannot start {command[0]!r}: {os.strerror(error.errno or 0)}",
            hint="outlast run [OPTIONS] -- COMMAND ARGUMENTS; the command is looked up on PATH",
        ) from error


@dataclass(slots=True)
class Ended:
    """How the command's main process ended."""

    status: int
    """Exit code, or minus the signal's number."""
    max_rss_bytes: int
    """Most memory that it held."""
    sent: list[Sent] = field(default_factory=list)
    """Signals that came to us meanwhile."""


def wait(
    pid: int, *, on_tick: Callable[[], None], on_resize: Callable[[], None], takes: Callable[[int, str], bool]
) -> Ended:
    """Wait for the command's end, passing signals on.

    Args:
        pid: the command's main process.
        on_tick: called a few times a second.
        on_resize: called when the terminal has a new size.
        takes: given a signal and its sender; True when it is not to be passed on.
    """
    sent: list[Sent] = []
    while True:
        ended = reap(pid)
        if ended:
            ended.sent = sent
            return ended
        info = signal.sigtimedwait(_BLOCKED, _TICK_SECONDS)
        # After a stop and a continue of ourselves (Ctrl-Z, fg) the kernel answers with signal 0 (measured).
        if info is None or info.si_signo in (0, signal.SIGCHLD):
            on_tick()
        elif info.si_signo == signal.SIGWINCH:
            on_resize()
        else:
            sender = processes.name_of(info.si_pid)
            if takes(info.si_signo, sender):
                continue
            sent.append(Sent(signal.Signals(info.si_signo).name, sender))
            # A terminal sends SIGINT to the whole group: the command has it already.
            if info.si_signo in FORWARDED:
                processes.signal_all([pid], info.si_signo)


def reap(main: int | None) -> Ended | None:
    """Collect all dead children, orphans that became ours too; the main one's end if it is among them."""
    ended = None
    while True:
        try:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        if pid == main:
            ended = Ended(os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024)
