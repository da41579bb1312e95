"""Over HTTP: only what is wanted travels, what was planned; cuts, 429 and 5xx pass; whole files only is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from outlast import data
from outlast.data.sources import open_source
from outlast.data.sources.http import expand
from outlast.data.sources.patience import NoAnswer, Passing, Patience, asked_wait
from outlast.errors import BadInput, SourceChanged, SourceFailed
from tests.data.subsets import content, numbers, parquet
from tests.torture.range_server import Ranges, Trouble, serving


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waits are written down, not waited."""
    waits: list[float] = []
    defaults = Patience.__init__.__defaults__
    assert defaults is not None
    monkeypatch.setattr(Patience.__init__, "__defaults__", (*defaults[:-1], waits.append))
    return waits


def files(server: Ranges) -> list[str]:
    return [path for path, _ in server.requests]


def test_what_travels_is_what_was_planned_and_little_else(tmp_path: Path) -> None:
    folder = parquet(tmp_path / "s", size=3000)
    with serving(folder) as server:
        plan = data.plan(f"{server.url}/", rows=100, columns="text")
        planned, server.sent = server.sent, 0
        found = data.fetch_telling(f"{server.url}/", tmp_path / "o", lambda progress: None, rows=100, columns="text")
    assert planned < 70_000
    assert server.sent == found.wire_bytes
    assert abs(server.sent - plan.cost.wire_bytes) <= 0.05 * server.sent
    assert server.sent < sum(path.stat().st_size for path in folder.iterdir()) / 5
    assert {"part-1.parquet", "part-2.parquet"}.isdisjoint(files(server))


def test_a_subset_over_http_is_that_of_the_files(tmp_path: Path) -> None:
    folder = parquet(tmp_path / "s")
    with serving(folder) as server:
        data.fetch(f"{server.url}/part-{{0..2}}.parquet", tmp_path / "o", rows=1200, sample="random", columns="n")
    data.fetch(str(folder), tmp_path / "p", rows=1200, sample="random", columns="n")
    assert numbers(tmp_path / "o") == numbers(tmp_path / "p")


def test_cuts_and_refusals_are_lived_through_and_the_bytes_are_the_same(tmp_path: Path, no_waits: list[float]) -> None:
    with serving(parquet(tmp_path / "s", size=3000)) as server:
        data.fetch(f"{server.url}/", tmp_path / "good")
        server.trouble.extend(
            [None, Trouble(503), None, Trouble(cut_after=100), Trouble(429, "7"), Trouble(cut_after=0), None,
             Trouble(cut_after=40_000), Trouble(500), Trouble(cut_after=1)]
        )  # fmt: skip
        data.fetch(f"{server.url}/", tmp_path / "o")
        assert not server.trouble
    assert content(tmp_path / "o") == content(tmp_path / "good")
    assert 7.0 in no_waits


def test_a_cut_answer_is_gone_on_with_where_it_was_cut(tmp_path: Path, no_waits: list[float]) -> None:
    with serving({"a.parquet": bytes(300_000)}) as server:
        source = open_source(f"{server.url}/a.parquet")
        file = source.look("a.parquet", "head")
        server.trouble.append(Trouble(cut_after=65_536))
        assert source.read(file, 100_000, 300_000) == bytes(200_000)
        assert server.requests[-1][1] == f"bytes={100_000 + 65_536}-299999"
        source.close()


def test_a_server_that_never_answers_is_given_up_and_what_is_done_is_kept(
    tmp_path: Path, no_waits: list[float]
) -> None:
    with serving(parquet(tmp_path / "s")) as server:
        server.trouble.extend([None, *[Trouble(503)] * 100])
        with pytest.raises(SourceFailed, match=r"503.*7 tries\)\n.*same command"):
            data.fetch(f"{server.url}/", tmp_path / "o")
        assert len(no_waits) == 6
        server.trouble.clear()
        data.fetch(f"{server.url}/", tmp_path / "o")
    assert numbers(tmp_path / "o") == list(range(1500))


def test_who_waits_for_a_server_is_let_go_when_the_source_is_closed() -> None:
    patience = Patience(first_wait=600.0, longest_wait=600.0)
    patience.stopped.set()

    def attempt() -> None:
        raise Passing("503")

    with pytest.raises(SourceFailed, match="stopped"):
        patience.try_until_done("a", attempt)


def test_a_server_that_ignores_ranges_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with serving(parquet(tmp_path / "s"), knows_ranges=False) as server:
        with pytest.raises(SourceFailed, match="ignores ranges") as caught:
            data.fetch(f"{server.url}/part-0.parquet", tmp_path / "o")
        assert "curl -LO" in caught.value.hint
    assert content(tmp_path / "o") == {}


def test_lines_are_read_from_a_server_that_ignores_ranges_and_no_further_than_needed(tmp_path: Path) -> None:
    text = b"".join(b'{"n": %d, "text": "%s"}\n' % (n, b"x" * 1000) for n in range(60_000))
    with serving({"a.jsonl": text}, knows_ranges=False) as server:
        data.fetch(f"{server.url}/a.jsonl", tmp_path / "o", rows=500)
        assert server.sent < len(text) / 2
    assert numbers(tmp_path / "o") == list(range(500))


