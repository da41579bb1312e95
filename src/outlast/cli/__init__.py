"""The command line: one module a command, loaded only when that command is called.

A command is a row of `COMMANDS` and a module with ``app``, a typer application made by `outlast.cli._app.new`.
``outlast --help`` imports neither, so that it answers at once.

Exit codes: 0 done, 1 an error of Outlast's, 2 bad input; ``outlast run`` passes on its command's own.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from outlast.errors import BadInput, OutlastError


@dataclass(frozen=True, slots=True)
class Command:
    """A row of the command table."""

    module: str
    """Module that holds its ``app``."""
    summary: str
    """One line for ``outlast --help``."""


COMMANDS: dict[str, Command] = {
    "run": Command("outlast.cli.run", "Run a command guarded: it survives a full disk, an OOM-kill, a kill."),
    "why": Command("outlast.cli.why", "Explain how the last run here ended, with evidence and the fix."),
    "checkpoints": Command("outlast.cli.checkpoints", "List, verify, prune or pin checkpoints."),
    "plan": Command("outlast.cli.plan", "Will a run fit its disk, when is it full, what would each change do."),
    "doctor": Command("outlast.cli.doctor", "Look at this folder's volumes and checkpoints before a run."),
    "memory": Command("outlast.cli.memory", "Main memory and GPUs: the limit that counts, who holds what, a light."),
    "fit": Command(
        "outlast.cli.fit", "The fastest way to train a batch that fits a GPU; needs neither GPU nor weights."
    ),
    "env": Command("outlast.cli.env", "Variables that put every cache where there is room, for a shell to read."),
    "audit": Command(
        "outlast.cli.audit", "How much of a LoRA adapter is used: a smaller rank is a smaller checkpoint."
    ),
    "clean": Command("outlast.cli.clean", "What caches hold that can be freed; deletes nothing until told to."),
    "data": Command("outlast.cli.data", "A subset of any data set, in bounded disk: plan what it costs, fetch it."),
    "migrate": Command("outlast.cli.migrate", "Move an existing cache to another volume, verified; can be resumed."),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry of the ``outlast`` script.

    Args:
        arguments: words after ``outlast``; None takes those of the process.

    Returns:
        The exit code.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names on disk are bytes, and need not be text
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return _answer(words)
        finally:
            if sys.stdout is not None:  # closed by who called: python has no object for it then
                sys.stdout.flush()
    except BrokenPipeError:
        # The reader, such as `head`, has what it wanted. The interpreter flushes once more on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _answer(words: list[str]) -> int:
    name = words[0] if words else "--help"
    if name in ("--help", "-h"):
        print(_help())
        return 0
    if name == "--version":
        from outlast import __version__

        print(f"outlast {__version__}")
        return 0
    try:
        return _call(name, words[1:])
    except BrokenPipeError:
        raise
    except (OutlastError, OSError) as found:
        # An OSError here is the machine's answer, not a bug: a folder that is gone, a disk that is full.
        error = found if isinstance(found, OutlastError) else OutlastError(str(found), hint="outlast doctor")
        print(f"outlast: {error}", file=sys.stderr)
        if "--json" in words[: words.index("--") if "--" in words else None]:
            print(json.dumps({"error": error.message, "hint": error.hint}))
        return 2 if isinstance(error, BadInput) else 1


def _call(name: str, words: list[str]) -> int:
    if name not in COMMANDS:
        raise BadInput(f"there is no command {name!r}", hint=f"one of: {', '.join(COMMANDS)}; see outlast --help")
    app = import_module(COMMANDS[name].module).app
    from typer import BadParameter

    # Its base is click's UsageError, or that of a copy of click's own which typer carries.
    usage_error: Any = BadParameter.__base__
    try:
        code = app(args=words, prog_name=f"outlast {name}", standalone_mode=False)
    except usage_error as error:
        # The command of several words that it went wrong in: `outlast checkpoints list`.
        path = error.ctx.command_path if error.ctx else f"outlast {name}"
        raise BadInput(error.format_message().rstrip("."), hint=f"{path} --help") from None
    return code if isinstance(code, int) else 0


def _help() -> str:
    width = max(map(len, COMMANDS)) + 2
    rows = [f"  {name:<{width}}{command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "Usage: outlast COMMAND [OPTIONS]",
            "",
            "Keeps a model-training run alive, and its results safe, when the machine runs out of",
            "disk, memory or time.",
            "",
            "Commands:",
            *rows,
            "",
            "Options:",
            "  --version  Show the version.",
            "  --help     Show this; `outlast COMMAND --help` for one command.",
        ]
    )
