"""System calls of a driver's loop, and running it again with one of them failing or fatal: strace's injection."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..conftest import child_environment
from . import looks


@dataclass(frozen=True, slots=True, order=True)
class Call:
    """One system call of the loop."""

    name: str
    number: int
    """How many of this name its thread had made with it: strace's ``when=``."""
    text: str = ""
    """Its arguments, shortened."""

    def __str__(self) -> str:
        return f"{self.name} number {self.number} ({self.text[:120]})"


_ALONE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
"""Outlast looks through /proc for users of a file: among its own processes only, so that the numbers stay the same."""
THREADS = ("-f", "--seccomp-bpf")
"""All threads, each with counts of its own: a fault comes back in every thread that makes so many calls."""
MAIN_THREAD = ()
"""The main thread only: a fault comes once."""


def calls_of_the_loop(
    root: Path, trace: Path, names: Sequence[str], *arguments: object, of: Sequence[str] = THREADS
) -> list[Call]:
    """Run a driver once and list the calls of its loop."""
    marks = ("access", "faccessat", "faccessat2")
    command = [
        *_ALONE,
        "strace",
        "-q",
        "-y",
        *of,
        "-s",
        "100",
        "-o",
        trace,
        "-e",
        f"trace={','.join((*names, *marks))}",
    ]
    subprocess.run(
        [*command, *looks.python(looks.DRIVER, root, *arguments)],
        check=True,
        stdout=subprocess.PIPE,
        env=child_environment(),
    )
    counts: Counter[tuple[str | None, str]] = Counter()
    found: dict[tuple[str, int], Call] = {}
    is_loop = False
    for line in trace.read_text(errors="replace").splitlines():
        match = re.match(r"(\d+ +)?(\w+)\((.*)", line)
        if not match:
            continue
        thread, name, text = match.groups()
        counts[thread, name] += 1
        if "/outlast-the-loop-" in line:
            is_loop = "starts" in line
        elif is_loop and name in names:
            number = counts[thread, name]
            found.setdefault((name, number), Call(name, number, text))
    return sorted(found.values())


def drive_with(
    fault: str, call: Call, root: Path, *arguments: object, of: Sequence[str] = THREADS
) -> subprocess.CompletedProcess[str]:
    """Run a driver with a fault at one call: ``signal=KILL`` or ``error=ENOSPC``."""
    command = [*_ALONE, "strace", "-qq", *of, "-o", "/dev/null", "-e", f"trace={call.name}"]
    command += ["-e", f"inject={call.name}:{fault}:when={call.number}"]
    command = [*command, *looks.python(looks.DRIVER, root, *arguments)]
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=child_environment(),
        start_new_session=True,
    )
    try:
        output, errors = child.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)  # strace alone would leave the driver behind
        output, errors = child.communicate()
        errors += "\nit did not end within 60 s"
    return subprocess.CompletedProcess(command, child.returncode, output, errors)
