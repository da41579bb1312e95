"""What a metadata server's answers mean, and which machine has one: text in, plain data out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.host import Notice, notices, server_here

SINCE = 1_800_000_000.0
QUESTIONS = {
    question.path.partition("?")[0]: question for provider in notices.PROVIDERS for question in provider.questions
}
ACTION, REBALANCE, PREEMPTED, MAINTENANCE, EVENTS = QUESTIONS


def read(path: str, body: str) -> list[Notice]:
    return QUESTIONS[path].read(body, SINCE, "the cloud")


def event(**more: object) -> str:
    known = {"EventId": "1", "EventType": "Preempt", "Resources": ["vm"], "EventStatus": "Scheduled", "NotBefore": ""}
    return json.dumps({"DocumentIncarnation": 2, "Events": [known | more]})


def test_aws_names_the_time_of_the_end() -> None:
    (notice,) = read(ACTION, '{"action": "terminate", "time": "2017-09-18T08:22:00Z"}')
    assert (notice.by, notice.is_told) == (1505722920.0, True)
    assert "terminate this spot instance" in notice.text


@pytest.mark.parametrize("when", ["", "soon", None, 7])
def test_an_aws_notice_without_a_time_counts_two_minutes(when: object) -> None:
    (notice,) = read(ACTION, json.dumps({"action": "stop", "time": when}))
    assert (notice.by, notice.is_told) == (SINCE + 120, False)


def test_a_rebalance_recommendation_is_a_warning_and_no_end() -> None:
    (notice,) = read(REBALANCE, '{"noticeTime": "2020-11-05T08:22:00Z"}')
    assert notice.by is None and "risk" in notice.text


def test_google_says_true_half_a_minute_before() -> None:
    assert read(PREEMPTED, "FALSE") == []
    (notice,) = read(PREEMPTED, "TRUE\n")
    assert (notice.by, notice.is_told) == (SINCE + 30, False)


def test_a_live_migration_is_no_end() -> None:
    assert read(MAINTENANCE, "NONE") == read(MAINTENANCE, "MIGRATE_ON_HOST_MAINTENANCE") == []
    (notice,) = read(MAINTENANCE, "TERMINATE_ON_HOST_MAINTENANCE")
    assert notice.by == SINCE + 60


@pytest.mark.parametrize("kind", ["Preempt", "Terminate", "Redeploy", "Reboot"])
def test_azures_events_that_lose_the_memory_are_ends(kind: str) -> None:
    (notice,) = read(EVENTS, event(EventType=kind, NotBefore="Mon, 19 Sep 2016 18:29:47 GMT"))
    assert (notice.by, notice.is_told, notice.machines) == (1474309787.0, True, ("vm",))


def test_an_azure_event_that_has_begun_has_no_time() -> None:
    (notice,) = read(EVENTS, event(EventStatus="Started"))
    assert (notice.by, notice.is_told) == (SINCE + 30, False)


@pytest.mark.parametrize("more", [{"EventType": "Freeze"}, {"EventStatus": "Completed"}])
def test_a_pause_of_seconds_and_what_is_over_are_no_ends(more: dict[str, object]) -> None:
    assert read(EVENTS, event(**more)) == []


PAGE = "<html><body>Please log in to the WiFi</body></html>"


@pytest.mark.parametrize("path", QUESTIONS)
@pytest.mark.parametrize("body", ["", PAGE, "[]", "null", "{", "[" * 100_000, '{"Events": [7]}', '{"Events": 7}'])
def test_what_is_not_of_the_documented_form_is_no_notice(path: str, body: str) -> None:
    with pytest.raises(ValueError):
        read(path, body)


@given(body=st.text() | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(
        st.sampled_from(["Events", "EventType", "Resources", "NotBefore", "action", "time", "noticeTime"]), inner
    ),
).map(json.dumps))  # fmt: skip
def test_any_text_is_a_list_of_notices_or_a_value_error(body: str) -> None:
    for path in QUESTIONS:
        try:
            found = read(path, body)
        except ValueError:
            continue
        assert all(isinstance(notice, Notice) for notice in found)


# Which machine


@pytest.fixture
def machine(tmp_path: Path) -> Callable[..., Path]:
    def make(**files: str) -> Path:
        folder = tmp_path / "sys/class/dmi/id"
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name).write_text(text + "\n")
        return tmp_path

    return make


MACHINES = {
    "aws, Nitro": ({"sys_vendor": "Amazon EC2", "product_name": "g5.xlarge"}, "aws"),
    "aws, Xen": ({"sys_vendor": "Xen", "product_name": "HVM domU", "bios_version": "4.11.amazon"}, "aws"),
    "aws, by its id alone": ({"board_asset_tag": "i-0123456789abcdef0"}, "aws"),
    "google": ({"sys_vendor": "Google", "product_name": "Google Compute Engine"}, "gcp"),
    "azure": (
        {"sys_vendor": "Microsoft Corporation", "chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77"}, "azure",
    ),
    "a Chromebook": ({"sys_vendor": "Google", "product_name": "Eve"}, None),
    "Hyper-V": ({"sys_vendor": "Microsoft Corporation", "product_name": "Virtual Machine"}, None),
    "a desktop": ({"sys_vendor": "ASUS", "bios_vendor": "American Megatrends", "board_asset_tag": "Default"}, None),
    "a rented machine": ({"sys_vendor": "Supermicro", "product_name": "AS -4124GS-TNR"}, None),
    "nothing to be read": ({}, None),
}  # fmt: skip


@pytest.mark.parametrize("kind", MACHINES)
def test_only_a_machine_that_shows_a_sign_is_asked(machine: Callable[..., Path], kind: str) -> None:
    files, name = MACHINES[kind]
    found = server_here({}, root=machine(**files))
    assert (found and found.provider.name) == name
    assert found is None or found.base == "http://169.254.169.254"


def test_the_providers_own_variables_name_another_address(tmp_path: Path) -> None:
    aws = server_here({"AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:8080/"}, root=tmp_path)
    gcp = server_here({"GCE_METADATA_HOST": "127.0.0.1:8081"}, root=tmp_path)
    assert aws and (aws.provider.name, aws.base) == ("aws", "http://127.0.0.1:8080")
    assert gcp and (gcp.provider.name, gcp.base) == ("gcp", "http://127.0.0.1:8081")


def test_who_forbids_the_metadata_server_to_awss_tools_forbids_it_to_us(machine: Callable[..., Path]) -> None:
    root = machine(sys_vendor="Amazon EC2")
    assert server_here({"AWS_EC2_METADATA_DISABLED": "true"}, root=root) is None
    assert server_here({"AWS_EC2_METADATA_DISABLED": "false"}, root=root) is not None
