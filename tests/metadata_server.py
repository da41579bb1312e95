"""The metadata servers of three clouds on loopback, as far as they announce a machine's end.

Each is as strict as the real one: AWS wants a session token that it gave out, and no forwarded request; Google Cloud
and Azure want their header. What is not announced is 404, FALSE or an empty list.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

ACTION = "/latest/meta-data/spot/instance-action"
REBALANCE = "/latest/meta-data/events/recommendations/rebalance"
PREEMPTED = "/computeMetadata/v1/instance/preempted"
MAINTENANCE = "/computeMetadata/v1/instance/maintenance-event"
EVENTS = "/metadata/scheduledevents"
NAME = "/metadata/instance/compute/name"
QUIET = {
    PREEMPTED: "FALSE",
    MAINTENANCE: "NONE",
    EVENTS: json.dumps({"DocumentIncarnation": 1, "Events": []}),
    NAME: "trainer_0",
}


@dataclass
class Cloud:
    """What the server says now; a test changes it as it goes."""

    answers: dict[str, str] = field(default_factory=lambda: dict(QUIET))
    """Bodies by path, without the query."""
    status: int = 200
    """Of every answer that there is."""
    is_mute: bool = False
    """Takes requests and never answers."""
    drips: bytes = b""
    """Sent first in place of an answer, and then byte by byte without an end."""
    tokens: set[str] = field(default_factory=set)
    """Session tokens that hold."""
    requests: list[str] = field(default_factory=list)
    """``METHOD path?query``, in the order of arrival."""
    url: str = ""
    """Where it listens."""
    let_go: threading.Event = field(default_factory=threading.Event)
    """Set at the end, so that a mute server's threads end."""


@contextmanager
def clouds() -> Iterator[Cloud]:
    """Serve meanwhile."""
    cloud = Cloud()

    class Handler(_Handler):
        pass

    Handler.cloud = cloud
    server = _Server(("127.0.0.1", 0), Handler)
    cloud.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="metadata-server", daemon=True)
    thread.start()
    try:
        yield cloud
    finally:
        cloud.let_go.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that hangs up early is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    cloud: Cloud
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        self.cloud.requests.append(f"PUT {self.path}")
        seconds = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        if self.cloud.is_mute:
            return self._nothing()
        if self.path != "/latest/api/token" or not seconds.isdecimal() or not 1 <= int(seconds) <= 21600:
            return self._send(400, "")
        token = secrets.token_urlsafe(40)
        self.cloud.tokens.add(token)
        return self._send(200, token)

    def do_GET(self) -> None:
        self.cloud.requests.append(f"GET {self.path}")
        path = urlsplit(self.path).path
        if self.cloud.drips:
            return self._drip()
        if self.cloud.is_mute:
            return self._nothing()
        if refused := self._refused(path):
            return self._send(refused, "")
        if path not in self.cloud.answers:
            return self._send(404, "<html><title>404 - Not Found</title></html>")
        return self._send(self.cloud.status, self.cloud.answers[path])

    def _refused(self, path: str) -> int:
        if self.headers.get("X-Forwarded-For"):
            return 403
        if path.startswith("/latest/"):
            return 0 if self.headers.get("X-aws-ec2-metadata-token") in self.cloud.tokens else 401
        if path.startswith("/computeMetadata/"):
            return 0 if self.headers.get("Metadata-Flavor") == "Google" else 403
        return 0 if self.headers.get("Metadata") == "true" and "api-version=" in self.path else 400

    def _nothing(self) -> None:
        self.cloud.let_go.wait(60)
        self.close_connection = True

    def _drip(self) -> None:
        """Ends when the client hangs up, which `_Server.handle_error` keeps quiet about."""
        self.close_connection = True
        self.wfile.write(self.cloud.drips)
        while not self.cloud.let_go.wait(0.01):
            self.wfile.write(b"x")

    def _send(self, status: int, body: str) -> None:
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass
