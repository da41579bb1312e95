"""Files at http:// and https:// addresses, read by ranges.

One file (``https://host/a.parquet``), several (``https://host/part-{000..017}.parquet``), or the index page of a folder
(``https://host/folder/``), as Apache and nginx make it.
"""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from itertools import product
from urllib.parse import SplitResult, unquote, urljoin, urlsplit, urlunsplit

from outlast.data.formats import choose_files, form_of
from outlast.data.sources.interface import SourceFile
from outlast.data.sources.local import changed
from outlast.data.sources.patience import Passing, Patience
from outlast.data.sources.web import Answer, Web
from outlast.errors import BadInput, SourceFailed

LOOK_BYTES = {"tail": 64 * 1024, "head": 256 * 1024}
"""Bytes of the first request to a file: Parquet's footer, or the beginning of a text."""
_PIECE = 256 * 1024
_LARGEST_INDEX = 16 << 20
_BRACES = re.compile(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}")
_MOST_FILES = 100_000


class HttpSource:
    """Files of one server.

    Args:
        text: the address.
        patience: how failures are met.
    """

    revision = None
    is_remote = True

    def __init__(self, text: str, patience: Patience | None = None) -> None:
        parts = urlsplit(text)
        if not parts.hostname:
            raise BadInput(f"expected an address with a host, got {text!r}", hint="https://host/folder/file.parquet")
        self._patience = patience or Patience()
        self.name = bare(parts).partition("?")[0]  # what stands behind it may be a signature
        self._web = Web(_login(parts))
        self._ranged = Ranged(self._web, self._patience)
        plain = bare(parts)
        if _BRACES.search(plain):
            urls = list(expand(plain))
        elif parts.path.endswith("/") or not parts.path:
            urls = self._index(plain)
        else:
            urls = [plain]
        self._base = plain[: plain.rindex("/") + 1] if len(urls) == 1 else _common(urls)
        self._urls = {unquote(url[len(self._base) :].partition("?")[0]): url for url in urls}
        if len(self._urls) < len(set(urls)):
            raise BadInput(
                f"{plain} stands for {len(set(urls))} addresses and {len(self._urls)} names of files",
                hint="addresses that differ behind the ? only are one file: fetch them one by one",
            )
        chosen = choose_files(list(self._urls), plain)
        self._paths, self.notes = chosen.paths, chosen.notes

    def _index(self, url: str) -> list[str]:
        def ask() -> bytes:
            with self._web.get(url) as answer:
                return answer.body.read(_LARGEST_INDEX)

        page = self._patience.try_until_done(url, ask)
        self._web.count(len(page))
        links = _Links()
        links.feed(page.decode("utf-8", "replace"))
        base = url if url.endswith("/") else url + "/"
        found = [urljoin(base, link).partition("#")[0] for link in links.found]
        # Only what lies in the folder itself: a page may link to anywhere.
        inside = [link for link in found if link.startswith(base) and "/" not in link[len(base) :].partition("?")[0]]
        return sorted({link for link in inside if form_of(unquote(urlsplit(link).path))})

    def paths(self) -> tuple[str, ...]:
        """Names below the address."""
        return self._paths

    def look(self, path: str, part: str) -> SourceFile:
        """Size and ETag, from a request for the part that is read next."""
        return self._ranged.look(path, self._urls[path], part)

    def read(self, file: SourceFile, start: int, stop: int) -> bytes:
        """A range of a file."""
        return self._ranged.read(self._urls[file.path], file, start, stop)

    def sequential(self, file: SourceFile) -> Iterator[bytes] | None:
        """All of it from the beginning, from a server that knows no ranges."""
        return self._ranged.sequential(self._urls[file.path], file)

    def traveled(self) -> int:
        """Bytes of content received."""
        return self._web.traveled()

    def local(self, path: str) -> str | None:
        """None: it lies elsewhere."""
        return None

    def close(self) -> None:
        """Close the connections, and wait for none."""
        self._patience.stopped.set()
        self._web.close()


