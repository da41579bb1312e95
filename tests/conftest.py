"""What every test has: no outer Outlast run in its environment, and properties that are never judged by the clock."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# Tests run side by side: torch's threads would spin for each other's cores. Set before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("outlast", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("outlast")

# A shell's background jobs, and some CI systems, ignore SIGINT, and so would every child of these tests.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_outer_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that runs below `outlast run` must not follow that run's policy, budgets or journal."""
    for name in [name for name in os.environ if name.startswith("OUTLAST_") and name != "OUTLAST_TORTURE"]:
        monkeypatch.delenv(name)
