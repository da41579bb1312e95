"""Several processes, one save: rank 0 decides and measures, all write, all learn how it ended."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from outlast.checkpoints import Stage, is_full
from outlast.errors import OutlastError
from outlast.train.ranks import Ranks

_T = TypeVar("_T")


def is_first_process() -> bool:
    """True on the process that may change a vault, also before torch.distributed is set up (torchrun's RANK)."""
    return Ranks().is_first and os.environ.get("RANK", "0") == "0"


def lead(ranks: Ranks, save: Callable[[Callable[[Stage], None]], _T], write_part: Callable[[Stage], None]) -> _T:
    """Rank 0's side of a save: each try is announced, written by all ranks, and judged by what all of them met.

    Args:
        ranks: who takes part.
        save: runs the save; it is given a function that lets every rank write its part into a stage.
        write_part: writes this rank's part.

    Returns:
        What ``save`` returns.
    """

    def write_everywhere(stage: Stage) -> None:
        ranks.broadcast(("write", str(stage.path), stage.kind))
        _raise_any(ranks.gather(_outcome(ranks, stage, write_part)), stage)

    try:
        result = save(write_everywhere)
    except BaseException as error:
        ranks.broadcast(("failed", f"{type(error).__name__}: {error}", ""))
        raise
    ranks.broadcast(("done", "", ""))
    return result


def follow(ranks: Ranks, write_part: Callable[[Stage], None]) -> None:
    """The other ranks' side of `lead`.

    Raises:
        OutlastError: when rank 0 gave the save up.
    """
    while True:
        order, text, kind = ranks.broadcast(None)
        if order == "done":
            return
        if order == "failed":
            raise OutlastError(f"rank 0 could not save: {text}", hint="see rank 0's error")
        ranks.gather(_outcome(ranks, Stage(Path(text), kind, None), write_part))


def _outcome(ranks: Ranks, stage: Stage, write_part: Callable[[Stage], None]) -> tuple[bool, str] | None:
    """None when this rank's part is written; else whether the volume was full, and what happened."""
    stage.holds_errors = ranks.world > 1
    try:
        write_part(stage)
        if stage.error:
            raise stage.error
    except Exception as error:
        if ranks.world == 1:
            raise
        return is_full(error) or is_full(stage.error), f"{type(error).__name__}: {error}"
    return None


def _raise_any(outcomes: list[tuple[bool, str] | None], stage: Stage) -> None:
    for rank, outcome in enumerate(outcomes):
        if outcome:
            full, text = outcome
            if full:
                stage.error = stage.error or OSError(28, f"rank {rank}: {text}")
                raise stage.error
            raise OutlastError(f"rank {rank} could not write its part: {text}", hint="see that rank's log")
