"""Runs `outlast` as a user does, for tests of real commands."""

from __future__ import annotations

import os
import subprocess
import sys

LAST_RESORT_SECONDS = 120


def clean_environment(**more: str) -> dict[str, str]:
    """Ours, without anything of an outer Outlast run."""
    return {**{k: v for k, v in os.environ.items() if not k.startswith(("OUTLAST", "PYTHONPATH"))}, **more}


def run_outlast(*words: object, **options: object) -> subprocess.CompletedProcess[str]:
    """`outlast` as a user calls it."""
    options.setdefault("env", clean_environment())
    options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run(
        [sys.executable, "-m", "outlast", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=LAST_RESORT_SECONDS,
        **options,
    )
