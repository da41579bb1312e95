"""Asks a cloud's metadata server whether this machine is about to end. Reads only; short waits, no proxy, no redirect.

Not at the room's door: `http.client` would cost every command 20 ms at its start.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from outlast.host.notices import TOKEN_SECONDS, Address, Notice, Question

_WAIT_SECONDS = 2.0
_MOST_BYTES = 256 * 1024
_RENEW_SECONDS = 60.0
_UNAUTHORIZED, _NOT_FOUND, _OK = 401, 404, 200


@dataclass(frozen=True, slots=True)
class Answer:
    """What one look brought."""

    notices: tuple[Notice, ...]
    """About this machine; empty when nothing is announced, or nothing could be read."""
    problem: str | None
    """Why a question was not answered, as a phrase; None when all were."""


class MetadataServer:
    """The metadata server of this machine.

    Args:
        address: where it is, and whose.
        wait: seconds for each answer, to its last byte; it is a few milliseconds away, or not there.
        clock: seconds since the epoch.
        ticks: seconds; only goes forward.
    """

    def __init__(
        self,
        address: Address,
        *,
        wait: float = _WAIT_SECONDS,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self.address = address
        self._wait = wait
        self._clock = clock
        self._ticks = ticks
        self._token: tuple[str, float] | None = None
        self._own_name: str | None = None
        self._clean_at: dict[str, float] = {}

    def look(self) -> Answer:
        """Ask every question once; raises nothing that a server could cause."""
        found: list[Notice] = []
        problem = None
        for question in self.address.provider.questions:
            try:
                found += self._asked(question)
            except (OSError, http.client.HTTPException, ValueError) as error:
                problem = f"{question.path}: {_phrase(error)}"
        return Answer(tuple(found), problem)

    def _asked(self, question: Question) -> list[Notice]:
        now, path = self._clock(), question.path
        body = self._get(path)
        source = f"{self.address.provider.title}, {path.partition('?')[0]}"
        # What is here now came after the last look without it.
        since = self._clean_at.get(path, now)
        notices = [] if body is None else [one for one in question.read(body, since, source) if self._is_ours(one)]
        if not notices:
            self._clean_at[path] = now
        return notices

    def _is_ours(self, notice: Notice) -> bool:
        """A scale set hears of all its machines. One whose own name cannot be read takes every notice for its own."""
        if not notice.machines or not self.address.provider.own_name:
            return True
        if self._own_name is None:
            try:
                self._own_name = (self._get(self.address.provider.own_name) or "").strip().lower()
            except (OSError, http.client.HTTPException, ValueError):
                return True
        return not self._own_name or self._own_name in {name.lower() for name in notice.machines}

    def _get(self, path: str) -> str | None:
        """A body; None where there is nothing under this path now.

        Raises:
            OSError: when nobody answers in time, or the answer is neither 200 nor 404.
            http.client.HTTPException: when it is not HTTP.
            ValueError: when it is too long.
        """
        status, body = self._sent("GET", path, self._headers())
        if status == _UNAUTHORIZED and self._token is not None:
            self._token = None
            status, body = self._sent("GET", path, self._headers())
        if status == _NOT_FOUND:
            return None
        if status != _OK:
            raise OSError(f"HTTP {status}")
        return body

    def _headers(self) -> dict[str, str]:
        provider = self.address.provider
        headers = dict(provider.headers)
        if provider.token is None:
            return headers
        path, asks, carries = provider.token
        now = self._clock()
        if self._token is None or now > self._token[1]:
            status, body = self._sent("PUT", path, {asks: str(TOKEN_SECONDS)})
            token = body.strip()
            if status != _OK or not token.isascii() or not token.isprintable():
                raise OSError(f"no session token: HTTP {status}")
            self._token = (token, now + TOKEN_SECONDS - _RENEW_SECONDS)
        return headers | {carries: self._token[0]}

    def _sent(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, str]:
        base = urlsplit(self.address.base)
        if base.scheme != "http" or not base.hostname:
            raise ValueError(f"{self.address.base!r} is no http:// address")
        begun = self._ticks()
        with closing(http.client.HTTPConnection(base.hostname, base.port, timeout=self._wait)) as connection:
            connection.response_class = partial(  # type: ignore[assignment]
                _Response, lambda: begun + self._wait - self._ticks()
            )
            connection.request(method, base.path.rstrip("/") + path, headers=dict(headers))
            response = connection.getresponse()
            body = response.read(_MOST_BYTES + 1)
        if len(body) > _MOST_BYTES:
            raise ValueError("a longer answer than any that is documented")
        return response.status, body.decode(errors="replace")


class _Response(http.client.HTTPResponse):
    """An answer that is read, headers and body, in the time that is left, however it drips."""

    def __init__(self, left: Callable[[], float], sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_Timed(self.fp.detach(), sock, left))


class _Timed(io.RawIOBase):
    """A socket's bytes. A socket's own timeout is for each read, and a byte now and then renews it."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, left: Callable[[], float]) -> None:
        self._raw, self._sock, self._left = raw, sock, left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._left()
        if left <= 0:
            raise TimeoutError("timed out")
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def _phrase(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return f"not of the documented form ({text})" if isinstance(error, ValueError) else text
