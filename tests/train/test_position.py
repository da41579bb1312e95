"""Where in the data a run is: loaders that say so themselves, and the place between two epochs."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.data.parquets import make_rows
from torch.utils.data import DataLoader, IterableDataset

import outlast
from outlast import data


def lives(root: Path, loader: Callable[[], Any], plan: list[tuple[int, int | None]]) -> list[list[int]]:
    """The batches that processes saw which were asked for so many epochs and died after so many steps."""
    seen = []
    for life, (epochs, die_after) in enumerate(plan):
        torch.manual_seed(life)
        random.seed(life)
        model = torch.nn.Linear(1, 1)
        run = outlast.Run(root, model=model, optimizer=torch.optim.SGD(model.parameters(), 0.1), every=2)
        del seen[run.steps_done :]
        for batch in islice(run.steps(loader(), epochs=epochs), die_after):
            seen.append(batch["id"].tolist())
            run.checkpoint()
    return seen


class Counted(data.Rows):
    """Rows that count how many were taken."""

    taken = 0

    def take(self, numbers: Any) -> list[Any]:
        Counted.taken += len(numbers)
        return super().take(numbers)


@pytest.mark.parametrize("workers", [0, 2])
def test_our_loader_goes_on_exactly_and_passes_over_nothing(tmp_path: Path, workers: int) -> None:
    opened = data.open(make_rows(tmp_path / "rows", 96), columns=["id"], shuffle=True)
    rows = Counted(opened.files, opened.columns, opened.order)
    straight = lives(tmp_path / "straight", lambda: rows.loader(8), [(2, None)])
    Counted.taken = 0
    killed = lives(tmp_path / "killed", lambda: rows.loader(8, workers=workers), [(2, 9), (2, 5), (2, 7), (2, None)])
    assert killed == straight and len(straight) == 24
    # 24 steps and what was done again after each kill; workers count for themselves.
    assert workers or Counted.taken <= (24 + 3 * 2) * 8


def test_killed_right_after_the_save_of_an_epochs_last_step_the_next_one_follows(tmp_path: Path) -> None:
    rows = data.open(make_rows(tmp_path / "rows", 32), columns=["id"], shuffle=True)
    straight = lives(tmp_path / "straight", lambda: rows.loader(8), [(3, None)])
    # Saves are at even steps, an epoch is 4 steps: 5 steps done, saved 4.
    assert lives(tmp_path / "killed", lambda: rows.loader(8), [(3, 5), (3, 5), (3, None)]) == straight


def test_a_run_made_longer_between_two_epochs_goes_on_as_one_that_was_never_short(tmp_path: Path) -> None:
    rows = [{"id": number} for number in range(16)]

    def loader() -> Any:
        return torch.utils.data.DataLoader(rows, batch_size=2, shuffle=True)  # type: ignore[arg-type]

    straight = lives(tmp_path / "straight", loader, [(3, None)])
    assert lives(tmp_path / "longer", loader, [(1, None), (2, None), (3, None)]) == straight
    assert len(straight) == 24


class Counting(IterableDataset):
    """An iterable of somebody's own: it is where its iterator is."""

    def __iter__(self) -> Iterator[dict[str, int]]:
        yield from ({"id": number} for number in range(40))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_iterable_data_set_in_a_dataloader_goes_on_with_the_next_batch(tmp_path: Path, workers: int) -> None:
    def loader() -> Any:
        return DataLoader(Counting(), batch_size=8, num_workers=workers)

    straight = lives(tmp_path / "straight", loader, [(2, None)])
    assert straight == [list(range(at, at + 8)) for at in range(0, 40, 8)] * 2
    assert lives(tmp_path / "killed", loader, [(2, 3), (2, 5), (2, None)]) == straight
