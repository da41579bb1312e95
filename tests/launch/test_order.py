"""What was asked of outlast run, and the environment that hands it on."""

import os
from pathlib import Path

import pytest

from outlast.checkpoints import Policy
from outlast.errors import BadInput
from outlast.host import Budget, declared_budgets
from outlast.journal import Event
from outlast.launch.order import INJECT, Order, did_not_finish, environment


def order(**more: object) -> Order:
    return Order(("python", "train.py"), Path("/runs"), **more)


def test_the_injected_folder_goes_first_and_only_once():
    once = environment(order(), "r", 1, False, {"PYTHONPATH": "/mine"})
    twice = environment(order(), "r", 2, False, once)
    assert twice["PYTHONPATH"].split(os.pathsep) == [str(INJECT), "/mine"]


def test_budgets_come_out_as_they_went_in(tmp_path: Path):
    given = Budget(tmp_path, 45_000_000)
    child = environment(order(budgets=(given,)), "r", 1, False, {})
    assert declared_budgets(child) == (given,)


def test_what_was_not_asked_is_not_inherited_from_an_earlier_attempt():
    child = environment(order(), "r", 1, False, {"OUTLAST_RESUME": "1", "OUTLAST_FORBID": "5", "HOME": "/root"})
    assert "OUTLAST_RESUME" not in child and "OUTLAST_FORBID" not in child
    assert child["HOME"] == "/root"


def test_all_options_reach_the_command():
    asked = order(
        keep="last=2,best=1,metric=val_loss", keep_exact=True, forbid=frozenset({6, 5}), reclaim="pip,minutes"
    )
    child = environment(asked, "r", 3, True, {})
    assert Policy.from_environment(child).reclaim == {"pip", "minutes"}
    assert child["OUTLAST_KEEP"] == "last=2,best=1,metric=val_loss"
    assert (child["OUTLAST_KEEP_EXACT"], child["OUTLAST_FORBID"], child["OUTLAST_RESUME"]) == ("1", "5,6", "1")
    assert (child["OUTLAST_RUN"], child["OUTLAST_DIR"], child["OUTLAST_ATTEMPT"]) == ("r", "/runs", "3")


@pytest.mark.parametrize(
    "bad",
    [
        {"keep": "lots"},
        {"resume": "maybe"},
        {"restarts": -1},
        {"forbid": frozenset({12})},
        {"save": "half"},
        {"save": "light", "keep_exact": True},
    ],
)
def test_a_wrong_option_is_refused_with_a_hint(bad: dict[str, object]):
    with pytest.raises(BadInput, match="hint"):
        order(**bad)


def test_light_saves_reach_the_command_and_full_ones_are_not_inherited():
    child = environment(order(save="light"), "r", 1, False, {})
    assert Policy.from_environment(child).save == "light"
    assert "OUTLAST_SAVE" not in environment(order(), "r", 2, False, child)


def test_an_empty_command_is_refused():
    with pytest.raises(BadInput):
        Order((), Path("/"))


def happened(*names: str, cause: str = "KILLED", command: tuple[str, ...] = ("a",)) -> list[Event]:
    facts = {"started": {"command": list(command)}, "ended": {"cause": cause}}
    return [Event(float(time), 1, name, facts.get(name, {})) for time, name in enumerate(names)]


def test_a_run_that_finished_is_not_resumed():
    assert did_not_finish(happened("started", "sealed", "ended", cause="finished"), ["a"]) is False


def test_a_run_whose_supervisor_was_killed_too_is_resumed():
    assert did_not_finish(happened("started", "sealed"), ["a"]) is True


def test_a_run_that_sealed_nothing_says_nothing():
    assert did_not_finish(happened("started", "ended"), ["a"]) is None


def test_another_command_says_nothing():
    assert did_not_finish(happened("started", "sealed", "ended"), ["b"]) is None
