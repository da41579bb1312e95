"""HTTP requests on connections that are kept: redirects, proxies, what may pass by itself and what does not.

The standard library's http.client, because its connections can be kept, its bodies read piece by piece and broken off.
"""

from __future__ import annotations

import http.client
import re
import ssl
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

from outlast.data.sources.patience import NoAnswer, Passing, asked_wait
from outlast.errors import BadInput, SourceFailed
from outlast.version import __version__

_MOVED = frozenset({301, 302, 303, 307, 308})
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = 8
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_LEFT_TO_READ = 64 * 1024
"""Bytes of a body that are worth reading to keep a connection."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer whose body is still to be read."""

    status: int
    """HTTP status, 2xx or 416 or 412."""
    headers: Mapping[str, str]
    """Lower-case names."""
    body: http.client.HTTPResponse
    """Read it inside the context only."""

    @property
    def span(self) -> tuple[int, int, int | None] | None:
        """First byte, one past the last, size of the whole, as Content-Range says; None without one."""
        match = _RANGE.fullmatch(self.headers.get("content-range", "").strip())
        return match and (int(match[1]), int(match[2]) + 1, None if match[3] == "*" else int(match[3]))

    @property
    def version(self) -> str | None:
        """ETag, or the time of the last change."""
        return self.headers.get("etag") or self.headers.get("last-modified")


class Web:
    """Connections to servers, kept and shared by threads.

    Args:
        headers: sent with each request to the first server; ``authorization`` is not sent on to another host.
        timeout: seconds without a byte until a connection counts as dead.
    """

    def __init__(self, headers: Mapping[str, str] | None = None, timeout: float = 30.0) -> None:
        self._headers = {
            "User-Agent": f"outlast/{__version__}",
            "Accept-Encoding": "identity",
            **(headers or {}),
        }
        self._timeout = timeout
        self._idle: dict[tuple[str, str], list[http.client.HTTPConnection]] = {}
        self._lock = threading.Lock()
        self._traveled = 0
        self._tls = ssl.create_default_context()
        self._moved: dict[str, str] = {}

    def traveled(self) -> int:
        """Bytes of content received so far."""
        return self._traveled

    def count(self, received: int) -> None:
        """Add to what was received."""
        with self._lock:
            self._traveled += received

    @contextmanager
    def get(self, url: str, extra: Mapping[str, str] | None = None) -> Iterator[Answer]:
        """GET, redirects followed.

        Raises:
            Passing: may succeed later: no connection, 429, 5xx.
            BadInput: 401, 403, 404 and the like: not there or not allowed.
        """
        where, headers = self._moved.get(url, url), {**self._headers, **(extra or {})}
        for _ in range(_REDIRECTS):
            used = where
            sent = headers if _host(where) == _host(url) else _without_secrets(headers)
            connection, response = self._ask(where, sent)
            keep = False
            try:
                if response.status in _MOVED:
                    where = self._next(where, response)
                    keep = _drained(response)
                    continue
                if response.status in (401, 403, 404, 410) and self._moved.pop(url, None) is not None:
                    where = url  # a signed address that has run out: ask the first server for another one
                    keep = _drained(response)
                    continue
                _judge(url, response)
                if where != url:
                    self._moved[url] = where
                yield Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response)
                keep = response.isclosed() or _drained(response)
                return
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, SourceFailed | BadInput):
                    raise
                raise Passing(_words(error)) from error
            finally:
                self._put_back(used, connection, keep and not response.will_close)
        raise SourceFailed(f"{_shown(url)} was redirected {_REDIRECTS} times", hint="open it in a browser")

    def _ask(self, url: str, headers: Mapping[str, str]) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """Send a request; a kept connection that the server closed meanwhile is replaced by a new one."""
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        for _ in range(2):
            connection, is_kept = self._connection(parts)
            try:
                if parts.scheme != "https" and _proxy(parts):
                    connection.request("GET", url, headers=dict(headers))
                else:
                    connection.request("GET", target, headers=dict(headers))
                return connection, connection.getresponse()
            except ssl.SSLCertVerificationError as error:
                connection.close()
                raise SourceFailed(
                    f"{parts.netloc}: its certificate does not verify: {error.verify_message}",
                    hint="look at the machine's clock and certificates (SSL_CERT_FILE)",
                ) from error
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if not is_kept:
                    raise NoAnswer(_words(error)) from error
        raise Passing("the server closes its connections")

    def _connection(self, parts: SplitResult) -> tuple[http.client.HTTPConnection, bool]:
        with self._lock:
            idle = self._idle.get((parts.scheme, parts.netloc))
            if idle:
                return idle.pop(), True
        host, port = parts.hostname or "", parts.port
        proxy = _proxy(parts)
        if parts.scheme == "https":
            if proxy is None:
                return http.client.HTTPSConnection(host, port, timeout=self._timeout, context=self._tls), False
            tunnel = http.client.HTTPSConnection(
                proxy.hostname or "", proxy.port, timeout=self._timeout, context=self._tls
            )
            tunnel.set_tunnel(host, port)
            return tunnel, False
        if proxy is not None:
            host, port = proxy.hostname or "", proxy.port
        return http.client.HTTPConnection(host, port, timeout=self._timeout), False

    def _put_back(self, url: str, connection: http.client.HTTPConnection, is_good: bool) -> None:
        if not is_good:
            connection.close()
            return
        parts = urlsplit(url)
        with self._lock:
            self._idle.setdefault((parts.scheme, parts.netloc), []).append(connection)

    def _next(self, url: str, response: http.client.HTTPResponse) -> str:
        target = urljoin(url, response.getheader("Location") or "")
        if urlsplit(target).scheme not in ("http", "https") or (
            url.startswith("https:") and target.startswith("http:")
        ):
            raise SourceFailed(f"{_shown(url)} redirects to {_shown(target)}", hint="only https may follow https")
        return target

    def close(self) -> None:
        """Close the connections that are kept."""
        with self._lock:
            idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.close()


def _judge(url: str, response: http.client.HTTPResponse) -> None:
    """Raise for an answer that is none."""
    status = response.status
    if 200 <= status < 300 or status in (412, 416):
        return
    said = f"{status} {response.reason}"
    if status in _PASSING:
        raise Passing(said, asked_wait(response.getheader("Retry-After")))
    if status in (401, 403):
        raise BadInput(f"{_shown(url)} may not be read: {said}", hint="it wants a login, or a token that may read it")
    if status in (404, 410):
        raise BadInput(f"{_shown(url)} is not there: {said}", hint="look at the address")
    raise SourceFailed(f"{_shown(url)} cannot be read: {said}", hint="open the address in a browser")


def _drained(response: http.client.HTTPResponse) -> bool:
    """True when the rest of a body was short enough to be read, so that its connection can be used again."""
    with suppress(OSError, http.client.HTTPException):
        response.read(_LEFT_TO_READ)
        return response.isclosed()
    return False


def _host(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _without_secrets(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in ("authorization", "cookie")}


def _proxy(parts: SplitResult) -> SplitResult | None:
    proxies = urllib.request.getproxies()
    if parts.scheme not in proxies or urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    text = proxies[parts.scheme]
    return urlsplit(text if "://" in text else f"http://{text}")


def _shown(url: str) -> str:
    """An address without its password and its signature."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
