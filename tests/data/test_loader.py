"""The loader: one order whatever the workers, equal parts for the ranks, and a position that is exact."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from outlast import Run, data
from outlast.data.epochs.loader import Loader
from outlast.data.epochs.order import Order
from outlast.errors import BadInput
from tests.data.parquets import make_rows, write


class Numbers:
    """Items that are their own numbers: the loader's arithmetic without any file."""

    def __init__(self, rows: int, seed: int = 0) -> None:
        self.order = Order((7,) * (rows // 7) + ((rows % 7,) if rows % 7 else ()), True, seed, 0, 3)

    def take(self, numbers: list[int]) -> list[int]:
        return numbers


def batches(loader: Loader) -> list[list[int]]:
    return [batch.tolist() for batch in loader]


@pytest.fixture
def rows(tmp_path: Path) -> data.Rows:
    return data.open(make_rows(tmp_path, 203), columns=["id"], shuffle=True, seed=3, window=2000)


def ids(loader: Loader) -> list[list[int]]:
    return [batch["id"].tolist() for batch in loader]


def expected(rows: data.Rows, epoch: int) -> list[list[int]]:
    flat = [row["id"] for row in rows.epoch(epoch)]
    return [flat[at : at + 8] for at in range(0, len(flat), 8)]


def test_an_epoch_is_every_row_once_and_the_next_one_another_order(rows: data.Rows) -> None:
    loader = rows.loader(8)
    first, second = ids(loader), ids(loader)
    assert len(first) == len(loader) == 26 and first != second
    assert sorted(sum(first, [])) == sorted(sum(second, [])) == list(range(203))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_the_order_does_not_depend_on_the_workers(rows: data.Rows) -> None:
    alone = ids(rows.loader(8))
    assert ids(rows.loader(8, workers=3)) == alone


def test_it_goes_on_with_the_next_batch_whatever_the_workers_and_again(rows: data.Rows) -> None:
    straight = rows.loader(8)
    expected = ids(straight) + ids(straight)
    seen: list[list[int]] = []
    state: dict[str, Any] | None = None
    for workers, steps in ((2, 5), (0, 11), (1, 15), (2, 100)):
        loader = rows.loader(8, workers=workers)
        if state:
            loader.load_state_dict(state)
        while steps and loader.epoch < 2:
            for batch in islice(loader, steps):
                seen.append(batch["id"].tolist())
                steps -= 1
                state = loader.state_dict()
    assert seen == expected


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 4), st.booleans())
def test_ranks_have_disjoint_equal_parts(rows: int, batch_size: int, world: int, drop_last: bool) -> None:
    def parts() -> Iterator[list[list[int]]]:
        for rank in range(world):
            yield batches(Loader(Numbers(rows), batch_size, rank=rank, world=world, drop_last=drop_last))

    if rows < (batch_size * world if drop_last else world):
        with pytest.raises(BadInput, match="make no batch"):
            next(parts())
        return
    found = list(parts())
    flat = [row for part in found for batch in part for row in batch]
    assert len({tuple(map(len, part)) for part in found}) == 1
    assert len(set(flat)) == len(flat)
    assert rows - len(flat) < (batch_size * world if drop_last else world)


@settings(max_examples=60)
@given(
    st.integers(1, 60),
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(0, 8)), min_size=1, max_size=4),
)
def test_no_row_comes_twice_and_none_is_lost_also_when_batch_size_and_ranks_change(
    rows: int, lives: list[tuple[int, int, int]]
) -> None:
    seen: list[int] = []
    state: dict[str, Any] | None = None
    for batch_size, world, steps in [*lives, (4, 1, 1000)]:
        if rows < world:
            continue
        loaders = [Loader(Numbers(rows), batch_size, rank=rank, world=world) for rank in range(world)]
        for loader in loaders:
            if state:
                loader.load_state_dict(state)
        # A life stops after whole steps: the rows that fewer ranks than all would have are left to the next one.
        whole = (rows - (state["rows"] if state else 0)) // (batch_size * world)
        for loader in loaders:
            if loader.epoch == 0:
                seen += [row for batch in islice(loader, steps if world == 1 else min(steps, whole)) for row in batch]
        state = loaders[0].state_dict()
    # A number of ranks that finds fewer rows than itself leaves them out, and begins the next epoch.
    assert len(set(map(int, seen))) == len(seen) > rows - max(world for _, world, _ in [*lives, (4, 1, 0)])


def test_an_iteration_that_was_broken_off_begins_its_epoch_again(rows: data.Rows) -> None:
    loader = rows.loader(8)
    first = next(iter(loader))["id"].tolist()
    assert ids(loader)[0] == first and loader.epoch == 1


def test_an_epoch_can_be_set_and_a_resumed_position_in_it_stays(rows: data.Rows) -> None:
    loader = rows.loader(8)
    ids(loader)
    second = ids(loader)
    loader.set_epoch(1)
    assert ids(loader) == second
    resumed = rows.loader(8)
    resumed.load_state_dict(loader.state_dict() | {"epoch": 1, "rows": 16})
    resumed.set_epoch(1)
    assert ids(resumed) == second[2:]


