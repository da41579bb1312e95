"""Object stores and the hub: the same subset as from files, by ranges, with their own rules."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import huggingface_hub
import pytest
from huggingface_hub import constants

from outlast import data
from outlast.data.sources.hub import parse
from outlast.data.sources.listing import below
from outlast.errors import BadInput, SourceChanged, SourceFailed
from tests.data.subsets import numbers, parquet
from tests.torture.hub_server import Hub, commit
from tests.torture.hub_server import serving as serving_hub


class _Bucket(BaseHTTPRequestHandler):
    """As much of S3 as listing and reading take."""

    objects: dict[str, bytes]
    etag = "one"
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        _, _, key = unquote(parts.path).lstrip("/").partition("/")
        if not key:
            prefix = parse_qs(parts.query).get("prefix", [""])[0]
            found = "".join(
                f"<Contents><Key>{name}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
                f'<ETag>"{self.etag}"</ETag><Size>{len(self.objects[name])}</Size></Contents>'
                for name in sorted(self.objects)
                if name.startswith(prefix)
            )
            text = f"<ListBucketResult><Name>b</Name><IsTruncated>false</IsTruncated>{found}</ListBucketResult>"
            self._answer(200, text.encode(), {})
        elif key not in self.objects:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>", {})
        elif self.headers.get("If-Match", f'"{self.etag}"') != f'"{self.etag}"':
            self._answer(412, b"<Error><Code>PreconditionFailed</Code></Error>", {})
        else:
            content = self.objects[key]
            match = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
            first, last = (int(match[1]), int(match[2])) if match else (0, len(content) - 1)
            more = {"ETag": f'"{self.etag}"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
            if match:
                more["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            self._answer(206 if match else 200, content[first : last + 1], more)

    do_HEAD = do_GET

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def bucket(objects: dict[str, bytes]) -> Iterator[tuple[str, type[_Bucket]]]:
    class Handler(_Bucket):
        pass

    Handler.objects = objects
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    thread = threading.Thread(target=lambda: server.serve_forever(0.05), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", Handler
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment of a user of an S3 store of their own."""
    for name, value in {"ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s", "REGION": "x", "ALLOW_HTTP": "true"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    return monkeypatch


def test_a_subset_of_a_bucket_is_that_of_the_files_and_a_change_is_seen(
    tmp_path: Path, keys: pytest.MonkeyPatch
) -> None:
    folder = parquet(tmp_path / "s")
    objects = {f"d/{path.name}": path.read_bytes() for path in folder.iterdir()} | {"other/x.parquet": b"?"}
    with bucket(objects) as (url, handler):
        keys.setenv("AWS_ENDPOINT_URL", url)
        data.fetch("s3://b/d", tmp_path / "o", rows=700)
        assert numbers(tmp_path / "o") == list(range(700))
        assert data.plan("s3://b/d/part-[01].parquet").rows == 1000
        assert data.plan("s3://b/d/part-2.parquet").rows == 500
        with pytest.raises(BadInput, match="no file at s3://b/nothing"):
            data.plan("s3://b/nothing")
        handler.etag = "two"
        with pytest.raises(SourceChanged, match="another folder"):
            data.fetch("s3://b/d", tmp_path / "o", rows=800)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A data set on a hub on loopback, and nothing in the cache."""
    folder = parquet(tmp_path / "s")
    files = {f"data/train-{path.name}": path.read_bytes() for path in sorted(folder.iterdir())}
    files |= {"data/test-0.parquet": files["data/train-part-0.parquet"], "README.md": b"hello"}
    two = {f"{name}/train-0.parquet": files["data/test-0.parquet"] for name in ("de", "fr")}
    with serving_hub({"datasets/org/set": files, "datasets/org/two": two}) as served:
        for module, name in ((constants, "ENDPOINT"), (huggingface_hub.hf_api.constants, "ENDPOINT")):
            monkeypatch.setattr(module, name, served.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", served.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield served


def test_a_data_set_of_the_hub_is_read_by_ranges_at_its_commit(tmp_path: Path, hub: Hub) -> None:
    found = data.fetch_telling("hf://datasets/org/set", tmp_path / "o", lambda progress: None, rows=700, columns="n")
    assert numbers(tmp_path / "o") == list(range(700))
    assert found.manifest.revision == commit("datasets/org/set")
    assert any("train split" in note for note in found.notes) and found.wire_bytes > 0
    assert data.plan("hf://datasets/org/set/data/test-*").rows == 500


def test_what_the_hubs_cache_has_does_not_travel_again(tmp_path: Path, hub: Hub) -> None:
    for i in range(3):
        huggingface_hub.hf_hub_download(
            "org/set", f"data/train-part-{i}.parquet", repo_type="dataset", cache_dir=str(tmp_path / "cache"),
            endpoint=hub.url,
        )  # fmt: skip
    found = data.fetch_telling("hf://datasets/org/set", tmp_path / "o", lambda progress: None)
    assert found.wire_bytes == 0 and len(numbers(tmp_path / "o")) == 1500


def test_no_way_to_the_hub_is_said_at_once(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (constants, huggingface_hub.hf_api.constants):
        monkeypatch.setattr(module, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SourceFailed, match=r"Connection refused .*\(3 tries\)"):
        data.plan("hf://datasets/org/set")


def test_several_data_sets_in_one_repository_must_be_told_apart(hub: Hub) -> None:
    with pytest.raises(BadInput, match=r"several data sets: de, fr\n.*hf://datasets/org/two/de"):
        data.plan("hf://datasets/org/two")
    assert data.plan("hf://datasets/org/two/fr").rows == 500


def test_a_data_set_that_is_not_there_is_said_not_to_be(hub: Hub) -> None:
    with pytest.raises(BadInput, match="no data set org/none"):
        data.plan("hf://datasets/org/none")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("hf://datasets/a/b", ("a/b", None, "")),
        ("hf://datasets/a/b@v1/x/*.parquet", ("a/b", "v1", "x/*.parquet")),
        ("hf://datasets/a/b@refs/convert/parquet/c", ("a/b", "refs/convert/parquet", "c")),
        ("hf://datasets/a/b@feature%2Fx", ("a/b", "feature/x", "")),
    ],
)
def test_an_address_on_the_hub_is_repository_revision_and_pattern(text: str, parts: tuple[str, str, str]) -> None:
    assert parse(text) == parts


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/a.parquet", "a/../../b.parquet", "a\0.parquet"])
def test_a_listing_that_leaves_its_root_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="leaves it"):
        below(["a.parquet", name], "", "s3://b")
