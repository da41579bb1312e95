"""Making room: what the plan may do, what it must not, and that it does no more than it must."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from outlast.checkpoints import RUNGS, Held, Move, Plan, Situation, plan

SIZE = st.integers(1, 60)
HISTORY = (1, 2, 3, 5)
"""Rungs that free room without changing what the save is."""


@st.composite
def held(draw: st.DrawFn, step: int) -> Held:
    kind = draw(st.sampled_from(["full", "full", "compact", "light", "weights"]))
    size = draw(SIZE)
    pinned = draw(st.integers(0, 6)) == 0
    return Held(
        f"checkpoint-{step}",
        (1.0, step),
        kind,
        size,
        draw(st.none() | st.integers(1, size)) if kind in ("full", "compact") else None,
        wanted=draw(st.booleans()),
        sacred=pinned or draw(st.integers(0, 4)) == 0,
        pinned=pinned,
    )


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    steps = draw(st.lists(st.integers(1, 12), unique=True, max_size=6))
    kinds = draw(st.sampled_from([("full",), ("full", "light"), ("full", "compact", "light"), ("light",)]))
    sizes = sorted(draw(st.lists(st.integers(0, 120), min_size=len(kinds), max_size=len(kinds))), reverse=True)
    return Situation(
        free_bytes=draw(st.integers(0, 60)),
        needs=dict(zip(kinds, sizes, strict=True)),
        held=[draw(held(step)) for step in steps],
        trash_bytes=draw(st.integers(0, 20)),
        superseded=draw(st.dictionaries(st.sampled_from(["remains.1", "remains.2"]), SIZE)),
        caches=draw(st.dictionaries(st.sampled_from(["pip", "hf-hub: partial"]), SIZE)),
        ballast_bytes=draw(st.integers(0, 20)),
        keep_exact=draw(st.booleans()),
        forbid=frozenset(draw(st.sets(st.sampled_from([rung.number for rung in RUNGS])))),
    )


def ordered(s: Situation) -> list[Held]:
    return sorted(s.held, key=lambda one: one.age)


def freed(s: Situation, moves: Sequence[Move]) -> int:
    """What the moves really free: each thing once, a dropped checkpoint whole, a lightened one by the difference."""
    by_name = {one.name: one for one in s.held}
    dropped = {move.name for move in moves if move.action == "drop"}
    lightened = {move.name for move in moves if move.action == "lighten"} - dropped
    total = sum(by_name[name].bytes for name in dropped)
    total += sum(by_name[name].bytes - (by_name[name].light_bytes or 0) for name in lightened)
    total += sum(s.superseded[name] for name in {move.name for move in moves if move.action == "drop_quarantined"})
    total += sum(s.caches[move.name] for move in moves if move.action == "sweep_cache")
    total += s.trash_bytes * any(move.action == "empty_trash" for move in moves)
    return total + s.ballast_bytes * any(move.action == "release_ballast" for move in moves)


def fits(s: Situation, kind: str, moves: Sequence[Move]) -> bool:
    return s.free_bytes + freed(s, moves) >= s.needs[kind]


def touched(found: Plan, *actions: str) -> set[str]:
    return {move.name for move in found.moves if move.action in (actions or ("drop", "lighten"))}


def most(s: Situation, rungs: Sequence[int]) -> list[Move]:
    """Everything that these rungs can do, from the ladder's own rows."""
    return [move for rung in RUNGS if rung.number in rungs and rung.number not in s.forbid for move in rung.offer(s)]


# What it promises


@settings(max_examples=300)
@given(situations())
def test_a_plan_that_fits_makes_enough_room_for_its_kind(s: Situation) -> None:
    found = plan(s)
    assert found.fits == (found.short_bytes <= 0)
    assert not found.fits or fits(s, found.kind, found.moves)


@settings(max_examples=300)
@given(situations())
def test_a_plan_that_does_not_fit_could_not_have_and_says_how_much_is_missing(s: Situation) -> None:
    found = plan(s)
    if not found.fits:
        everything = most(s, [rung.number for rung in RUNGS])
        least = min(s.needs.values()) if 6 not in s.forbid else next(iter(s.needs.values()))
        assert s.free_bytes + freed(s, everything) + found.short_bytes == least


