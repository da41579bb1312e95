"""Real volumes for the torture tests: a tmpfs, or an ext4 image on a loop device. Both need root."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent / "scripts"
_HERE = Path(__file__).parent
IS_FULL = os.environ.get("OUTLAST_TORTURE") == "full"
"""`make torture`: the counts of the issues instead of a sample."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Everything in this folder is a torture test; without root there are no volumes to fill."""
    left_out = set() if IS_FULL else _beyond_the_sample(items)
    if left_out:
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = [item for item in items if item not in left_out]
    for item in items:
        if _HERE in Path(item.path).parents:
            item.add_marker(pytest.mark.torture)
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="needs root: mounts volumes"))


def _beyond_the_sample(items: list[pytest.Item]) -> set[pytest.Item]:
    """Cases of tests marked ``sampled(n)`` that `make test` leaves out: all but n of each, by a fixed seed."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("sampled"):
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    left_out: set[pytest.Item] = set()
    for name, found in cases.items():
        marker = found[0].get_closest_marker("sampled")
        assert marker is not None
        count = marker.args[0]
        left_out |= set(found) - set(random.Random(name).sample(found, min(count, len(found))))
    return left_out


def share(full: int) -> int:
    """How many of `full` cases to run: all with OUTLAST_TORTURE=full (`make torture`), else a seeded tenth."""
    return full if IS_FULL else max(2, full // 10)


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Make volumes: ``volume("45m")`` is a tmpfs, ``volume("45m", kind="ext4")`` an ext4 image of that size."""
    mounted: list[Path] = []

    def make(size: str, kind: str = "tmpfs") -> Path:
        place = tmp_path / f"volume{len(mounted)}"
        place.mkdir()
        if kind == "tmpfs":
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "outlast-test", place], check=True)
        else:
            image = tmp_path / f"image{len(mounted)}"
            subprocess.run(["truncate", "-s", size, image], check=True)
            # No journal and no reserved blocks: the size asked for is about the size to be had.
            subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", image], check=True)
            subprocess.run(["mount", "-o", "loop", image, place], check=True)
        mounted.append(place)
        return place

    yield make
    for place in reversed(mounted):
        subprocess.run(["chattr", "-R", "-i", place], stderr=subprocess.DEVNULL)
        subprocess.run(["umount", "-l", place], check=False)


def child_environment(**more: str) -> dict[str, str]:
    """The environment for a script under test: one thread, no hub, nothing of an outer Outlast run."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("OUTLAST")}
    return {**kept, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", **more}


def outlast(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "outlast", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=child_environment(),
        timeout=570,
        **options,  # type: ignore[call-overload]
    )


_SKIPPED: list[str] = []
_MUST_RUN = os.environ.get("OUTLAST_NO_SKIPS") == "1"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember what was skipped: in CI that is a failure, since these tests are the product's promises."""
    if report.skipped and _MUST_RUN and "torture" in report.nodeid:
        _SKIPPED.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a CI run in which a torture test was skipped."""
    if _SKIPPED and exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why."""
    for node in _SKIPPED:
        terminalreporter.write_line(f"skipped, which fails a CI run: {node}", red=True)
