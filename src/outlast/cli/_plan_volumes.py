"""Which volumes a plan is about: that of the checkpoints, and those of what else the user says will come."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from outlast.budget.course import Lying, Thing, Volume
from outlast.cli import _app
from outlast.errors import BadInput
from outlast.host import Budget, Room, parse_bytes, room

_ALSO = re.compile(r"(?P<name>[^=]+)=(?P<size>[^/@:]+)(?P<grows>/step)?(@(?P<step>\d+))?(:(?P<place>.+))?")
_HINT = "NAME=SIZE[/step][@STEP][:DIR], for example data=20GB, logs=2kB/step, final=16GB@28000"


@dataclass(frozen=True, slots=True)
class Other:
    """A volume beside that of the checkpoints."""

    place: Path
    """A folder on it."""
    free_bytes: int | None
    """What can be written there now; None when unknown."""
    things: tuple[Thing, ...]
    """What will come."""

    def needs(self, last_step: int) -> int:
        """Bytes that come until the end of the run."""
        return sum(thing.at(last_step) for thing in self.things)

    def fits(self, last_step: int) -> bool:
        """False when it is known that they do not fit."""
        return self.free_bytes is None or self.needs(last_step) <= self.free_bytes


@dataclass(frozen=True, slots=True)
class Volumes:
    """All of them."""

    own: Volume
    """Where the checkpoints go."""
    others: tuple[Other, ...]
    """Where only other things go."""
    source: str
    """Where the figures of the first one are from."""
    doubt: str | None
    """Why they are not to be trusted; None when there is no reason to think so."""


def volumes(
    root: Path | None,
    lying: Sequence[Lying],
    budgets: Sequence[Budget],
    also: Sequence[str],
    total: int | None,
    used: int | None,
) -> Volumes:
    """Look at the machine, or take what was said.

    Args:
        root: folder of the checkpoints; None when nothing says it.
        lying: checkpoints there, which are used bytes too.
        budgets: declared limits.
        also: ``--also``, as typed.
        total: ``--volume``, bytes; None measures.
        used: ``--used``, bytes; None measures.

    Raises:
        BadInput: when neither a folder nor a size is known, or an ``--also`` cannot be read.
    """
    if root is None and total is None:
        raise BadInput("which volume it runs on is not known", hint="give --output-dir, or --volume 100GB --used 25GB")
    here = room(root, budgets or None) if root is not None else None
    things, others = _things(also, here, budgets)
    said = total is not None
    before = used if used is not None else 0 if said or here is None else _used(here)
    if not said and here is not None:
        total = None if here.is_clusters else here.total_bytes
        before = max(0, before - sum(one.bytes for one in lying)) if total is not None else 0
        source = f"{here.source} of {here.path}"
    else:
        source = "--volume" + ("" if used is not None else ", and nothing on it: give --used")
    own = Volume(str(root or "the volume"), total, (Thing("used before", before), *things), _has_journal(here))
    return Volumes(own, others, source, here.doubt if here and not said else None)


def _used(here: Room) -> int:
    """What cannot be written any more: also blocks that are kept for root."""
    if here.total_bytes is None or here.free_bytes is None:
        return 0
    return max(0, here.total_bytes - here.free_bytes)


def _has_journal(here: Room | None) -> bool:
    """A guarded run's journal is in the current folder, unless told; without a volume to look at it may be there."""
    return here is None or room(Path()).device == here.device


def _things(
    also: Sequence[str], here: Room | None, budgets: Sequence[Budget]
) -> tuple[tuple[Thing, ...], tuple[Other, ...]]:
    own: list[Thing] = []
    others: dict[int | None, tuple[Room, list[Thing]]] = {}
    for text in also:
        match = _ALSO.fullmatch(text.strip())
        if match is None:
            raise BadInput(f"cannot read --also {text!r}", hint=_HINT)
        size, step = parse_bytes(match["size"]), int(match["step"] or 0)
        thing = Thing(match["name"], 0, step, float(size)) if match["grows"] else Thing(match["name"], size, step)
        place = room(_app.folder(match["place"]), budgets or None) if match["place"] else None
        if place is None or (here is not None and place.device == here.device):
            own.append(thing)
        else:
            others.setdefault(place.device, (place, []))[1].append(thing)
    return tuple(own), tuple(Other(place.path, place.free_bytes, tuple(list_)) for place, list_ in others.values())
