"""What every command's typer application has in common."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from outlast.errors import BadInput

Dir = Annotated[
    Path,
    typer.Option("--dir", help="The run's folder, whose .outlast holds its journal."),
]
"""The ``--dir`` option."""
Json = Annotated[bool, typer.Option("--json", help="Print facts as one JSON document instead of text.")]
"""The ``--json`` option."""


def folder(path: Path | str) -> Path:
    """An absolute folder from what the user typed.

    Raises:
        BadInput: for a user that there is not, a name that no file can have, or a current folder that is gone.
    """
    try:
        return Path(path).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise BadInput(f"{path} is no folder: {error}", hint="name a folder that is there") from None


def state_folder() -> Path:
    """Where the journal of what was done to caches is: with the user, since caches belong to no run."""
    base = os.environ.get("XDG_STATE_HOME") or f"{os.environ.get('HOME') or ''}/.local/state"
    return Path(base) / "outlast"


def new(summary: str) -> typer.Typer:
    """A typer application with Outlast's settings.

    Plain help and plain tracebacks: rich would cost 60 ms and a wall of colour on each call.
    """
    return typer.Typer(
        help=summary.replace("``", "`"),
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        add_completion=False,
        no_args_is_help=False,
    )


def print_json(document: Any) -> None:
    """Print facts for programs: sizes in bytes, durations in seconds."""
    print(json.dumps(document, indent=2, default=str))
