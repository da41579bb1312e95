"""What a cloud tells a machine about its own end: the metadata servers of AWS, Google Cloud and Azure. A table of data.

Nothing is asked of the network where no local sign says whose machine this is: `server_here` reads files of sysfs and
variables only. Services that announce an end by SIGTERM alone (RunPod, Kubernetes, Slurm) are no rows of this table:
`platforms` tells of them. Sources that end in "(from memory)" were known and not looked up.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_LINK_LOCAL = "http://169.254.169.254"
_DMI = "sys/class/dmi/id"


@dataclass(frozen=True, slots=True)
class Notice:
    """An end of this machine that was announced."""

    by: float | None
    """When it comes at the earliest, seconds since the epoch; None for a warning that may come to nothing."""
    is_told: bool
    """The provider named that time; otherwise it is the last look without the notice, and the documented warning."""
    source: str
    """Who says so: ``AWS EC2, /latest/meta-data/spot/instance-action``."""
    text: str
    """What happens, for people."""
    machines: tuple[str, ...] = ()
    """Names of the machines that it is about; empty for this one."""


@dataclass(frozen=True, slots=True)
class Question:
    """A path that is asked again and again."""

    path: str
    """With its query."""
    read: Callable[[str, float, str], list[Notice]]
    """From the answer, the time that a warning counts from (seconds since the epoch) and the source to notices;
    ValueError for what is not of the documented form."""


@dataclass(frozen=True, slots=True)
class Provider:
    """A row of `PROVIDERS`."""

    name: str
    """Stable: ``aws``, ``gcp``, ``azure``."""
    title: str
    """For people."""
    signs: tuple[tuple[str, str], ...]
    """Files of ``/sys/class/dmi/id`` and the expression that one of them must match from its beginning."""
    questions: tuple[Question, ...]
    """What is asked."""
    headers: Mapping[str, str]
    """Sent with every question."""
    variable: str = ""
    """Variable of the provider's own tools that names another address; empty where there is none."""
    off: str = ""
    """Variable of the provider's own tools that forbids the questions when it is ``true``."""
    token: tuple[str, str, str] | None = None
    """Path of a session token (PUT), the header that says how long it is good for, and the one that carries it."""
    own_name: str = ""
    """Path that answers with this machine's name, where notices are about several machines."""


@dataclass(frozen=True, slots=True)
class Address:
    """The metadata server of this machine."""

    provider: Provider
    """Whose."""
    base: str
    """``http://host[:port]``."""
    why: str
    """The sign that told it."""


TOKEN_SECONDS = 21600
"""How long an AWS session token is asked for: the most there is (EC2 user guide, instance metadata; from memory)."""

AWS_WARNING = 120.0
"""EC2 user guide, "Spot Instance interruption notices": issued two minutes before a stop or termination."""
GCP_WARNING = 30.0
"""Compute Engine API, Scheduling.skipGuestOsShutdown: 30 s between soft and hard power-off for Spot VMs."""
GCP_MAINTENANCE_WARNING = 60.0
"""Compute Engine, "Query the metadata server for maintenance event notices": the value changes 60 s before. VMs with
GPUs hear it earlier, but not when it began to be said."""
AZURE_WARNING = 30.0
"""Azure, "Scheduled Events for Linux VMs": the least of all types, that of Preempt (from memory)."""


def _aws_action(body: str, since: float, source: str) -> list[Notice]:
    """``{"action": "terminate", "time": "2017-09-18T08:22:00Z"}``."""
    answer = _mapping(body)
    action, when = _word(answer, "action"), _iso(answer.get("time"))
    return [_ending(when, since, AWS_WARNING, source, f"AWS will {action} this spot instance")]


def _aws_rebalance(body: str, since: float, source: str) -> list[Notice]:
    """``{"noticeTime": "2020-11-05T08:22:00Z"}``: a risk, not an end; hours may pass, or nothing happens."""
    if _iso(_mapping(body).get("noticeTime")) is None:
        raise ValueError("no noticeTime")
    text = "AWS sees a higher risk that this spot instance is interrupted; nothing is stopped for that"
    return [Notice(None, False, source, text)]


def _gcp_preempted(body: str, since: float, source: str) -> list[Notice]:
    answer = _one_of(body, {"TRUE", "FALSE"})
    return [_ending(None, since, GCP_WARNING, source, "Google Cloud preempts this machine")] if answer == "TRUE" else []


def _gcp_maintenance(body: str, since: float, source: str) -> list[Notice]:
    """A live migration is no end: the machine goes on elsewhere."""
    ends = "TERMINATE_ON_HOST_MAINTENANCE"
    answer = _one_of(body, {"NONE", "MIGRATE_ON_HOST_MAINTENANCE", ends})
    text = "Google Cloud ends this machine for maintenance of its host"
    return [_ending(None, since, GCP_MAINTENANCE_WARNING, source, text)] if answer == ends else []


_AZURE_ENDS = {
    "Preempt": "evicts this spot machine",
    "Terminate": "deletes this machine",
    "Redeploy": "moves this machine to another host, its memory is lost",
    "Reboot": "restarts this machine",
}
"""Event types that end what runs; a Freeze pauses it for seconds."""


