"""The command's output: passed on, its end kept for the diagnosis, and never the death of the command.

A terminal's stdout is inherited (full-screen programs set modes on it) and its stderr goes through a pseudo-terminal;
a log file is written through a pipe by us, since a `print` to a log on a full volume ends the program (guard.md,
trap 6); a pipe is inherited for stdout. stdin is always inherited.
"""

from __future__ import annotations

import errno
import fcntl
import os
import selectors
import stat
import struct
import termios
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

from outlast import durable

_CHUNK = 65536
_TAIL_BYTES = 16 * 1024
_DRAIN_SECONDS = 0.5
_CLEAR = b"\r\x1b[2K"

ROUTES = {
    ("stdout", "terminal"): "inherit",
    ("stdout", "file"): "pipe",
    ("stdout", "other"): "inherit",
    ("stderr", "terminal"): "pty",
    ("stderr", "file"): "pipe",
    ("stderr", "other"): "pipe",
}
"""How each stream of the command is connected, by what ours is."""


@dataclass(slots=True)
class _Route:
    source: int
    """End that we read."""
    child: int
    """End that the command writes to."""
    sink: int
    """Our own stream."""
    lost_bytes: int = 0
    """Output that a full volume did not take."""
    is_open: bool = True


@dataclass(slots=True)
class Output:
    """The streams of one attempt, and the thread that passes them on.

    Args:
        out: our stdout.
        err: our stderr.
    """

    out: int = 1
    err: int = 2
    tail: bytearray = field(default_factory=bytearray)
    """Last bytes of stderr."""
    lost_bytes: int = 0
    """Output that a full log volume did not take, in all."""
    _routes: list[_Route] = field(default_factory=list)
    _thread: threading.Thread | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _died_of: BaseException | None = None
    _status: str = ""
    _at_line_start: bool = True

    def connect(self) -> list[tuple[int, int]]:
        """Make the command's ends; pairs of (descriptor, number that it gets in the command)."""
        pairs: list[tuple[int, int]] = []
        kinds = {"stdout": _kind(self.out), "stderr": _kind(self.err)}
        shared = kinds["stderr"] != "terminal" and _is_same(self.out, self.err)
        error_route = self._route(ROUTES["stderr", kinds["stderr"]], self.err)
        if error_route:
            pairs.append((error_route.child, 2))
        if shared and error_route:
            # One file for both (`> log 2>&1`): one pipe for both keeps the order of the lines.
            pairs.append((error_route.child, 1))
        elif out_route := self._route(ROUTES["stdout", kinds["stdout"]], self.out):
            pairs.append((out_route.child, 1))
        return pairs

    def _route(self, how: str, sink: int) -> _Route | None:
        if how == "inherit":
            return None
        source, child = os.openpty() if how == "pty" else os.pipe()
        if how == "pty":
            _raw_like(sink, child)
        route = _Route(source, child, sink)
        self._routes.append(route)
        return route

    def start(self) -> None:
        """Close the command's ends on our side and begin to pass on."""
        for route in self._routes:
            os.close(route.child)
        if self._routes:
            self._thread = threading.Thread(target=self._run, name="outlast-output", daemon=True)
            self._thread.start()

    def stop(self) -> BaseException | None:
        """Pass on what is still there and end the thread; returns what it died of."""
        self._stop.set()
        if self._thread:
            self._thread.join()
        for route in self._routes:
            with suppress(OSError):
                os.close(route.source)
        self._routes.clear()
        return self._died_of

    def resized(self) -> None:
        """The terminal has a new size: so has the command's."""
        for route in self._routes:
            with suppress(OSError):
                _copy_size(route.sink, route.source)

    def line(self, text: str) -> None:
        """Write one line of ours to stderr; a full or closed stderr is no reason to stop."""
        with self._lock:
            self._clear()
            start = b"" if self._at_line_start else b"\n"
            self._put(self.err, start + f"outlast: {text}\n".encode(errors="replace"))
            self._at_line_start = True

    def status(self, text: str) -> bool:
        """Show a line that the next output replaces; False, and nothing shown, while the command is amid a line."""
        with self._lock:
            if self._at_line_start and text != self._status:
                self._clear()
                self._put(self.err, f"\x1b[2m{text}\x1b[0m\r".encode(errors="replace"))
                self._status = text
            return self._at_line_start

    def text(self) -> str:
        """The end of stderr, decoded."""
        with self._lock:
            return bytes(self.tail).decode(errors="replace")

    def _clear(self) -> None:
        if self._status:
            self._put(self.err, _CLEAR)
            self._status = ""

    def _put(self, fd: int, data: bytes) -> None:
        with suppress(OSError):
            durable.write_all(fd, data)

    def _run(self) -> None:
        try:
            self._pass_on()
        except BaseException as error:  # told by stop(): a thread must not end in silence
            self._died_of = error

    def _pass_on(self) -> None:
        deadline: float | None = None
        with selectors.DefaultSelector() as selector:
            for route in self._routes:
                selector.register(route.source, selectors.EVENT_READ, route)
            while selector.get_map():
                # Asked before the look: what a command wrote and then ended is there to be seen; in a pseudo-terminal
                # a moment later, when the kernel has moved it.
                is_over = self._stop.is_set()
                ready = selector.select(0.1)
                for key, _ in ready:
                    if not self._moved(key.data):
                        selector.unregister(key.fd)
                if is_over:
                    # A grandchild may hold the pipe for ever: what is there now is the command's, the rest is not.
                    deadline = deadline or time.monotonic() + _DRAIN_SECONDS
                    if not ready or time.monotonic() > deadline:
                        return

    def _moved(self, route: _Route) -> bool:
        """Pass one chunk on; False at the end of the stream."""
        try:
            data = os.read(route.source, _CHUNK)
        except OSError:  # EIO: the other side of the pseudo-terminal is closed
            return False
        if not data:
            return False
        with self._lock:
            if route.sink == self.err:
                self._clear()
                self.tail.extend(data)
                del self.tail[:-_TAIL_BYTES]
                self._at_line_start = data.endswith(b"\n")
            return self._delivered(route, data)

    def _delivered(self, route: _Route, data: bytes) -> bool:
        """Write to our own stream; False when its reader is gone, so that the command learns of it too."""
        try:
            if route.lost_bytes:
                told = f"\n[outlast: {route.lost_bytes} bytes lost, the log was full]\n".encode()
                durable.write_all(route.sink, told)
                route.lost_bytes = 0
            durable.write_all(route.sink, data)
        except OSError as error:
            route.lost_bytes += len(data)
            self.lost_bytes += len(data)
            if error.errno in (errno.EPIPE, errno.EBADF):
                os.close(route.source)
                self._routes.remove(route)
                return False
        return True


def _kind(fd: int) -> str:
    if os.isatty(fd):
        return "terminal"
    try:
        return "file" if stat.S_ISREG(os.fstat(fd).st_mode) else "other"
    except OSError:
        return "other"


def _is_same(one: int, other: int) -> bool:
    try:
        return os.path.samestat(os.fstat(one), os.fstat(other))
    except OSError:
        return False


def _raw_like(terminal: int, child: int) -> None:
    """Give the pseudo-terminal the terminal's size, and leave line ends to the real one."""
    with suppress(OSError, termios.error):
        _copy_size(terminal, child)
        modes = termios.tcgetattr(child)
        modes[1] &= ~termios.OPOST
        termios.tcsetattr(child, termios.TCSANOW, modes)


def _copy_size(source: int, target: int) -> None:
    size = fcntl.ioctl(source, termios.TIOCGWINSZ, struct.pack("HHHH", 0, 0, 0, 0))
    fcntl.ioctl(target, termios.TIOCSWINSZ, size)