@settings(max_examples=300)
@given(situations())
def test_nothing_that_a_plan_gives_up_could_have_been_spared(s: Situation) -> None:
    found = plan(s)
    for move in found.moves if found.fits else ():
        rest = [other for other in found.moves if other is not move]
        assert move.action == "save_as" or not fits(s, found.kind, rest), move


@given(situations())
def test_nothing_is_done_twice_to_the_same_thing(s: Situation) -> None:
    found = plan(s)
    if found.fits:
        assert len({move.name for move in found.moves}) == len(found.moves)


@given(situations())
def test_what_already_fits_is_left_alone(s: Situation) -> None:
    richest = next(iter(s.needs))
    if s.needs[richest] <= s.free_bytes:
        assert plan(s) == Plan((), richest, True, 0)


# What it must never do


@given(situations())
def test_what_is_pinned_is_never_touched(s: Situation) -> None:
    assert not touched(plan(s)) & {one.name for one in s.held if one.pinned}


@given(situations())
def test_the_best_may_become_light_and_is_never_dropped(s: Situation) -> None:
    assert not touched(plan(s), "drop") & {one.name for one in s.held if one.sacred}


@settings(max_examples=300)
@given(situations())
def test_the_newest_that_is_wanted_is_dropped_only_while_another_is_a_way_back(s: Situation) -> None:
    newest = [one.name for one in ordered(s)[-1:] if one.wanted]
    moves = [move for move in plan(s).moves if move.action == "drop" and move.name in newest]
    has_exact = any(one.kind == "full" for one in ordered(s)[:-1])
    has_best = any(one.sacred and one.kind != "weights" for one in ordered(s)[:-1])
    for move in moves:
        assert (has_exact and move.rung == 5) if s.keep_exact else (has_best and move.rung == 8)


@given(situations())
def test_something_is_always_left_to_go_back_to(s: Situation) -> None:
    # Retention always wants the newest, and the ladder is only asked with its verdicts.
    if s.held and ordered(s)[-1].wanted:
        assert touched(plan(s), "drop") < {one.name for one in s.held}


@settings(max_examples=300)
@given(situations())
def test_with_keep_exact_the_newest_full_one_stays_full(s: Situation) -> None:
    exact = [one.name for one in ordered(s) if one.kind == "full"][-1:]
    if s.keep_exact:
        assert not touched(plan(s)) & set(exact)


@given(situations())
def test_only_what_can_become_smaller_is_made_light(s: Situation) -> None:
    able = {one.name for one in s.held if one.light_bytes is not None and one.light_bytes < one.bytes}
    assert touched(plan(s), "lighten") <= able


@given(situations())
def test_what_policy_forbids_is_not_done(s: Situation) -> None:
    assert not {move.rung for move in plan(s).moves} & s.forbid


# In which order


@given(situations())
def test_the_rungs_are_gone_down_in_their_order(s: Situation) -> None:
    numbers = [move.rung for move in plan(s).moves]
    assert all(first <= second for first, second in pairwise(numbers))


@given(situations())
def test_the_save_is_of_the_richest_kind_for_which_room_can_be_made(s: Situation) -> None:
    found = plan(s)
    richest = next(iter(s.needs))
    if fits(s, richest, most(s, HISTORY)):
        assert (found.kind, found.fits) == (richest, True)
    elif found.fits and 6 not in s.forbid and len(s.needs) > 1 and fits(s, list(s.needs)[1], most(s, HISTORY)):
        assert found.kind == list(s.needs)[1]


@given(situations())
def test_the_ballast_is_released_only_when_nothing_smaller_fits(s: Situation) -> None:
    found = plan(s)
    if found.fits and any(move.action == "release_ballast" for move in found.moves):
        assert not fits(s, found.kind, most(s, HISTORY))


@given(situations())
def test_pausing_is_the_last_move_and_only_when_nothing_fits(s: Situation) -> None:
    found = plan(s)
    pauses = [move for move in found.moves if move.action == "pause"]
    assert len(pauses) == (not found.fits and 9 not in s.forbid)
    assert not pauses or found.moves[-1].action == "pause"


@given(situations())
def test_every_move_has_a_reason_in_words(s: Situation) -> None:
    assert all(move.why for move in plan(s).moves)


