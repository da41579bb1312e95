"""``outlast env``: variables that put every cache where there is room, for a shell to read."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from outlast.caches.effect import SECONDS, Report, check
from outlast.caches.here import Here, look, make_folders
from outlast.caches.layout import Remark, Setting, mend
from outlast.caches.probe import Answer, ask
from outlast.cli import _app
from outlast.cli._table import table
from outlast.cli.checkpoints import FOUND
from outlast.errors import BadInput
from outlast.host import Budget, room, show_bytes, show_seconds

app = _app.new(__doc__ or "")
SECONDS_TO_ANSWER = 20.0
"""How long the user's interpreter may take; a network volume is slow to start one from."""
DEEP_SECONDS = 180.0
"""How long with the import of torch."""
_EPILOG = (
    'Use it: eval "$(outlast env)" in sh, bash and zsh; outlast env --shell fish | source. '
    "Exit codes: 0 done; 3 --check found something wrong; 2 bad input; 1 an error."
)


class Shell(StrEnum):
    """Who reads the output."""

    SH = "sh"
    FISH = "fish"
    DOCKER = "docker"
    JSON = "json"


@app.command(epilog=_EPILOG)
def env(
    shell: Annotated[Shell, typer.Option(help="Who reads the output; sh is for bash and zsh too.")] = Shell.SH,
    create: Annotated[bool, typer.Option("--create/--no-create", help="Make the folders.")] = True,
    volume: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="A folder on a roomy volume for caches. Repeatable.")
    ] = None,
    budget: Annotated[
        list[str] | None, typer.Option(metavar="DIR=SIZE", help="At most this much may lie under DIR. Repeatable.")
    ] = None,
    checks: Annotated[
        bool, typer.Option("--check", help="Show declared, effective and really used; change nothing.")
    ] = False,
    deep: Annotated[bool, typer.Option("--deep", help="With --check: let the libraries themselves answer.")] = False,
    python: Annotated[
        str | None, typer.Option(metavar="PATH", help="With --check: the interpreter to ask, not `python`.")
    ] = None,
) -> None:
    """Print variables that move caches to where there is room; what is set already stays. Makes the folders."""
    for path in volume or ():
        if not os.path.isdir(path):
            raise BadInput(f"--volume {path} is no folder", hint="name a folder that is there, on a roomy volume")
    budgets = [Budget.parse(text) for text in budget or ()]
    here = look(more=volume or (), measure=lambda path: room(path, budgets or None))
    if checks:
        answer = ask(python, deep=deep, timeout=DEEP_SECONDS if deep else SECONDS_TO_ANSWER)
        seconds = None if deep else SECONDS
        report = check(os.environ, Path.cwd(), mend(os.environ, Path.cwd()), answer, seconds=seconds)
        if shell is Shell.JSON:
            _app.print_json(_report_facts(here, report))
        else:
            _write("\n".join(_report_lines(here, report)) + "\n")
        raise typer.Exit(FOUND if report.remarks else 0)
    text = written(here, shell)
    if create and shell is not Shell.DOCKER:
        make_folders(here.layout)
    _write(text)


def written(here: Here, shell: Shell) -> str:
    """A layout as a shell, a Dockerfile or a program reads it.

    Raises:
        BadInput: when that cannot hold one of the paths.
    """
    return "\n".join(_WRITERS[shell](here)) + "\n"


def _write(text: str) -> None:
    """Bytes as the file system has them: a path need not be text."""
    sys.stdout.flush()
    sys.stdout.buffer.write(os.fsencode(text))
    sys.stdout.buffer.flush()


def _sh(here: Here) -> list[str]:
    # The comments come last and each command ends with a semicolon: right also where the quotes of eval are forgotten.
    commands = [
        f"unset {s.variable};" if s.value is None else f"export {s.variable}={shlex.quote(s.value)};"
        for s in here.layout.settings
    ]
    return commands + _comments(here)


def _fish(here: Here) -> list[str]:
    commands = [
        f"set -e {s.variable};" if s.value is None else f"set -gx {s.variable} {_fish_quoted(s.value)};"
        for s in here.layout.settings
    ]
    return commands + _comments(here)


