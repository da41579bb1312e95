"""A server on loopback that speaks enough of the Hugging Face hub's protocol to download from.

``HF_ENDPOINT=http://127.0.0.1:PORT`` is all that huggingface_hub and datasets need. Repositories are a mapping of
files; what was asked for is kept in ``requests``, what was sent of files in ``sent_bytes``. A data set of the first
days is known by a name without an owner, and sent on to the one with.
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
    """``models/org/name`` or ``datasets/org/name``, with ``@refs/convert/parquet`` for a branch: files by path."""
    owners: Mapping[str, str] = field(default_factory=dict)
    """``openwebtext``: ``Skylion007/openwebtext``."""
    url: str = ""
    """Where it listens."""
    requests: list[str] = field(default_factory=list)
    """``METHOD path``, in the order of arrival."""
    sent_bytes: int = 0
    """Content of files."""

    def key(self, kind: str, name: str, revision: str = "main") -> str:
        """The repository's own key for a branch or a commit; that of the main branch for one that is not known."""
        own = [key for key in self.repositories if key.partition("@")[0] == f"{kind}/{name}"]
        fits = (key for key in own if revision in (key.partition("@")[2], commit(key)))
        return next(fits, f"{kind}/{name}")


def commit(key: str) -> str:
    return hashlib.sha1(key.encode()).hexdigest()


@contextmanager
def serving(repositories: Mapping[str, Mapping[str, bytes]], owners: Mapping[str, str] | None = None) -> Iterator[Hub]:
    """Serve these repositories meanwhile."""
    hub = Hub(repositories, owners or {})

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
        # Still quoted: the slashes of a branch's name are no separators.
        path = urlsplit(self.path).path
        self.hub.requests.append(f"{self.command} {unquote(path)}")
        if found := re.fullmatch(r"/api/(models|datasets)/([^/]+)((?:/.*)?)", path):
            kind, name, rest = found[1], found[2], found[3]
            if name in self.hub.owners:
                self._moved(path.replace(name, self.hub.owners[name], 1))
                return
            owned = re.fullmatch(r"/([^/]+)((?:/.*)?)", rest)
            self._api(kind, f"{name}/{owned[1]}", owned[2], body) if owned else self._missing()
        elif found := re.fullmatch(r"/(datasets)/([^/]+)/resolve/.+", path):
            owner = self.hub.owners.get(found[2])
            self._moved(path.replace(found[2], owner, 1)) if owner else self._missing()
        elif found := re.fullmatch(r"/(?:(datasets)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            key = self.hub.key(found[1] or "models", unquote(found[2]), unquote(found[3]))
            self._resolve(key, unquote(found[4]))
        else:
            self._missing()

    def _api(self, kind: str, name: str, rest: str, body: bytes) -> None:
        revision = re.match(r"/(?:revision|tree|paths-info)/([^/]+)", rest)
        key = self.hub.key(kind, name, unquote(revision[1]) if revision else "main")
        files = self.hub.repositories.get(key)
        if files is None or (revision and unquote(revision[1]).startswith("refs/") and "@" not in key):
            self._missing("RevisionNotFound" if files is not None else "RepoNotFound")
        elif rest.startswith("/paths-info/"):
            asked = json.loads(body)["paths"] if body.startswith(b"{") else re.findall(r"paths=([^&]+)", body.decode())
            self._json([_info(path, files) for path in map(unquote, asked) if _info(path, files)])
        elif found := re.match(r"/tree/[^/]+/?(.*)", rest):
            self._json(_listing(files, unquote(found[1]), "recursive=true" in urlsplit(self.path).query.lower()))
        elif rest == "" or rest.startswith("/revision/"):
            siblings = [{"rfilename": path} for path in files]
            self._json({"id": name, "sha": commit(key), "private": False, "gated": False,
                        "disabled": False, "downloads": 0, "likes": 0, "tags": [], "siblings": siblings})  # fmt: skip
        else:
            self._missing()

    def _resolve(self, key: str, path: str) -> None:
        files = self.hub.repositories.get(key)
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
        self.send_header("X-Repo-Commit", commit(key))
        self.send_header("ETag", f'"{_oid(content)}"')
        self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if self.command != "HEAD":
            self.hub.sent_bytes += len(part)
            self.wfile.write(part)

    def _moved(self, path: str) -> None:
        self.send_response(307)
        self.send_header("Location", path)
        self.send_header("Content-Length", "0")
        self.end_headers()

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


def _info(path: str, files: Mapping[str, bytes]) -> dict[str, object] | None:
    """A file, or a folder that some file is in."""
    if path in files:
        return _entry(path, files[path])
    folder = path.strip("/")
    return _folder(folder) if any(other.startswith(f"{folder}/") for other in files) else None


def _folder(path: str) -> dict[str, object]:
    return {"type": "directory", "path": path, "size": 0, "oid": _oid(path.encode())}


def _listing(files: Mapping[str, bytes], folder: str, is_deep: bool) -> list[dict[str, object]]:
    """What is in a folder, or everything below it: files, and the folders that they are in."""
    prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""
    below = {path: content for path, content in files.items() if path.startswith(prefix)}
    folders = {path[:at] for path in below for at in range(len(prefix), len(path)) if path[at] == "/"}
    found = [*map(_folder, sorted(folders)), *(_entry(path, content) for path, content in below.items())]
    return [entry for entry in found if is_deep or "/" not in str(entry["path"]).removeprefix(prefix)]