class Ranged:
    """Ranges of files over HTTP: what a cut leaves out is asked for again, from where it was cut.

    Args:
        web: the connections.
        patience: how failures are met.
    """

    def __init__(self, web: Web, patience: Patience) -> None:
        self._web, self._patience = web, patience
        self._seen: dict[str, tuple[int, bytes]] = {}
        self._whole_only: set[str] = set()
        self._lock = threading.Lock()

    def look(self, path: str, url: str, part: str) -> SourceFile:
        """Size and version of a file; the bytes that came with them are kept for the first `read`."""
        size = LOOK_BYTES[part]
        wanted = {"Range": f"bytes=-{size}" if part == "tail" else f"bytes=0-{size - 1}"}

        def ask() -> SourceFile:
            with self._web.get(url, wanted) as answer:
                if answer.status == 416:  # nothing of an empty file can be asked for
                    return SourceFile(path, 0, answer.version)
                span = answer.span
                if answer.status != 206 or span is None:
                    self._whole_only.add(path)
                    length = answer.headers.get("content-length", "")
                    return SourceFile(path, int(length) if length.isdigit() else None, answer.version)
                data = _all_of(answer, span[1] - span[0], self._web.count)
                with self._lock:
                    self._seen[path] = (span[0], data)
                return SourceFile(path, span[2], answer.version)

        return self._patience.try_until_done(url, ask)

    def read(self, url: str, file: SourceFile, start: int, stop: int, *, check: bool = True) -> bytes:
        """The bytes start .. stop-1.

        Args:
            url: where it is.
            file: as `look` found it.
            start: first byte.
            stop: one past the last one.
            check: compare the server's version with the one that was looked at.
        """
        if file.path in self._whole_only:
            raise self.no_ranges(url)
        if (kept := self._kept(file.path, start, stop)) is not None:
            return kept
        found = bytearray()

        def ask() -> None:
            at = start + len(found)
            with self._web.get(url, {"Range": f"bytes={at}-{stop - 1}"}) as answer:
                span = answer.span
                self._compare(url, file, answer, check)
                if answer.status != 206 or span is None:
                    raise self.no_ranges(url)
                if span[0] != at:
                    raise Passing(f"bytes from {span[0]:,} on came, those from {at:,} on were asked for")
                if file.size is not None and span[2] is not None and span[2] != file.size:
                    raise changed(url, f"it has {span[2]:,} bytes, not {file.size:,}")
                _into(found, answer, stop - at, self._web.count)

        self._patience.try_until_done(url, ask, lambda: len(found))
        return bytes(found)

    def sequential(self, url: str, file: SourceFile) -> Iterator[bytes] | None:
        """The whole file in pieces, where the server knows no ranges; after a cut it is read past what came already."""
        return self._from_the_start(url, file) if file.path in self._whole_only else None

    def _from_the_start(self, url: str, file: SourceFile) -> Iterator[bytes]:
        done, failures = 0, 0
        while True:
            before = done
            try:
                with self._web.get(url) as answer:
                    self._compare(url, file, answer, True)
                    at = 0
                    while piece := answer.body.read1(_PIECE):
                        self._web.count(len(piece))
                        fresh = piece[max(0, done - at) :]
                        at += len(piece)
                        if fresh:
                            done = at
                            yield fresh
                    if file.size is not None and at < file.size:
                        raise Passing(f"it broke off at byte {at:,} of {file.size:,}")
                    return
            except Passing as failure:
                failures = failures + 1 if done == before else 1
                if failures >= self._patience.tries:
                    raise SourceFailed(
                        f"{url} cannot be read: {failure.reason} ({failures} tries)",
                        hint="this server knows no ranges, so that each try begins anew: download the file first",
                    ) from failure
                self._patience.pause(url, failures, failure)

    def _kept(self, path: str, start: int, stop: int) -> bytes | None:
        with self._lock:
            first, data = self._seen.get(path, (0, b""))
        if first <= start and stop <= first + len(data):
            return data[start - first : stop - first]
        return None

    def _compare(self, url: str, file: SourceFile, answer: Answer, check: bool) -> None:
        if answer.status in (412, 416):
            raise changed(url, f"the server says {answer.status}")
        # A gzip'd sibling or a weak tag is another spelling of the same version.
        if check and file.version and answer.version and _strong(answer.version) != _strong(file.version):
            raise changed(url, f"its version is {answer.version}, not {file.version}")

    @staticmethod
    def no_ranges(url: str) -> SourceFailed:
        """The error for a server that gives whole files only."""
        return SourceFailed(
            f"{url}: the server ignores ranges, so that a part of a Parquet file cannot be read from it",
            hint="download the file (curl -LO) and name it by its path, or use a server with ranges (nginx, S3)",
        )


def _strong(version: str) -> str:
    return version.removeprefix("W/")


def _all_of(answer: Answer, size: int, count: Callable[[int], None]) -> bytes:
    found = bytearray()
    _into(found, answer, size, count)
    return bytes(found)


def _into(found: bytearray, answer: Answer, size: int, count: Callable[[int], None]) -> None:
    """Read a body to the end of a range; what came before a cut is in ``found``."""
    left = size
    while left > 0:
        piece = answer.body.read1(min(left, _PIECE))
        if not piece:
            raise Passing(f"it broke off {left:,} bytes early")
        count(len(piece))
        found += piece
        left -= len(piece)


class _Links(HTMLParser):
    """Targets of a page's links."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the target of an ``a``."""
        self.found += [value for name, value in attrs if tag == "a" and name == "href" and value]


def expand(text: str) -> Iterator[str]:
    """Texts that a text with braces stands for: ``{000..017}`` counts, ``{a,b}`` lists."""
    parts = _BRACES.split(text)
    plain, choices = parts[::4], []
    for first, last, words in zip(parts[1::4], parts[2::4], parts[3::4], strict=True):
        if words is not None:
            choices.append(words.split(","))
            continue
        if int(last) - int(first) >= _MOST_FILES:
            raise BadInput(f"{text} stands for too many files", hint=f"at most {_MOST_FILES:,}")
        choices.append([str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)])
    for chosen in product(*choices):
        yield plain[0] + "".join(word + rest for word, rest in zip(chosen, plain[1:], strict=True))


def _login(parts: SplitResult) -> dict[str, str]:
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def bare(parts: SplitResult) -> str:
    """An address without its login and fragment."""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path or "/", parts.query, ""))


def _common(urls: list[str]) -> str:
    if not urls:
        return ""
    first, last = min(urls), max(urls)
    same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return first[: first.rindex("/", 0, same) + 1]
