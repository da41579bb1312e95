"""A loopback HTTP server of a folder or of bytes, with ranges: counts what it sends, and misbehaves when told to.

What it does wrong is a queue of `Trouble`: each request for a file takes the next one.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

_PIECE = 64 * 1024


@dataclass(frozen=True)
class Trouble:
    """What one request gets instead of a good answer."""

    status: int | None = None
    """This status and no content."""
    retry_after: str | None = None
    """Sent with the status."""
    cut_after: int | None = None
    """The connection is cut after so many bytes of the body."""


@dataclass
class Ranges:
    """What is served, and what was asked for."""

    files: Mapping[str, bytes | Path]
    """By path without the first slash."""
    url: str = ""
    """Where it listens, without a slash at the end."""
    knows_ranges: bool = True
    """Otherwise it gives whole files."""
    says_version: bool = True
    """Send an ETag."""
    etag: str = "one"
    """The version of every file."""
    bytes_per_second: float | None = None
    """Of all connections together, as a link has; None sends as fast as it goes."""
    busy_until: float = 0.0
    """When the link is free again."""
    trouble: deque[Trouble | None] = field(default_factory=deque)
    """For the next requests, one each."""
    sent: int = 0
    """Bytes of bodies that were sent."""
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and Range header, in the order of arrival."""
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def serving(files: Mapping[str, bytes | Path] | Path, **settings: object) -> Iterator[Ranges]:
    """Serve these files meanwhile; a folder stands for the files in it."""
    if isinstance(files, Path):
        files = {path.relative_to(files).as_posix(): path for path in files.rglob("*") if path.is_file()}
    ranges = Ranges(files, **settings)  # type: ignore[arg-type]

    class Handler(_Handler):
        pass

    Handler.ranges = ranges
    server = _Server(("127.0.0.1", 0), Handler)
    ranges.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=lambda: server.serve_forever(0.05), name="range-server", daemon=True)
    thread.start()
    try:
        yield ranges
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that left is no news."""


class _Handler(BaseHTTPRequestHandler):
    ranges: Ranges
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the test's output is for the test."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        ranges, name = self.ranges, unquote(urlsplit(self.path).path).lstrip("/")
        asked = self.headers.get("Range")
        with ranges.lock:
            ranges.requests.append((name, asked))
            trouble = ranges.trouble.popleft() if ranges.trouble else None
        if trouble and trouble.status:
            self._empty(trouble.status, trouble.retry_after)
        elif name in ranges.files:
            self._send(ranges.files[name], asked, trouble)
        elif name == "" or name.endswith("/"):
            page = "".join(f'<a href="{path[len(name) :]}">x</a>' for path in ranges.files if path.startswith(name))
            self._body(200, page.encode(), {"Content-Type": "text/html"}, None)
        else:
            self._empty(404, None)

    def _send(self, content: bytes | Path, asked: str | None, trouble: Trouble | None) -> None:
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        headers = {"ETag": f'"{self.ranges.etag}"'} if self.ranges.says_version else {}
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", asked or "")
        first, last = 0, size - 1
        if match and self.ranges.knows_ranges:
            first = int(match[1]) if match[1] else max(0, size - int(match[2]))
            last = min(int(match[2]), size - 1) if match[1] and match[2] else size - 1
            if first >= size:
                self._empty(416, None)
                return
            headers |= {"Content-Range": f"bytes {first}-{last}/{size}", "Accept-Ranges": "bytes"}
        if isinstance(content, bytes):
            part = content[first : last + 1]
        else:
            with content.open("rb") as file:
                file.seek(first)
                part = file.read(last + 1 - first)
        self._body(206 if "Content-Range" in headers else 200, part, headers, trouble)

    def _body(self, status: int, part: bytes, headers: dict[str, str], trouble: Trouble | None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if self.command == "HEAD":
            return
        end = len(part) if trouble is None or trouble.cut_after is None else min(trouble.cut_after, len(part))
        with suppress(OSError):
            for at in range(0, end, _PIECE):
                piece = part[at : min(at + _PIECE, end)]
                with self.ranges.lock:  # first, so that who has read it all finds it counted
                    self.ranges.sent += len(piece)
                self.wfile.write(piece)
                self._wait_for_link(len(piece))
        if end < len(part):
            self.close_connection = True

    def _wait_for_link(self, size: int) -> None:
        ranges = self.ranges
        if ranges.bytes_per_second is None:
            return
        with ranges.lock:
            ranges.busy_until = max(ranges.busy_until, time.monotonic()) + size / ranges.bytes_per_second
            wait = ranges.busy_until - time.monotonic()
        time.sleep(max(0.0, wait))

    def _empty(self, status: int, retry_after: str | None) -> None:
        self.send_response(status)
        if retry_after is not None:
            self.send_header("Retry-After", retry_after)
        self.send_header("Content-Length", "0")
        self.end_headers()