def test_a_position_at_the_end_of_an_epoch_is_the_beginning_of_the_next(rows: data.Rows) -> None:
    loader = rows.loader(8)
    iterator = iter(loader)
    for _ in range(len(loader)):
        next(iterator)
    state = loader.state_dict()
    assert (state["epoch"], state["rows"]) == (0, 203)
    resumed = rows.loader(8)
    resumed.load_state_dict(state)
    # Who counts, and never asks for the end, gets the next epoch too.
    assert ids(resumed) == ids(loader) == expected(rows, 1)


@pytest.mark.parametrize("other", [{"seed": 4}, {"shuffle": False}, {"window": "1MB"}])
def test_a_position_in_another_order_is_refused(tmp_path: Path, other: dict[str, Any]) -> None:
    options: dict[str, Any] = {"shuffle": True, "seed": 3, "window": 2000}
    make_rows(tmp_path, 203)
    state = data.open(tmp_path, **options).loader(8).state_dict()
    with pytest.raises(BadInput, match="position is one in the order"):
        data.open(tmp_path, **options | other).loader(8).load_state_dict(state)


@pytest.mark.parametrize("options", [{"rank": 2, "world": 2}, {"rank": 0}, {"batch_size": 0}, {"workers": -1}])
def test_numbers_that_make_no_sense_are_refused(rows: data.Rows, options: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        rows.loader(**{"batch_size": 8} | options)


def test_under_torchrun_each_rank_has_its_part(rows: data.Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: False)
    assert ids(rows.loader(8)) == ids(rows.loader(8, rank=1, world=2))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world", [1, 2])
def test_the_iterable_form_gives_the_loaders_batches(rows: data.Rows, workers: int, world: int) -> None:
    for rank in range(world):
        stream = rows.stream(8, rank=rank, world=world)
        stream.set_epoch(2)
        loader = rows.loader(8, rank=rank, world=world)
        loader.set_epoch(2)
        streamed = torch.utils.data.DataLoader(stream, batch_size=8, num_workers=workers)
        found = [batch["id"].tolist() for batch in streamed]
        assert found == ids(loader) and len(stream) == sum(map(len, found))


@pytest.mark.parametrize(("before", "steps", "after"), [(1, 8, 2), (2, 8, 1), (2, 3, 1), (2, 8, 2)])
def test_a_run_goes_on_with_the_very_next_row_on_another_number_of_ranks(
    tmp_path: Path, before: int, steps: int, after: int
) -> None:
    rows = data.open(make_rows(tmp_path / "rows", 160), columns=["id"], shuffle=True)
    model = torch.nn.Linear(1, 1)
    run = Run(tmp_path / "run", model=model)
    for _ in islice(run.steps(rows.loader(10, rank=0, world=before)), steps):
        pass
    run.checkpoint(now=True)
    seen = [
        batch["id"].tolist()
        for batch in Run(tmp_path / "run", model=model).steps(rows.loader(10, rank=0, world=after), epochs=2)
    ]
    epochs = [[row["id"] for row in rows.epoch(number)] for number in (0, 1)]
    starts = [*range(10 * before * steps, 160, 10 * after)], [*range(0, 160, 10 * after)]
    assert seen == [flat[at : at + 10] for flat, places in zip(epochs, starts, strict=True) for at in places]


def test_a_position_in_other_files_with_as_many_rows_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = data.open(make_rows(tmp_path / "a", 40)).loader(8).state_dict()
    data.open(tmp_path / "a").loader(8).load_state_dict(state)
    assert not capsys.readouterr().err
    other = make_rows(tmp_path / "b", 40)
    write(other / "train/part-00000.parquet", range(1000, 1040), 10)
    data.open(other).loader(8).load_state_dict(state)
    assert "come from other files than those of the checkpoint" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("form", ["rows", "stream"])
@pytest.mark.parametrize("workers", [{}, {"num_workers": 2}, {"num_workers": 2, "persistent_workers": True}])
def test_in_a_plain_dataloader_each_epoch_has_its_order_and_a_run_goes_on_in_it(
    rows: data.Rows, tmp_path: Path, form: str, workers: dict[str, Any]
) -> None:
    def loader() -> Any:
        again = rows.epoch(0)
        return DataLoader(again if form == "rows" else again.stream(8), batch_size=8, **workers)

    model = torch.nn.Linear(1, 1)
    run = Run(tmp_path / "run", model=model)
    seen = [batch["id"].tolist() for batch in islice(run.steps(loader(), epochs=2), 30)]
    run.checkpoint(now=True)
    seen += [batch["id"].tolist() for batch in Run(tmp_path / "run", model=model).steps(loader(), epochs=2)]
    assert seen == expected(rows, 0) + expected(rows, 1)
