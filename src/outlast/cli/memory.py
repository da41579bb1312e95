"""``outlast memory``: main memory and GPUs, who holds them, and whether that is good to start with."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated

import typer

from outlast.cli import _app
from outlast.errors import BadInput
from outlast.host.check import MemoryCheck, check, gpus_here
from outlast.host.check_report import document, lines
from outlast.host.gpus import Gpus
from outlast.host.numbers import COUNT, Number

app = _app.new(__doc__ or "")
_PAUSE = Number("seconds between two readings, more than 0 and at most a day", most=86_400)
_CLEAR = "\x1b[H\x1b[2J"


@app.command(epilog="Exit codes: 0 shown, whatever the light; 2 bad input.")
def memory(
    pid: Annotated[
        int | None,
        typer.Option("--pid", metavar="PID", help="A process: its group, what it and those below it hold."),
    ] = None,
    watch: Annotated[
        float | None, typer.Option("--watch", metavar="SECONDS", help="Show it again and again, until Ctrl-C.")
    ] = None,
    as_json: _app.Json = False,
) -> None:
    """Show main memory against the limit that counts here (a container's, not the machine's), and each GPU."""
    if pid is not None:
        COUNT.given("--pid", pid)
    if watch is None:
        found = _look(pid, gpus_here)
        _app.print_json(document(found)) if as_json else print("\n".join(lines(found)))
        return
    try:
        _watch(pid, _PAUSE.given("--watch", watch), as_json=as_json)
    except KeyboardInterrupt:
        return


def _watch(pid: int | None, seconds: float, *, as_json: bool) -> None:
    ask: Callable[[], Gpus] = gpus_here
    while True:
        found = _look(pid, ask)
        if found.gpus is None:
            # A driver that hangs once would leave a thread behind at each reading.
            ask = partial(Gpus, None, problem=found.gpu_problem)
        if as_json:
            print(json.dumps({"time": time.time(), **document(found)}, default=str), flush=True)
        else:
            print(_CLEAR if sys.stdout.isatty() else "", "\n".join(lines(found)), sep="", flush=True)
        time.sleep(seconds)


def _look(pid: int | None, ask: Callable[[], Gpus]) -> MemoryCheck:
    found = check(pid, gpus=ask)
    if pid is not None and not found.tree:
        raise BadInput(f"there is no process {pid} that holds memory", hint="a process id, as ps shows it")
    return found