def test_a_file_that_changed_between_two_requests_is_an_error(tmp_path: Path) -> None:
    with serving(parquet(tmp_path / "s", size=3000)) as server:
        data.fetch(f"{server.url}/", tmp_path / "o", rows=100)
        before = content(tmp_path / "o")
        source = open_source(f"{server.url}/part-0.parquet")
        file = source.look("part-0.parquet", "tail")
        server.etag = "two"
        with pytest.raises(SourceChanged, match="changed while it was read"):
            source.read(file, 0, 100)
        source.close()
        with pytest.raises(SourceChanged, match="another folder"):
            data.fetch(f"{server.url}/", tmp_path / "o", rows=200)
    assert content(tmp_path / "o") == before


def test_a_source_that_never_answered_is_given_up_sooner_than_one_that_did() -> None:
    tries = 0

    def ask() -> None:
        nonlocal tries
        tries += 1
        raise NoAnswer("refused")

    patience = Patience(sleep=lambda seconds: None)
    with pytest.raises(SourceFailed):
        patience.try_until_done("it", ask)
    assert tries == patience.first_tries
    patience.try_until_done("it", lambda: None)
    with pytest.raises(SourceFailed):
        patience.try_until_done("it", ask)
    assert tries == patience.first_tries + patience.tries


@pytest.mark.parametrize(
    ("status", "said"), [(404, "is not there"), (401, "may not be read"), (403, "may not be read")]
)
def test_what_does_not_pass_by_itself_is_not_tried_again(tmp_path: Path, status: int, said: str) -> None:
    with serving({"a.parquet": b""}) as server:
        server.trouble.append(Trouble(status))
        with pytest.raises(BadInput, match=said):
            data.plan(f"{server.url}/a.parquet")
        assert len(server.requests) == 1


def test_an_index_page_is_read_for_what_lies_in_the_folder_only(tmp_path: Path) -> None:
    page = b'<a href="/secret.parquet">x</a><a href="../up.parquet">x</a><a href="http://other/a.parquet">x</a>'
    page += b'<a href="in%20side.parquet">x</a><a href="deep/er.parquet">x</a><a href="notes.md">x</a>'
    with serving({"d/": page}) as server:
        source = open_source(f"{server.url}/d/")
        assert source.paths() == ("in side.parquet",)
        source.close()


def test_braces_count_and_list() -> None:
    assert list(expand("h/{08..10}-{a,b}.parquet")) == [
        f"h/{n}-{word}.parquet" for n in ("08", "09", "10") for word in ("a", "b")
    ]
    with pytest.raises(BadInput, match="too many"):
        list(expand("h/{0..999999}"))


def test_back_off_doubles_to_a_bound_and_progress_starts_it_anew() -> None:
    waits: list[float] = []
    patience = Patience(tries=4, sleep=waits.append)
    done = [0]
    failures = iter([0, 0, 1, 0, 0, 1, 0, 0, 0])

    def attempt() -> None:
        done[0] += next(failures)
        raise Passing("503")

    with pytest.raises(SourceFailed):
        patience.try_until_done("a", attempt, lambda: done[0])
    assert waits == [0.5, 1.0, 0.5, 1.0, 2.0, 0.5, 1.0, 2.0]
    assert patience.wait(50, None) == 30.0 and patience.wait(1, 10_000.0) == 300.0


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("soon", None), (None, None)]
)
def test_retry_after_is_a_number_or_a_date(header: str | None, seconds: float | None) -> None:
    assert asked_wait(header) == seconds


def test_a_password_in_the_address_is_used_and_told_to_nobody(tmp_path: Path) -> None:
    with serving(parquet(tmp_path / "s", files=1)) as server:
        address = server.url.replace("://", "://me:secret@")
        manifest = data.fetch(f"{address}/part-0.parquet", tmp_path / "o", rows=10)
    assert "secret" not in (tmp_path / "o/manifest.json").read_text() and "127.0.0.1" in manifest.source


@pytest.mark.parametrize("says_version", [True, False])
def test_rows_of_another_server_or_of_another_size_are_not_mixed_in(tmp_path: Path, says_version: bool) -> None:
    """A server without versions tells only the size; two servers may have the same version for different things."""
    first, other = (pq_bytes(tmp_path / name, rows) for name, rows in (("a", 500), ("b", 400)))
    with serving({"p.parquet": first}, says_version=says_version) as server:
        data.fetch(f"{server.url}/p.parquet?token=secret", tmp_path / "o", rows=100)
        assert b"secret" not in (tmp_path / "o/manifest.json").read_bytes()
        server.files = {"p.parquet": other}
        with pytest.raises(SourceChanged):
            data.fetch(f"{server.url}/p.parquet", tmp_path / "o", rows=300)
    if not says_version:
        with serving({"p.parquet": first}, says_version=False) as server, pytest.raises(SourceChanged):
            data.fetch(f"{server.url}/p.parquet", tmp_path / "o", rows=300)


def test_addresses_that_are_one_name_are_refused() -> None:
    with pytest.raises(BadInput, match="4 addresses and 1 names"):
        data.plan("http://127.0.0.1:9/get.parquet?part={0..3}")


def pq_bytes(folder: Path, rows: int) -> bytes:
    return next(parquet(folder, 1, rows).iterdir()).read_bytes()
