"""Rung 3: what caches give to a save that does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from outlast.caches import Inventory, Reclaim, allowed, inventory
from outlast.checkpoints import Policy, Saver
from outlast.errors import BadInput
from outlast.host import Budget, allocated_bytes
from outlast.journal import Journal
from tests.builders import events, kinds, make_vault, needs, undeletable, writer
from tests.caches.builders import Hub, later

KIB = 1024


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    cache = Hub(tmp_path / "home/.cache/huggingface/hub")
    cache.model(size=400 * KIB)
    cache.partial("models--org--model", bytes(300 * KIB))
    wheels = tmp_path / "home/.cache/pip/http-v2/a/0"
    wheels.mkdir(parents=True)
    (wheels / "wheel").write_bytes(bytes(200 * KIB))
    return cache


def reclaim(tmp_path: Path, *words: str) -> Reclaim:
    def look() -> Inventory:
        return inventory({"HOME": str(tmp_path / "home")}, survey=later(), cwd=tmp_path / "elsewhere")

    return Reclaim(frozenset(words), Journal(tmp_path / "journal", "run"), look=look)


def test_without_a_word_of_the_user_only_what_no_tool_can_use_is_offered(tmp_path: Path, hub: Hub) -> None:
    assert list(reclaim(tmp_path).offers(tmp_path)) == ["hf-hub: partial"]
    assert list(reclaim(tmp_path, "pip").offers(tmp_path)) == ["pip: entry"]
    assert list(reclaim(tmp_path, "download").offers(tmp_path)) == ["pip: entry", "hf-hub: models--org--model"]


def test_what_is_on_another_volume_is_no_help(tmp_path: Path, hub: Hub) -> None:
    assert reclaim(tmp_path, "download", "partial").offers(Path("/proc")) == {}


def test_a_save_that_does_not_fit_takes_it_before_any_checkpoint_gives_way(tmp_path: Path, hub: Hub) -> None:
    vault = make_vault(tmp_path / "runs", [10], model=100 * KIB, moments=200 * KIB)
    vault.budgets = [Budget(tmp_path.resolve(), allocated_bytes(tmp_path) + 550 * KIB)]
    offers = reclaim(tmp_path)
    saver = Saver(vault, Policy(), offers, lineage="one")
    sizes = {"model": 100 * KIB, "moments": 300 * KIB}
    saver.save("checkpoint-20", 20, needs(**sizes), writer(20, **sizes))
    assert [(e.get("number"), e.get("name")) for e in events(vault, "rung")][:1] == [(3, "hf-hub: partial")]
    assert kinds(vault) == {"checkpoint-10": "full", "checkpoint-20": "full"}
    assert list(hub.root.glob("*/blobs/*.incomplete")) == [] and (hub.root / "models--org--model/snapshots").exists()


def test_what_cannot_be_removed_is_not_offered_for_ever(tmp_path: Path, hub: Hub) -> None:
    offers = reclaim(tmp_path)
    with undeletable(hub.root / "models--org--model/blobs"):
        [name] = offers.offers(tmp_path)
        offers.take(name)
        assert offers.offers(tmp_path) == {}


@pytest.mark.parametrize("words", ["everything", "pip,never", "named", "NEVER"])
def test_what_cannot_be_allowed_is_bad_input(words: str) -> None:
    with pytest.raises(BadInput, match="cannot reclaim"):
        allowed(words)
