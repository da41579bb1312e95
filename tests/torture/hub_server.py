"""A server on loopback that speaks enough of the Hugging Face hub's protocol to download from.

``HF_ENDPOINT=http://127.0.0.1:PORT`` is all that huggingface_hub and datasets need. Repositories are a mapping of
files; what was asked for is kept in ``requests``.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

_KINDS = ("datasets", "spaces", "models")


@dataclass
class Hub:
    """What is on the server."""

    repositories: Mapping[str, Mapping[str, bytes]]
    """``models/org/name`` or ``datasets/org/name``: files by path."""
    url: str = ""
    """Where it listens."""
    requests: list[str] = field(default_factory=list)
    """``METHOD path``, in the order of arrival."""

    def files(self, kind: str, name: str) -> Mapping[str, bytes] | None:
        return self.repositories.get(f"{kind}/{name}")

    def commit(self, kind: str, name: str) -> str:
        return hashlib.sha1(f"{kind}/{name}".encode()).hexdigest()


@contextmanager
def serving(repositories: Mapping[str, Mapping[str, bytes]]) -> Iterator[Hub]:
    """Serve these repositories meanwhile."""
    hub = Hub(repositories)

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, name="hub-server", daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the test's output is for the test."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if found := re.fullmatch(r"/api/(models|datasets)/([^/]+/[^/]+)(/.*)?", path):
            self._api(found[1], found[2], found[3] or "", body)
        elif found := re.fullmatch(r"/(?:(datasets)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(found[1] or "models", found[2], found[4])
        else:
            self._missing()

    def _api(self, kind: str, name: str, rest: str, body: bytes) -> None:
        files = self.hub.files(kind, name)
        if files is None:
            self._missing()
        elif rest.startswith("/paths-info/"):
            asked = json.loads(body)["paths"] if body.startswith(b"{") else re.findall(r"paths=([^&]+)", body.decode())
            self._json([_entry(path, files[path]) for path in map(unquote, asked) if path in files])
        elif found := re.match(r"/tree/[^/]+/?(.*)", rest):
            self._json(_listing(files, found[1]))
        elif rest == "" or rest.startswith("/revision/"):
            siblings = [{"rfilename": path} for path in files]
            self._json({"id": name, "sha": self.hub.commit(kind, name), "private": False, "gated": False,
                        "disabled": False, "downloads": 0, "likes": 0, "tags": [], "siblings": siblings})  # fmt: skip
        else:
            self._missing()

    def _resolve(self, kind: str, name: str, path: str) -> None:
        files = self.hub.files(kind, name)
        if files is None or path not in files:
            self._missing("EntryNotFound")
            return
        content = files[path]
        first, last = 0, len(content) - 1
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            first, last = int(asked[1]), min(int(asked[2] or last), last)
        part = content[first : last + 1]
        self.send_response(206 if asked else 200)
        self.send_header("X-Repo-Commit", self.hub.commit(kind, name))
        self.send_header("ETag", f'"{_oid(content)}"')
        self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(part)

    def _json(self, document: object) -> None:
        content = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _missing(self, code: str = "RepoNotFound") -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _oid(content: bytes) -> str:
    """As git names a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _entry(path: str, content: bytes) -> dict[str, object]:
    return {"type": "file", "path": path, "size": len(content), "oid": _oid(content)}


def _listing(files: Mapping[str, bytes], folder: str) -> list[dict[str, object]]:
    prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""
    return [_entry(path, content) for path, content in files.items() if path.startswith(prefix)]
