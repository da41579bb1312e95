"""``outlast run``: an unmodified command, guarded."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from outlast.budget import clock
from outlast.cli import _app
from outlast.host import Budget, this_session
from outlast.integrations.datasets.wanted import Subset
from outlast.launch import Order, settings, supervise

app = _app.new(__doc__ or "")
_EPILOG = (
    "Exit codes: the command's own; 128 + N when signal N ended it; 2 for a bad option or a command that cannot be "
    "started; 1 when Outlast itself failed."
)


@app.command(
    epilog=_EPILOG,
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": False},
)
def run(
    command: Annotated[list[str], typer.Argument(metavar="COMMAND", help="The command and its arguments, after --.")],
    dir: _app.Dir = Path(),
    budget: Annotated[
        list[str] | None,
        typer.Option(metavar="DIR=SIZE", help="At most this much may lie under DIR (for network volumes). Repeatable."),
    ] = None,
    keep: Annotated[
        str, typer.Option(metavar="RULES", help="Checkpoints to keep, e.g. last=2,best=1,metric=val_loss,mode=min.")
    ] = "",
    keep_exact: Annotated[
        bool, typer.Option("--keep-exact", help="Always keep one exact way back, even if new saves must be light.")
    ] = False,
    save: Annotated[
        str, typer.Option(metavar="full|light", help="light: a third of the bytes; a resumed run strays a little.")
    ] = "full",
    forbid_rung: Annotated[
        list[int] | None, typer.Option(metavar="N", help="Never take this rung of the ladder. Repeatable.")
    ] = None,
    reclaim: Annotated[
        str,
        typer.Option(
            metavar="WORDS",
            help="What saves may take from caches when short: partial (default), minutes, download, pip ...",
        ),
    ] = "",
    resume: Annotated[
        str,
        typer.Option(metavar="auto|always|never", help="auto: when the last run of this command was cut short."),
    ] = "auto",
    deadline: Annotated[
        str | None,
        typer.Option(
            metavar="9h|23:30|auto",
            help="When this session ends: a last checkpoint is sealed in time. auto: what the platform says.",
        ),
    ] = None,
    subset: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=ROWS", help="load_dataset(NAME) gives the first ROWS rows only. Repeatable."),
    ] = None,
    restarts: Annotated[int, typer.Option(metavar="N", help="Restarts at most, where resuming helps.")] = 3,
) -> None:
    """Run COMMAND guarded: saves are made to fit, its end is explained, it is restarted where that helps."""
    order = Order(
        command=tuple(command),
        home=_app.folder(dir),
        budgets=tuple(Budget.parse(text) for text in budget or ()),
        keep=keep,
        keep_exact=keep_exact,
        forbid=frozenset(forbid_rung or ()),
        reclaim=reclaim or settings.reclaim([_app.folder(dir), Path()]),
        resume=resume,
        restarts=restarts,
        save=save,
        subsets=tuple(Subset.parse(text) for text in subset or ()),
        deadline=clock.parse(deadline, time.time(), this_session()) if deadline is not None else None,
    )
    raise typer.Exit(supervise(order))
