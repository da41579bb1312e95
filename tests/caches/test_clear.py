"""A plan carried out: what goes, what stays, and what is said of both."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest

from outlast import durable, journal
from outlast.caches import Cost, Inventory, Plan, Result, Wish, decide, execute, inventory
from outlast.errors import BadInput
from outlast.journal import Journal
from tests.builders import make_vault, opened_by_another_process, undeletable
from tests.caches.builders import Hub, later

EVERYTHING = Wish(dearest=Cost.DOWNLOAD)
DIGEST = "cd" * 32


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def look(home: Path, *named: Path, **variables: object) -> Inventory:
    environment = {"HOME": str(home), **{name: str(value) for name, value in variables.items()}}
    return inventory(environment, named=named, survey=later(), cwd=home.parent)


def carried_out(plan: Plan, home: Path) -> Result:
    return execute(plan, Journal(home / "journal", "run"), look=later)


def clean(home: Path, wish: Wish = EVERYTHING, *named: Path, **variables: object) -> Result:
    return carried_out(decide(look(home, *named, **variables).items, wish), home)


def told(home: Path, name: str) -> list[journal.Event]:
    return [event for event in journal.read(home / "journal", "run") if event.name == name]


def test_what_was_planned_goes_and_every_path_is_written_down(home: Path) -> None:
    hub = Hub(home / ".cache/huggingface/hub")
    hub.model()
    hub.partial("models--org--model", bytes(50_000))
    (home / ".cache/huggingface/token").write_text("secret")
    result = clean(home)
    assert [outcome.reason for outcome in result.outcomes] == [None] * len(result.outcomes)
    assert result.freed_bytes == result.predicted_bytes > 70_000
    assert sorted(path.name for path in hub.root.iterdir()) == []
    assert (home / ".cache/huggingface/token").read_text() == "secret"
    assert {Path(str(event.get("path"))).name for event in told(home, "deleted")} >= {"models--org--model"}


def test_a_thing_that_is_opened_after_the_plan_was_made_stays(home: Path) -> None:
    hub = Hub(home / ".cache/huggingface/hub")
    blob = hub.model() / "blobs" / "etag-r1-model.safetensors"
    plan = decide(look(home).items, EVERYTHING)
    with opened_by_another_process(blob):
        result = carried_out(plan, home)
    assert result.outcomes[0].reason and "in use" in result.outcomes[0].reason
    assert blob.exists() and result.freed_bytes == 0 and not (hub.root / ".outlast").exists()
    assert told(home, "not_deleted")[0].get("reason")


def test_a_folder_that_has_become_a_link_since_leads_nowhere(home: Path, tmp_path: Path) -> None:
    hub = Hub(home / ".cache/huggingface/hub")
    hub.model()
    orphan = hub.root / "models--org--model/blobs/orphan"
    orphan.write_bytes(bytes(5000))
    plan = decide(look(home).items, Wish())
    shutil.move(orphan.parent, tmp_path / "precious")
    (hub.root / "models--org--model/blobs").symlink_to(tmp_path / "precious")
    result = carried_out(plan, home)
    assert "link" in str(result.outcomes[0].reason) and (tmp_path / "precious/orphan").exists()


def test_what_cannot_be_deleted_is_said_with_the_reason_and_counts_as_used(home: Path) -> None:
    hub = Hub(home / ".cache/huggingface/hub")
    hub.model()
    with undeletable(hub.root / "models--org--model"):
        result = clean(home)
    assert result.outcomes[0].reason and result.freed_bytes == 0


def test_a_clean_that_was_cut_short_is_finished_by_the_next(home: Path) -> None:
    hub = Hub(home / ".cache/huggingface/hub")
    hub.model()
    (hub.root / ".outlast/trash").mkdir(parents=True)
    (hub.root / "models--org--model").rename(hub.root / ".outlast/trash/models--org--model.abcd")
    assert [item.kind for item in look(home).items] == ["debris"]
    clean(home, Wish())
    assert list(hub.root.iterdir()) == []


def test_a_shared_payload_goes_with_the_last_repository_that_needs_it(home: Path) -> None:
    hub = Hub(home / ".cache/huggingface/hub")
    for name in ("models--org--one", "models--org--two"):
        payload = hub.share(hub.model(name, 300_000) / "blobs" / "etag-r1-model.safetensors", DIGEST)
    first = carried_out(decide([i for i in look(home).items if i.name.endswith("one")], EVERYTHING), home)
    assert payload.exists() and first.freed_bytes == first.predicted_bytes < 300_000
    second = clean(home)
    assert not payload.exists() and second.freed_bytes == second.predicted_bytes > 300_000


def test_a_payload_that_was_linked_again_meanwhile_stays(home: Path) -> None:
    hub = Hub(home / ".cache/huggingface/hub")
    payload = hub.share(hub.model(size=300_000) / "blobs" / "etag-r1-model.safetensors", DIGEST)
    plan = decide(look(home).items, EVERYTHING)
    hub.share(hub.file("models--org--late", "r1", "model.safetensors", bytes(300_000)), DIGEST)
    carried_out(plan, home)
    assert payload.exists() and (hub.root / "models--org--late/blobs/etag-r1-model.safetensors").exists()


@pytest.mark.parametrize("place", ["/", "home", "above home", "a work tree"])
def test_a_variable_that_points_at_your_own_folder_empties_nothing(home: Path, tmp_path: Path, place: str) -> None:
    mine = tmp_path / "mine"
    (mine / "http-v2" / "a").mkdir(parents=True)
    (mine / ".git").mkdir()
    where = {"/": Path("/"), "home": home, "above home": tmp_path, "a work tree": mine}[place]
    found = look(home, PIP_CACHE_DIR=where)
    assert [item for item in found.items if item.cache == "pip"] == []
    assert "pip" in {skipped.cache for skipped in found.skipped}


def test_what_does_not_look_like_the_caches_own_is_not_taken_for_it(home: Path) -> None:
    cache = home / "stuff"
    (cache / "http-v2" / "a" / "0").mkdir(parents=True)
    (cache / "http-v2" / "a" / "0" / "body").write_bytes(bytes(5000))
    (cache / "thesis.tex").write_text("mine")
    (cache / "wheels.txt").write_text("mine")
    clean(home, PIP_CACHE_DIR=cache)
    assert sorted(path.name for path in cache.iterdir()) == ["http-v2", "thesis.tex", "wheels.txt"]
    assert list((cache / "http-v2").iterdir()) == []


def test_old_outputs_that_you_name_go_and_what_is_beside_them_stays(home: Path, tmp_path: Path) -> None:
    for name in ("outputs/a", "outputs-of-mine/b"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_bytes(bytes(5000))
    result = clean(home, EVERYTHING, tmp_path / "outputs")
    assert result.outcomes[0].reason is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "outputs-of-mine"]


@pytest.mark.parametrize("name", ["gone", "home", ".", "link", "tree"])
def test_a_path_that_must_not_go_is_bad_input(home: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "link").symlink_to(home)
    (tmp_path / "tree" / ".git").mkdir(parents=True)
    with pytest.raises(BadInput):
        look(home, tmp_path / name)


def test_hard_links_to_elsewhere_free_nothing_and_are_not_said_to(home: Path, tmp_path: Path) -> None:
    cache = home / ".cache/pip/http-v2/a"
    cache.mkdir(parents=True)
    (cache / "0").mkdir()
    (cache / "0" / "wheel").write_bytes(bytes(500_000))
    os.link(cache / "0" / "wheel", tmp_path / "installed")
    result = clean(home)
    assert result.freed_bytes == result.predicted_bytes < 100_000 and (tmp_path / "installed").exists()


def test_what_datasets_keeps_is_told_apart(home: Path) -> None:
    root = home / ".cache/huggingface/datasets"
    build = root / "org___corpus/default/0.0.0/0123456789abcdef"
    for name, size in (
        ("corpus-train.arrow", 50_000), ("dataset_info.json", 10), ("cache-00ff.arrow", 70_000),
        ("cache-00ff_00001_of_00004.arrow", 20_000),
    ):  # fmt: skip
        build.mkdir(parents=True, exist_ok=True)
        (build / name).write_bytes(bytes(size))
    partial = root / "org___corpus/default/0.0.0/fedcba9876543210.incomplete"
    partial.mkdir()
    (partial / "corpus-train.arrow").write_bytes(bytes(30_000))
    (root / "downloads").mkdir()
    (root / "downloads" / ("ab" * 32)).write_bytes(bytes(40_000))
    (root / "notes.txt").write_text("mine")
    found = look(home).items
    kinds = {item.paths[0].name: (item.cache, item.kind, item.cost) for item in found}
    assert kinds == {
        "cache-00ff.arrow": ("hf-datasets", "map", Cost.MINUTES),
        "cache-00ff_00001_of_00004.arrow": ("hf-datasets", "map", Cost.MINUTES),
        "0123456789abcdef": ("hf-datasets", "build", Cost.DOWNLOAD),
        "fedcba9876543210.incomplete": ("hf-datasets", "partial", Cost.SECONDS),
        "ab" * 32: ("hf-datasets-downloads", "entry", Cost.DOWNLOAD),
    }
    result = clean(home)
    assert result.freed_bytes == result.predicted_bytes and (root / "notes.txt").exists() and not build.exists()


@pytest.mark.parametrize("what", ["outlast.json", ".outlast", ".git"])
def test_a_checkpoint_or_a_work_tree_in_a_cache_is_no_cache(home: Path, what: str) -> None:
    build = home / ".cache/huggingface/datasets/o___c/default/0.0.0/0123456789abcdef"
    (build / "deep").mkdir(parents=True)
    (build / "dataset_info.json").touch()
    (build / "deep" / what).mkdir()
    [item] = look(home).items
    assert "holds" in (item.in_use or "")


def test_a_thing_in_which_another_cache_lies_stays(home: Path, tmp_path: Path) -> None:
    hub = Hub(home / "hub")
    hub.model()
    token = hub.root / "models--org--model" / "deep" / "token"
    token.parent.mkdir()
    token.write_text("secret")
    found = look(home, HF_HUB_CACHE=hub.root, HF_TOKEN_PATH=token).items
    assert ["hf-token" in (item.in_use or "") for item in found] == [True]


def test_what_you_named_and_holds_your_login_or_a_pin_is_bad_input(home: Path, tmp_path: Path) -> None:
    (home / ".cache/huggingface").mkdir(parents=True)
    (home / ".cache/huggingface/token").write_text("secret")
    with pytest.raises(BadInput, match="login token"):
        look(home, home / ".cache/huggingface")
    make_vault(tmp_path / "runs", [10]).pin("checkpoint-10")
    with pytest.raises(BadInput, match="pinned"):
        look(home, tmp_path / "runs")


def test_what_changes_after_the_plan_was_made_stays(home: Path) -> None:
    hub = Hub(home / ".cache/huggingface/hub")
    orphan = hub.model() / "blobs" / "etag-late"
    orphan.write_bytes(bytes(5000))
    other = hub.model("models--org--other")
    plan = decide(look(home).items, EVERYTHING)
    hub.file("models--org--model", "r2", "weights", b"", etag="etag-late")
    os.utime(other / "blobs", (time.time() + 5, time.time() + 5))
    carried_out(plan, home)
    assert orphan.exists() and other.exists()


def test_a_named_folder_that_was_half_deleted_is_finished_by_the_same_words(home: Path, tmp_path: Path) -> None:
    (tmp_path / ".outlast/trash/outputs.abcd1234").mkdir(parents=True)
    (tmp_path / ".outlast/trash/outputs.abcd1234/file").write_bytes(bytes(5000))
    (tmp_path / ".outlast/trash/others.abcd1234").mkdir()
    assert clean(home, EVERYTHING, tmp_path / "outputs").freed_bytes > 4000
    assert [path.name for path in (tmp_path / ".outlast/trash").iterdir()] == ["others.abcd1234"]


def test_a_path_that_is_named_twice_is_counted_once(home: Path, tmp_path: Path) -> None:
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs/file").write_bytes(bytes(50_000))
    result = clean(home, EVERYTHING, tmp_path / "outputs", tmp_path / "outputs")
    assert result.predicted_bytes == result.freed_bytes < 100_000


def test_a_bind_mount_of_the_same_volume_is_another_mount() -> None:
    table = "21 1 8:1 / / rw - ext4 /dev/a rw\n22 21 8:1 /precious /data/with\\040blank/in rw - ext4 /dev/a rw\n"
    path = Path(tempfile.mkdtemp()) / "table"
    path.write_text(table)
    points = durable.mount_points(str(path))
    assert durable.mounts_below("/data", points) == {"/data/with blank/in"}
    assert durable.mounts_below("/data/with blank", points) == {"/data/with blank/in"}
    assert durable.mounts_below("/dat", points) == frozenset()