def _azure_events(body: str, since: float, source: str) -> list[Notice]:
    """``{"Events": [{"EventType": "Preempt", "Resources": ["vm"], "NotBefore": "Mon, 19 Sep 2016 18:29:47 GMT"}]}``.

    All machines of a scale set are told the events of all, and an event that has begun has no NotBefore.
    """
    events = _mapping(body).get("Events")
    if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
        raise ValueError("no list of Events")
    found = []
    for event in events:
        kind = _AZURE_ENDS.get(_word(event, "EventType"))
        machines = event.get("Resources") or []
        if not isinstance(machines, list) or not all(isinstance(name, str) for name in machines):
            raise ValueError("Resources is no list of names")
        if kind is None or event.get("EventStatus") == "Completed":
            continue
        when = _http_date(event.get("NotBefore"))
        notice = _ending(when, since, AZURE_WARNING, source, f"Azure {kind} ({event['EventType']})")
        found.append(Notice(notice.by, notice.is_told, source, notice.text, tuple(machines)))
    return found


PROVIDERS: tuple[Provider, ...] = (
    Provider(
        "aws", "AWS EC2",
        # Nitro machines say "Amazon EC2"; those on Xen only have it in the version of their BIOS ("4.11.amazon").
        signs=(("sys_vendor", "Amazon EC2"), ("bios_vendor", "Amazon EC2"), ("bios_version", ".*amazon"),
               ("board_asset_tag", "i-[0-9a-f]{8,17}$")),
        questions=(
            Question("/latest/meta-data/spot/instance-action", _aws_action),
            Question("/latest/meta-data/events/recommendations/rebalance", _aws_rebalance),
        ),
        headers={},
        variable="AWS_EC2_METADATA_SERVICE_ENDPOINT",
        off="AWS_EC2_METADATA_DISABLED",
        token=("/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds", "X-aws-ec2-metadata-token"),
    ),
    Provider(
        "gcp", "Google Cloud",
        # Not the vendor: Chromebooks have the same one.
        signs=(("product_name", "Google Compute Engine"),),
        questions=(
            Question("/computeMetadata/v1/instance/preempted", _gcp_preempted),
            Question("/computeMetadata/v1/instance/maintenance-event", _gcp_maintenance),
        ),
        headers={"Metadata-Flavor": "Google"},
        variable="GCE_METADATA_HOST",
    ),
    Provider(
        "azure", "Azure",
        # Not the vendor: any Hyper-V machine has the same one. cloud-init knows Azure by this tag too.
        signs=(("chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77"),),
        questions=(Question("/metadata/scheduledevents?api-version=2020-07-01", _azure_events),),
        headers={"Metadata": "true"},
        own_name="/metadata/instance/compute/name?api-version=2021-02-01&format=text",
    ),
)  # fmt: skip
"""Who announces an end by a metadata server."""


def server_here(environment: Mapping[str, str] | None = None, *, root: Path = Path("/")) -> Address | None:
    """The metadata server of this machine; None where nothing says that it has one of `PROVIDERS`.

    Args:
        environment: variables; None takes those of the process.
        root: root of the file system; a fake one in tests.
    """
    values = os.environ if environment is None else environment
    allowed = [one for one in PROVIDERS if values.get(one.off, "").lower() != "true"]
    for provider in allowed:
        if address := values.get(provider.variable):
            base = address if "://" in address else f"http://{address}"
            return Address(provider, base.rstrip("/"), f"{provider.variable} is set")
    for provider in allowed:
        for name, expression in provider.signs:
            told = _first_line(root / _DMI / name)
            if re.match(expression, told):
                return Address(provider, _LINK_LOCAL, f"/{_DMI}/{name} is {told!r}")
    return None


def _first_line(path: Path) -> str:
    try:
        return path.read_text(errors="replace").partition("\n")[0].strip()
    except OSError:  # no such field, or only root may read it
        return ""


def _ending(when: float | None, since: float, warning: float, source: str, text: str) -> Notice:
    return Notice(since + warning if when is None else when, when is not None, source, text)


def _mapping(body: str) -> dict[str, object]:
    try:
        answer = json.loads(body)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(answer, dict):
        raise ValueError("no JSON object")
    return answer


def _word(answer: Mapping[str, object], name: str) -> str:
    word = answer.get(name)
    if not isinstance(word, str) or not re.fullmatch(r"[A-Za-z]{1,32}", word):
        raise ValueError(f"no {name}")
    return word


def _one_of(body: str, words: set[str]) -> str:
    word = body.strip().upper()
    if word not in words:
        raise ValueError(f"none of {', '.join(sorted(words))}")
    return word


def _iso(value: object) -> float | None:
    """Seconds since the epoch of ``2017-09-18T08:22:00Z``; None for nothing that can be read as a time."""
    try:
        when = datetime.fromisoformat(str(value))
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _http_date(value: object) -> float | None:
    """Seconds since the epoch of ``Mon, 19 Sep 2016 18:29:47 GMT``; None for nothing that can be read as a time."""
    from email.utils import parsedate_to_datetime  # only here: it brings most of the email package

    try:
        when = parsedate_to_datetime(str(value))
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
