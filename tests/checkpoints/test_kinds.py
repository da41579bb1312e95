"""Which kinds a save may be by choice, and what is said of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.checkpoints import Needs, Policy
from outlast.checkpoints.kinds import CHOICE, NO_ROOM, as_asked, said_of, why_poorer
from outlast.checkpoints.policy import SAVES
from outlast.checkpoints.seal import KINDS
from outlast.errors import BadInput

MB = 1_000_000
BOTH = Needs({"full": (30 * MB, 60 * MB), "light": (30 * MB,)})
FULL_ALONE = Needs({"full": (90 * MB,)})
LIGHT_ALONE = Needs({"light": (30 * MB,)})

needed = st.lists(st.sampled_from(KINDS), min_size=1, unique=True).map(
    lambda kinds: Needs({kind: (100,) for kind in KINDS if kind in kinds}, 7, {"full": 9})
)


@given(needed, st.sampled_from(SAVES))
def test_what_is_left_is_what_was_asked_for_or_all_there_is(needs: Needs, save: str) -> None:
    left = as_asked(needs, save)
    assert left.files and left.small_bytes == 7 and left.measured == {"full": 9}
    if save == "full" or "light" not in needs.files:
        assert left == needs
    else:
        assert next(iter(left.files)) == "light"
        assert all(KINDS.index(kind) >= KINDS.index("light") for kind in left.files)
        assert all(left.files[kind] == needs.files[kind] for kind in left.files)


@pytest.mark.parametrize(
    ("kind", "needs", "save", "why"),
    [
        ("full", BOTH, "full", None),
        ("light", BOTH, "full", NO_ROOM),
        ("light", BOTH, "light", CHOICE),
        ("full", FULL_ALONE, "light", None),
        ("light", LIGHT_ALONE, "full", None),
    ],
)
def test_a_save_that_is_not_the_richest_says_why(kind: str, needs: Needs, save: str, why: str | None) -> None:
    assert why_poorer(kind, needs, save) == why


@pytest.mark.parametrize(
    ("kind", "needs", "policy", "why", "words"),
    [
        ("light", BOTH, Policy(save="light"), CHOICE, "checkpoints are light (save=light): 31.0 MB instead of 91.2 MB"),
        ("light", LIGHT_ALONE, Policy(), "save_only_model", "checkpoints are light (save_only_model): 31.0 MB"),
        (
            "light", LIGHT_ALONE, Policy(keep_exact=True), "save_only_model",
            "checkpoints are light (save_only_model): 31.0 MB; there is no exact way back, as --keep-exact asks",
        ),
        (
            "full", FULL_ALONE, Policy(save="light"), None,
            "light checkpoints were asked for, and what is saved here has no light form: they stay full",
        ),
        (
            "weights", LIGHT_ALONE, Policy(), "save_only_model",
            "checkpoints are bare weights (save_only_model): training cannot go on from them as it was",
        ),
    ],
)  # fmt: skip
def test_the_user_is_told_what_saves_are(kind: str, needs: Needs, policy: Policy, why: str | None, words: str) -> None:
    said = said_of(kind, 31 * MB, needs, policy, why)
    assert said is not None
    assert said[0] == words
    assert "docs/checkpoints.md" in said[1]


@pytest.mark.parametrize(("kind", "why"), [("full", None), ("light", NO_ROOM), ("compact", NO_ROOM)])
def test_of_what_one_expects_nothing_is_said(kind: str, why: str | None) -> None:
    assert said_of(kind, 31 * MB, BOTH, Policy(), why) is None


@pytest.mark.parametrize("save", ["", "half", "compact", "weights", "FULL"])
def test_a_kind_of_save_that_there_is_not_is_an_error(save: str) -> None:
    with pytest.raises(BadInput, match="save is") as caught:
        Policy(save=save)
    assert "full, light" in caught.value.hint


def test_light_saves_and_an_exact_way_back_contradict_each_other_however_they_meet() -> None:
    with pytest.raises(BadInput, match="contradict"):
        Policy(keep_exact=True, save="light")
    with pytest.raises(BadInput, match="contradict"):
        Policy.from_environment({"OUTLAST_KEEP_EXACT": "1", "OUTLAST_SAVE": "light"})
    with pytest.raises(BadInput, match="contradict"):
        Policy.from_environment({"OUTLAST_SAVE": "light"}).with_choice(None, keep_exact=True)
    with pytest.raises(BadInput, match="contradict"):
        Policy.from_environment({"OUTLAST_KEEP_EXACT": "1"}).with_choice(None, keep_exact=False, save="light")


def test_a_scripts_own_choice_stands_above_the_commands() -> None:
    ours = Policy.from_environment({"OUTLAST_SAVE": "light"})
    assert ours.save == "light"
    assert ours.with_choice(None, keep_exact=False).save == "light"
    assert ours.with_choice(None, keep_exact=False, save="full").save == "full"
    assert ours.with_choice(None, keep_exact=True, save="full").keep_exact
