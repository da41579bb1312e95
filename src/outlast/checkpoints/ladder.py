"""Making room, rung by rung: what to do when the next save does not fit. Pure: plans, does nothing.

`plan` walks the rungs in their order, takes what each offers until the save fits, and then gives back the moves that
turned out not to be needed, the costliest first. A new rung is a row in `RUNGS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Held:
    """A checkpoint that takes room."""

    name: str
    """Its name in the folder."""
    age: tuple[float, int]
    """Order of making; larger is newer."""
    kind: str
    """``full``, ``light`` ..."""
    bytes: int
    """What it takes now."""
    light_bytes: int | None
    """What it would take made light; None when it cannot be, or is already."""
    wanted: bool = True
    """False when retention no longer wants it."""
    sacred: bool = False
    """Pinned, or best by the metric: may become light (unless pinned), is never dropped."""
    pinned: bool = False
    """Pinned by the user: is never touched."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What there is and what is needed."""

    free_bytes: int
    """Bytes that can be written now."""
    needs: Mapping[str, int]
    """Bytes that the next save takes in each kind that it could have, richest first."""
    held: Sequence[Held] = ()
    """Sealed checkpoints here."""
    trash_bytes: int = 0
    """Deletions that did not finish."""
    superseded: Mapping[str, int] = field(default_factory=dict)
    """Quarantined remains older than a sealed checkpoint: name and bytes."""
    caches: Mapping[str, int] = field(default_factory=dict)
    """What caches on this volume can give and policy allows: name and bytes, the cheapest to make again first."""
    ballast_bytes: int = 0
    """The reserved file."""
    keep_exact: bool = False
    """The newest full checkpoint stays full, even if new saves have to be light."""
    forbid: frozenset[int] = frozenset()
    """Rungs that policy forbids."""


@dataclass(frozen=True, slots=True)
class Move:
    """One thing to do."""

    rung: int
    """Number of the rung, 1 to 9."""
    action: str
    """``empty_trash``, ``drop``, ``drop_quarantined``, ``sweep_cache``, ``lighten``, ``save_as``,
    ``release_ballast`` or ``pause``."""
    name: str
    """What it is done to; for ``save_as`` the kind."""
    frees_bytes: int
    """What it should free."""
    why: str
    """A phrase for the journal."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do before the save, and what the save will be."""

    moves: tuple[Move, ...]
    """In the order to do them."""
    kind: str
    """Kind of the save."""
    fits: bool
    """False when nothing allowed makes enough room; the last move is then ``pause`` unless that is forbidden."""
    short_bytes: int
    """Bytes still missing when it does not fit."""


@dataclass(frozen=True, slots=True)
class Rung:
    """A row of the ladder."""

    number: int
    """Its place; DESIGN.md's numbers."""
    name: str
    """For the user."""
    offer: Callable[[Situation], Sequence[Move]]
    """The moves it has, cheapest first."""


def _empty_trash(s: Situation) -> list[Move]:
    if not s.trash_bytes:
        return []
    return [Move(1, "empty_trash", "trash", s.trash_bytes, "deletions that did not finish")]


def _drop_unwanted(s: Situation) -> list[Move]:
    remains = [
        Move(2, "drop_quarantined", name, size, "remains that a newer sealed checkpoint supersedes")
        for name, size in s.superseded.items()
    ]
    way_back = _newest_exact(s) if s.keep_exact else None
    unwanted = [held for held in _oldest_first(s) if not held.wanted and not held.sacred and held is not way_back]
    return remains + [Move(2, "drop", h.name, h.bytes, "retention no longer wants it") for h in unwanted]


def _sweep_caches(s: Situation) -> list[Move]:
    return [Move(3, "sweep_cache", name, size, "it can be made again") for name, size in s.caches.items()]


def _make_older_light(s: Situation) -> list[Move]:
    """Older checkpoints give way: first the exact copies behind the newest exact one, then history, then that one."""
    order = _oldest_first(s)
    exact = _newest_exact(s)
    way_back = order[-1] if order else None
    moves = [_lighten(h, "an older checkpoint") for h in order if h is not exact and _can_lighten(h)]
    moves += [
        Move(5, "drop", h.name, h.bytes, "history gives way to the next save")
        for h in order
        if h is not exact and h is not way_back and not h.sacred
    ]
    if exact and not s.keep_exact:
        if _can_lighten(exact):
            moves.append(_lighten(exact, "two full states do not fit: the way back is light until this save is sealed"))
        if exact is not way_back and not exact.sacred:
            moves.append(Move(5, "drop", exact.name, exact.bytes, "a newer checkpoint is the way back"))
    if exact and s.keep_exact and way_back and way_back is not exact and not way_back.sacred:
        # Else a volume of one and a half states would take two saves and then wait for ever.
        moves.append(Move(5, "drop", way_back.name, way_back.bytes, "the exact one behind it is the way back"))
    return moves


