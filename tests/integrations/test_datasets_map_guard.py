"""`Dataset.map` under guard: a map that fits goes on, however its pieces are cut."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
from datasets import arrow_dataset

from outlast.errors import NoRoom
from outlast.integrations.datasets import map_guard

ROOM_BYTES = 1_000_000


@pytest.fixture
def texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> datasets.Dataset:
    """3,000 rows of 100 bytes on a volume with room for three times as much; the guard is there for one test."""
    for owner, name in (
        (arrow_dataset.Dataset, "map"), (arrow_dataset.Dataset, "save_to_disk"),
        (arrow_dataset.ArrowWriter, "__init__"), (arrow_dataset.ArrowWriter, "write_table"),
    ):  # fmt: skip
        monkeypatch.setattr(owner, name, getattr(owner, name))
    monkeypatch.setattr(arrow_dataset.Dataset, "_map_single", staticmethod(arrow_dataset.Dataset._map_single))
    map_guard.install(arrow_dataset)
    monkeypatch.setattr(map_guard, "room", lambda place: SimpleNamespace(free_bytes=ROOM_BYTES))
    monkeypatch.delenv("OUTLAST_RUN", raising=False)
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict({"text": ["x" * 100] * 3_000}).to_parquet(tmp_path / "a.parquet")
    return datasets.Dataset.from_parquet(str(tmp_path / "a.parquet"), cache_dir=str(tmp_path / "cache"))


@pytest.mark.parametrize("batch_size", [-1, 0, None, 7, 1_000, 10_000])
def test_a_map_that_fits_is_done_whatever_its_batch_size(texts: datasets.Dataset, batch_size: int | None) -> None:
    twice = texts.map(lambda batch: {"again": batch["text"]}, batched=True, batch_size=batch_size)
    assert len(twice) == 3_000


@pytest.mark.parametrize("batch_size", [-1, 100])
def test_one_that_does_not_fit_is_refused_whatever_its_batch_size(texts: datasets.Dataset, batch_size: int) -> None:
    with pytest.raises(NoRoom, match="the result of map needs about"):
        texts.map(lambda batch: {"again": [text * 10 for text in batch["text"]]}, batched=True, batch_size=batch_size)
