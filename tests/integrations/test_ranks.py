"""Several processes, one save."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from outlast.checkpoints import Stage
from outlast.integrations.ranks import is_first_process, lead
from outlast.train.ranks import Ranks

SCRIPT = """
import json, sys
from datetime import timedelta
from pathlib import Path
import torch.distributed as dist
from outlast.checkpoints import Stage
from outlast.integrations.ranks import follow, lead
from outlast.train.ranks import Ranks

rank, place = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=2, timeout=timedelta(seconds=60))
ranks = Ranks()
said = ranks.broadcast({"from": 0} if ranks.is_first else None)
story = {"who": [ranks.rank, ranks.world, ranks.is_first], "broadcast": said, "gather": ranks.gather(f"rank {rank}")}
met = []


def save(write_everywhere):
    for _ in range(3):
        try:
            write_everywhere(Stage(Path(place).parent / "stage", "light", None))
            return "sealed"
        except OSError as error:
            met.append(error.errno)


def turn(write_part):
    try:
        return lead(ranks, save, write_part) if ranks.is_first else follow(ranks, write_part)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


written, faults = [], [OSError(28, "No space left on device")] if rank == 1 else []


def full_once(stage):
    if faults:
        raise faults.pop()
    written.append([stage.path.name, stage.kind])


def broken(stage):
    if rank == 1:
        raise ZeroDivisionError("broken")


story["full"] = [turn(full_once), met, written]
story["broken"] = turn(broken)
story["after"] = turn(lambda stage: None)
print(json.dumps(story))
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes met; they are started once for all tests, as importing torch takes a while."""
    place: Path = tmp_path_factory.mktemp("ranks") / "meeting"
    children = [
        subprocess.Popen([sys.executable, "-c", SCRIPT, str(rank), place], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    return [json.loads(child.communicate(timeout=120)[0]) for child in children]


def test_rank_0_speaks_to_all_and_all_hear_each_other(stories: list[dict[str, Any]]) -> None:
    assert [story["who"] for story in stories] == [[0, 2, True], [1, 2, False]]
    assert [story["broadcast"] for story in stories] == [{"from": 0}] * 2
    assert [story["gather"] for story in stories] == [["rank 0", "rank 1"]] * 2


def test_a_volume_that_is_full_for_one_rank_makes_all_write_again(stories: list[dict[str, Any]]) -> None:
    first, second = stories
    assert first["full"] == ["sealed", [28], [["stage", "light"]] * 2]
    assert second["full"] == [None, [], [["stage", "light"]]]


def test_an_error_of_one_rank_is_known_to_all_with_its_words(stories: list[dict[str, Any]]) -> None:
    first, second = stories
    assert first["broken"].startswith("OutlastError: rank 1 could not write its part: ZeroDivisionError: broken")
    assert second["broken"].startswith("OutlastError: rank 0 could not save: OutlastError: rank 1 could not")


def test_after_an_error_the_ranks_are_still_in_step(stories: list[dict[str, Any]]) -> None:
    assert [story["after"] for story in stories] == ["sealed", None]


def test_one_process_alone_is_the_first_and_hears_itself() -> None:
    ranks = Ranks()
    assert (ranks.rank, ranks.world, ranks.is_first) == (0, 1, True)
    assert ranks.broadcast("value") == "value" and ranks.gather("value") == ["value"]


def test_one_process_alone_meets_its_own_error_unchanged(tmp_path: Path) -> None:
    def write_part(stage: Stage) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        lead(Ranks(), lambda write: write(Stage(tmp_path, "full", None)), write_part)


def test_an_error_that_a_writer_kept_to_itself_is_raised_when_all_are_through(tmp_path: Path) -> None:
    def write_part(stage: Stage) -> None:
        stage.error = OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        lead(Ranks(), lambda write: write(Stage(tmp_path, "full", None)), write_part)


def test_before_torch_is_set_up_the_launchers_word_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert is_first_process()
    monkeypatch.setenv("RANK", "1")
    assert not is_first_process()
