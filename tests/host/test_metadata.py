"""Asking a metadata server, over real sockets on loopback."""

from __future__ import annotations

import itertools
import json
import socket
from collections.abc import Iterator

import pytest
from tests.metadata_server import ACTION, EVENTS, MAINTENANCE, NAME, PREEMPTED, REBALANCE, Cloud, clouds

from outlast.host import Address, notices
from outlast.host.metadata import Answer, MetadataServer

PROVIDERS = {provider.name: provider for provider in notices.PROVIDERS}
NOW = 1_800_000_000.0


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with clouds() as serving:
        yield serving


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


def server(cloud: Cloud, name: str, clock: Clock | None = None, *, wait: float = 30.0) -> MetadataServer:
    return MetadataServer(Address(PROVIDERS[name], cloud.url, "a test"), wait=wait, clock=clock or Clock())


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_quiet_cloud_announces_nothing(cloud: Cloud, name: str) -> None:
    assert server(cloud, name).look() == Answer((), None)


def test_aws_is_asked_with_a_session_token_that_is_fetched_once(cloud: Cloud) -> None:
    aws = server(cloud, "aws")
    aws.look()
    cloud.answers[ACTION] = '{"action": "terminate", "time": "2027-01-15T08:02:00Z"}'
    answer = aws.look()
    assert [notice.by for notice in answer.notices] == [NOW + 120] and answer.problem is None
    assert [one for one in cloud.requests if one.startswith("PUT")] == ["PUT /latest/api/token"]


def test_a_token_that_no_longer_holds_is_replaced(cloud: Cloud) -> None:
    clock = Clock()
    aws = server(cloud, "aws", clock)
    aws.look()
    cloud.tokens.clear()
    assert aws.look() == Answer((), None)
    clock.now += 22_000
    aws.look()
    assert sum(one.startswith("PUT") for one in cloud.requests) == 3


def test_a_rebalance_recommendation_comes_beside_the_end(cloud: Cloud) -> None:
    cloud.answers[REBALANCE] = '{"noticeTime": "2027-01-15T08:00:00Z"}'
    cloud.answers[ACTION] = '{"action": "stop", "time": "2027-01-15T08:02:00Z"}'
    assert [notice.by for notice in server(cloud, "aws").look().notices] == [NOW + 120, None]


def test_google_is_asked_with_its_header_and_answers(cloud: Cloud) -> None:
    cloud.answers |= {PREEMPTED: "TRUE", MAINTENANCE: "TERMINATE_ON_HOST_MAINTENANCE"}
    answer = server(cloud, "gcp").look()
    assert [(notice.by, notice.is_told) for notice in answer.notices] == [(NOW + 30, False), (NOW + 60, False)]


def test_a_warning_without_a_time_counts_from_the_last_look_without_it(cloud: Cloud) -> None:
    clock = Clock()
    gcp = server(cloud, "gcp", clock)
    gcp.look()
    cloud.answers[PREEMPTED] = "TRUE"
    clock.now += 5
    assert [notice.by for notice in gcp.look().notices] == [NOW + 30]
    clock.now += 5
    assert [notice.by for notice in gcp.look().notices] == [NOW + 30]


def events(*machines: str) -> str:
    return json.dumps({"Events": [{"EventType": "Preempt", "Resources": list(machines), "NotBefore": ""}]})


def test_azure_tells_every_machine_of_a_scale_set_and_only_its_own_counts(cloud: Cloud) -> None:
    azure = server(cloud, "azure")
    cloud.answers[EVENTS] = events("trainer_1", "trainer_2")
    assert azure.look() == Answer((), None)
    cloud.answers[EVENTS] = events("trainer_1", "TRAINER_0")
    assert len(azure.look().notices) == 1
    assert sum(one.startswith(f"GET {NAME}") for one in cloud.requests) == 1


def test_a_machine_that_cannot_read_its_name_takes_every_notice_for_its_own(cloud: Cloud) -> None:
    cloud.answers[EVENTS] = events("somebody")
    del cloud.answers[NAME]
    assert len(server(cloud, "azure").look().notices) == 1


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_server_that_is_not_there_or_does_not_answer_is_a_problem_and_no_exception(cloud: Cloud, name: str) -> None:
    cloud.is_mute = True
    slow = server(cloud, name, wait=0.05).look()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nowhere = MetadataServer(Address(PROVIDERS[name], f"http://127.0.0.1:{taken.getsockname()[1]}", ""))
        refused = nowhere.look()
    assert slow.notices == refused.notices == ()
    assert "timed out" in (slow.problem or "") and "refused" in (refused.problem or "")


DRIPS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX-",
    b"H",
]


@pytest.mark.parametrize("drips", DRIPS)
def test_a_server_that_drips_holds_nobody_however_often_a_byte_comes(cloud: Cloud, drips: bytes) -> None:
    cloud.drips = drips
    ticks = itertools.count(0.0, 0.5)
    address = Address(PROVIDERS["gcp"], cloud.url, "a test")
    answer = MetadataServer(address, wait=2.0, ticks=lambda: next(ticks)).look()
    assert answer.notices == () and "timed out" in (answer.problem or "")
    assert next(ticks) < 10, "two questions, each asked the time until its two seconds were over"


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("body", ["<html>Please log in</html>", "\x00\xff", "x" * 300_000, "{}", ""])
def test_garbage_is_a_problem_and_no_notice(cloud: Cloud, name: str, body: str) -> None:
    cloud.answers = dict.fromkeys((ACTION, REBALANCE, PREEMPTED, MAINTENANCE, EVENTS), body)
    answer = server(cloud, name).look()
    assert answer.notices == () and "not of the documented form" in (answer.problem or "")


@pytest.mark.parametrize("status", [301, 403, 429, 500, 503])
def test_a_server_that_refuses_is_a_problem(cloud: Cloud, status: int) -> None:
    cloud.status = status
    assert f"HTTP {status}" in (server(cloud, "gcp").look().problem or "")


@pytest.mark.parametrize("base", ["https://127.0.0.1", "nonsense", "http://", "http://x:port", "http://[::1"])
def test_an_address_that_is_none_is_a_problem(base: str) -> None:
    assert MetadataServer(Address(PROVIDERS["aws"], base, "")).look().problem


def test_what_is_no_http_at_all_is_a_problem() -> None:
    import threading

    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            for _ in range(2):
                with listening.accept()[0] as peer:
                    peer.recv(1000)
                    peer.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        found = MetadataServer(Address(PROVIDERS["gcp"], f"http://127.0.0.1:{listening.getsockname()[1]}", "")).look()
        thread.join()
    assert found.notices == () and found.problem