def _fish_quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _docker(here: Here) -> list[str]:
    """Lines of a Dockerfile; the folders are made in the image."""
    settings = [setting for setting in here.layout.settings if setting.value is not None]
    for setting in settings:
        if any(ord(letter) < 32 for letter in setting.value or ""):
            raise BadInput(
                f"{setting.variable}: a Dockerfile cannot hold {setting.value!r}", hint="rename that folder, or use sh"
            )
    made = json.dumps(["mkdir", "-p", *(str(path) for path in here.layout.folders)], ensure_ascii=False)
    lines = [f"ENV {setting.variable}={_docker_quoted(setting.value or '')}" for setting in settings]
    return _comments(here) + lines + ([f"RUN {made}"] if settings else [])


def _docker_quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$") + '"'


def _json(here: Here) -> list[str]:
    settings = here.layout.settings
    return [json.dumps({
        "platform": here.platform.name,
        "environment": {s.variable: s.value for s in settings if s.value is not None},
        "unset": [s.variable for s in settings if s.value is None],
        "settings": [asdict(s) for s in settings],
        "remarks": [asdict(remark) for remark in here.layout.remarks],
    }, indent=2)]  # fmt: skip


_WRITERS = {Shell.SH: _sh, Shell.FISH: _fish, Shell.DOCKER: _docker, Shell.JSON: _json}


def _comments(here: Here) -> list[str]:
    said = [f"outlast env: {here.platform.title}"]
    if not here.layout.settings:
        said.append("nothing to set: caches are well where they are, or you have set them")
    said += [f"{setting.variable}: {_why(setting)}" for setting in here.layout.settings]
    said += [_told(remark) for remark in here.layout.remarks]
    return [f"# {_plain(line)}" for line in said]


def _why(setting: Setting) -> str:
    return f"{setting.why}; for {', '.join(setting.caches)}" if setting.caches else setting.why


def _told(remark: Remark) -> str:
    return f"{remark.subject}: {remark.what}" + (f"; fix: {remark.fix}" if remark.fix else "")


def _plain(text: str) -> str:
    """One line, whatever a path holds: a newline in a comment would be a command."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _report_lines(here: Here, report: Report) -> list[str]:
    now = time.time()
    rows = []
    for one in report.seen:
        size = "-" if one.used_bytes is None else f"{show_bytes(one.used_bytes)}{' or more' if one.partial else ''}"
        size = "not counted" if one.used_bytes is None and one.partial else size
        age = "-" if one.newest is None else f"{show_seconds(max(0.0, now - one.newest))} ago"
        declared = f"{one.variable}={one.declared}" if one.variable else "default"
        effective = str(one.effective or one.path) + ("" if one.there else " (not there)")
        rows.append([one.cache, _plain(declared), _plain(effective), size, age])
    lines = [f"{here.platform.title}; {_who(report.answer)}", ""]
    head = ["cache", "declared", "effective", "used", "newest file"]
    lines.append(table(head, rows) if rows else "No cache is set or used.")
    lines += ["", *([line for remark in report.remarks for line in _remark_lines(remark)] or ["Nothing is wrong."])]
    if here.layout.settings and not report.remarks:
        lines.append('`eval "$(outlast env)"` would set: ' + ", ".join(s.variable for s in here.layout.settings))
    return lines


def _remark_lines(remark: Remark) -> list[str]:
    said = [f"- {_plain(remark.subject)}: {_plain(remark.what)}"]
    return [*said, f"  fix: {_plain(remark.fix)}"] if remark.fix else said


def _who(answer: Answer | None) -> str:
    if answer is None or answer.reason is not None:
        return f"{answer.python if answer else 'python'} gave no answer: {answer.reason if answer else ''}"
    packages = ", ".join(f"{name} {version}" for name, version in answer.versions.items())
    failed = "".join(f"; {name} cannot be imported: {why}" for name, why in answer.failed.items())
    gpus = "".join(f"; {gpu.name} {show_bytes(gpu.total_bytes)}" for gpu in answer.gpus)
    return f"{answer.python} {answer.version}: {packages or 'none of the libraries'}{gpus}{failed}"


def _report_facts(here: Here, report: Report) -> dict[str, Any]:
    return {
        "platform": here.platform.name,
        "caches": [asdict(one) for one in report.seen],
        "findings": [asdict(remark) for remark in report.remarks],
        "interpreter": asdict(report.answer) if report.answer else None,
        "would_set": {setting.variable: setting.value for setting in here.layout.settings},
    }