def _can_lighten(held: Held) -> bool:
    return held.light_bytes is not None and held.light_bytes < held.bytes and not held.pinned


def _lighten(held: Held, why: str) -> Move:
    return Move(5, "lighten", held.name, held.bytes - (held.light_bytes or 0), why)


def _poorer_kinds(s: Situation) -> list[Move]:
    kinds = list(s.needs)
    return [
        Move(6, "save_as", kind, s.needs[kinds[0]] - s.needs[kind], f"a {kinds[0]} save does not fit")
        for kind in kinds[1:]
    ]


def _last_reserves(s: Situation) -> list[Move]:
    """The ballast; then the newest, where the best model is a way back too: rather than wait for ever."""
    ballast = [Move(8, "release_ballast", "ballast", s.ballast_bytes, "the last reserve")] if s.ballast_bytes else []
    order = _oldest_first(s)
    has_other = any(held.sacred and held.kind != "weights" for held in order[:-1])
    if s.keep_exact or not has_other or order[-1].sacred:
        return ballast
    newest = order[-1]
    why = "the best model is the way back until this save is sealed"
    return [*ballast, Move(8, "drop", newest.name, newest.bytes, why)]


def _pause(s: Situation) -> list[Move]:
    return [Move(9, "pause", "training", 0, "nothing that may be done makes enough room")]


def _oldest_first(s: Situation) -> list[Held]:
    return sorted(s.held, key=lambda held: (held.age, held.name))


def _newest_exact(s: Situation) -> Held | None:
    return next((held for held in reversed(_oldest_first(s)) if held.kind == "full"), None)


RUNGS: tuple[Rung, ...] = (
    Rung(1, "empty the trash", _empty_trash),
    Rung(2, "drop what retention no longer wants", _drop_unwanted),
    Rung(3, "sweep what caches can make again", _sweep_caches),
    Rung(5, "make older checkpoints light", _make_older_light),
    Rung(6, "write this save in a smaller kind", _poorer_kinds),
    Rung(8, "release the last reserves", _last_reserves),
    Rung(9, "pause training", _pause),
)
"""The ladder. Numbers are those of DESIGN.md; rungs 4 and 7 (the mirror) join as rows."""


def plan(situation: Situation, rungs: Sequence[Rung] = RUNGS) -> Plan:
    """The least that makes the next save fit.

    Args:
        situation: what there is; nothing is read beyond it.
        rungs: the ladder, in order.

    Returns:
        A plan whose moves make room for a save of ``plan.kind``; with ``fits`` False, all that could be done.
    """
    taken: list[Move] = []
    for rung in rungs:
        if rung.number in situation.forbid:
            continue
        for move in rung.offer(situation):
            if _short(situation, taken) <= 0:
                return _spared(situation, taken)
            if not _is_gone(move, taken):
                taken.append(move)
    if _short(situation, taken) <= 0:
        return _spared(situation, taken)
    return Plan(tuple(taken), _kind(situation, taken), False, _short(situation, taken))


def _is_gone(move: Move, taken: Sequence[Move]) -> bool:
    """True for a checkpoint that a rung above drops already."""
    return move.action in ("drop", "lighten") and any(t.action == "drop" and t.name == move.name for t in taken)


def _kind(situation: Situation, moves: Sequence[Move]) -> str:
    poorer = [move.name for move in moves if move.action == "save_as"]
    return poorer[-1] if poorer else next(iter(situation.needs))


def _short(situation: Situation, moves: Sequence[Move]) -> int:
    """Bytes missing after the moves. Dropping frees all of a checkpoint, whether or not it is made light before."""
    dropped = {move.name for move in moves if move.action == "drop"}
    freed = sum(
        move.frees_bytes
        for move in moves
        if move.action != "save_as" and not (move.action == "lighten" and move.name in dropped)
    )
    return situation.needs[_kind(situation, moves)] - situation.free_bytes - freed


def _spared(situation: Situation, taken: Sequence[Move]) -> Plan:
    moves = list(taken)
    for move in reversed(taken):
        if move.action == "save_as":
            continue
        rest = [other for other in moves if other is not move]
        if _short(situation, rest) <= 0:
            moves = rest
    dropped = {move.name for move in moves if move.action == "drop"}
    moves = [m for m in moves if not (m.action == "lighten" and m.name in dropped)]
    kind = _kind(situation, moves)
    moves = [move for move in moves if move.action != "save_as" or move.name == kind]
    return Plan(tuple(moves), kind, True, 0)