@given(situations())
def test_the_same_situation_gives_the_same_plan_in_whatever_order_it_was_read(s: Situation) -> None:
    turned = replace(s, held=s.held[::-1])
    assert plan(s) == plan(s) == plan(turned)


# The stories of the design


def full(step: int, *, size: int = 10, light: int | None = 3, wanted: bool = True, sacred: bool = False) -> Held:
    return Held(f"checkpoint-{step}", (1.0, step), "full", size, light, wanted=wanted, sacred=sacred)


def light(step: int) -> Held:
    return Held(f"checkpoint-{step}", (1.0, step), "light", 3, None)


def story(s: Situation) -> list[tuple[int, str, str]]:
    return [(move.rung, move.action, move.name) for move in plan(s).moves]


NEEDS = {"full": 10, "light": 3}


def test_what_nobody_wants_goes_before_anything_is_made_light() -> None:
    assert story(Situation(0, NEEDS, [full(1, wanted=False), full(2), full(3)])) == [(2, "drop", "checkpoint-1")]


def test_remains_of_older_saves_go_before_checkpoints() -> None:
    s = Situation(0, NEEDS, [full(1, wanted=False), full(2)], superseded={"remains": 10})
    assert story(s) == [(2, "drop_quarantined", "remains")]


def test_older_ones_become_light_before_any_is_dropped() -> None:
    assert story(Situation(0, NEEDS, [full(1), full(2), full(3)])) == [
        (5, "lighten", "checkpoint-1"),
        (5, "lighten", "checkpoint-2"),
    ]


def test_history_is_dropped_before_the_newest_exact_one_becomes_light() -> None:
    assert story(Situation(0, NEEDS, [light(1), light(2), light(3), full(4), light(5)], trash_bytes=1)) == [
        (1, "empty_trash", "trash"),
        (5, "drop", "checkpoint-1"),
        (5, "drop", "checkpoint-2"),
        (5, "drop", "checkpoint-3"),
    ]


def test_with_room_for_one_and_a_half_states_the_way_back_is_light_for_one_save() -> None:
    assert story(Situation(4, NEEDS, [full(1)])) == [(5, "lighten", "checkpoint-1")]


def test_with_keep_exact_and_that_room_the_new_save_is_light() -> None:
    found = plan(Situation(4, NEEDS, [full(1)], keep_exact=True))
    assert (found.kind, [move.action for move in found.moves]) == ("light", ["save_as"])


def test_the_ballast_is_given_for_a_last_small_save() -> None:
    found = plan(Situation(1, NEEDS, [light(1)], ballast_bytes=2))
    assert (found.kind, [move.action for move in found.moves]) == ("light", ["save_as", "release_ballast"])


def test_what_caches_can_make_again_goes_before_history() -> None:
    story = Situation(5, {"full": 10}, [full(10), full(20)], caches={"hf-hub: partial": 3, "pip": 4})
    assert [(move.rung, move.name) for move in plan(story).moves] == [(3, "hf-hub: partial"), (3, "pip")]
    assert [move.rung for move in plan(replace(story, forbid=frozenset({3}))).moves] == [5]


def test_when_nothing_helps_training_pauses_and_the_missing_bytes_are_told() -> None:
    found = plan(Situation(1, NEEDS, [light(1)]))
    assert (found.fits, found.short_bytes, found.moves[-1].action) == (False, 2, "pause")


def test_where_the_best_model_is_a_way_back_the_newest_gives_way_rather_than_wait_for_ever() -> None:
    best = Held("checkpoint-1", (1.0, 1), "light", 3, None, sacred=True)
    assert story(Situation(0, {"light": 3}, [best, light(2)])) == [(8, "drop", "checkpoint-2")]
    assert story(Situation(0, {"light": 3}, [best, light(2)], ballast_bytes=3)) == [(8, "release_ballast", "ballast")]
    assert story(Situation(0, {"light": 3}, [light(1), light(2)])) == [(5, "drop", "checkpoint-1")]
    assert not plan(Situation(0, {"light": 3}, [best, light(2)], keep_exact=True)).fits


def test_with_keep_exact_the_newest_light_one_gives_way_to_the_next_while_the_exact_one_stays() -> None:
    found = plan(Situation(0, NEEDS, [full(1), light(2)], keep_exact=True))
    assert (found.kind, found.fits, touched(found)) == ("light", True, {"checkpoint-2"})
