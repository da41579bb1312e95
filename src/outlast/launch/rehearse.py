"""`outlast plan -- COMMAND`: start a script with hooks that tell its arguments and leave before it trains."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from outlast.errors import BadInput, OutlastError
from outlast.launch.order import INJECT, PACKAGE, first_on_path

_POLL_SECONDS = 0.1
_MEET_SECONDS = 30.0
_GRACE_SECONDS = 2.0
_TAIL = 8
_QUIET = {"WANDB_MODE": "disabled", "COMET_MODE": "disabled", "DISABLE_MLFLOW_INTEGRATION": "TRUE"}
"""Trackers that would begin a run in the script's name."""


def rehearse(
    command: Sequence[str],
    timeout: float,
    base: Mapping[str, str] | None = None,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Run a script up to where its training begins.

    What comes before that is really done: imports, downloads, the model, the data set.

    Args:
        command: words; no shell.
        timeout: seconds until it must have come there.
        base: environment; None takes that of the process.
        clock: seconds; only goes forward.

    Returns:
        What `outlast.integrations.planning` wrote: settings by our names, sizes in bytes.

    Raises:
        BadInput: when it cannot be started.
        OutlastError: when it ends, or takes too long, without training.
    """
    with tempfile.TemporaryDirectory(prefix="outlast-plan-") as folder, (Path(folder) / "said").open("wb") as said:
        answer = Path(folder) / "answer.json"
        child = _started(command, _environment(answer, os.environ if base is None else base), said.fileno())
        try:
            problem = _waited(child, answer, clock, timeout)
        finally:
            _end(child)
        if answer.exists():
            found = json.loads(answer.read_bytes())
            return dict(found)
        raise OutlastError(
            f"{' '.join(command)} {problem}{_tail(Path(said.name))}",
            hint="its arguments as flags do as well: --steps, --save-every, --save-limit, --save-bytes, --output-dir",
        )


def _environment(answer: Path, base: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in base.items() if not name.startswith("OUTLAST_")}
    ours = {
        "OUTLAST_PLAN": str(answer),
        "OUTLAST_PACKAGE": str(PACKAGE),
        "PYTHONPATH": first_on_path(str(INJECT), base.get("PYTHONPATH")),
    }
    return {**kept, **_QUIET, **ours}


def _started(command: Sequence[str], environment: Mapping[str, str], out: int) -> subprocess.Popen[bytes]:
    try:
        # A session of its own: what it starts ends with it, and Ctrl-C reaches us alone.
        return subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
        )
    except OSError as error:
        raise BadInput(
            f"cannot start {command[0]!r}: {os.strerror(error.errno or 0)}", hint="outlast plan [OPTIONS] -- COMMAND"
        ) from None


def _waited(child: subprocess.Popen[bytes], answer: Path, clock: Callable[[], float], timeout: float) -> str:
    """Wait for the answer; says what went wrong when none came."""
    begun = clock()
    while not answer.exists():
        if child.poll() is not None:
            if answer.exists():
                break
            return f"ended (exit code {child.returncode}) without a Trainer.train, a Trainer.fit or an optimizer step"
        met = Path(f"{answer}.met").exists()
        if not met and clock() - begun > _MEET_SECONDS:
            return "was ended: no Python process of it could be reached (python -I or -E, env -i, a container?)"
        if clock() - begun > timeout:
            return f"was ended after {timeout:.0f} s (--timeout): it had not begun to train"
        with suppress(subprocess.TimeoutExpired):
            child.wait(_POLL_SECONDS)
    return ""


def _end(child: subprocess.Popen[bytes]) -> None:
    """End the script and all that it started: after the answer the rest of a shell script must not run."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE_SECONDS)


def _tail(said: Path) -> str:
    lines = said.read_text(errors="replace").strip().splitlines()[-_TAIL:]
    return "".join(f"\n    {line}" for line in lines)
