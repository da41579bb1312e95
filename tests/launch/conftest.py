"""Fixtures for tests that run real commands under `outlast run`."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from running import run_outlast

from outlast import journal
from outlast.journal import Event


@pytest.fixture
def guarded(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command guarded, with the journal under tmp_path."""

    def run(*command: object, options: tuple[object, ...] = (), **more: object) -> subprocess.CompletedProcess[str]:
        return run_outlast("run", "--dir", tmp_path, *options, "--", *command, **more)

    return run


@pytest.fixture
def events(tmp_path: Path) -> Callable[..., list[Event]]:
    """Events of the newest run under tmp_path, of one name or all."""

    def read(name: str | None = None) -> list[Event]:
        found = journal.read(tmp_path, journal.runs(tmp_path)[-1])
        return [event for event in found if name in (None, event.name)]

    return read
