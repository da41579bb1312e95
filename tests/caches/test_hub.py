"""What can go from a hub cache, and what must stay."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from outlast import durable
from outlast.caches import Cost, Item, Survey, by_id, hub
from tests.builders import opened_by_another_process
from tests.caches.builders import Hub, later

DIGEST = "ab" * 32


def found(cache: Hub, survey: Survey | None = None) -> dict[str, list[Item]]:
    """Things by kind, when all of them are old."""
    kinds: dict[str, list[Item]] = {}
    for item in hub.items(by_id("hf-hub"), cache.root, survey or later()):
        kinds.setdefault(item.kind, []).append(item)
    return kinds


@pytest.fixture
def cache(tmp_path: Path) -> Hub:
    return Hub(tmp_path / "hub")


def test_a_whole_repository_is_one_thing_that_costs_a_download(cache: Hub) -> None:
    cache.model()
    [item] = found(cache)["repo"]
    assert item.cost is Cost.DOWNLOAD and item.in_use is None
    assert item.single_bytes >= 20_000 and set(found(cache)) == {"repo"}


def test_a_partial_download_costs_nothing_unless_its_lock_is_held_or_it_is_young(cache: Hub) -> None:
    partial = cache.partial("models--org--model", bytes(5000))
    assert "ago" in (found(cache, Survey())["partial"][0].in_use or "")
    assert found(cache)["partial"][0].in_use is None and found(cache)["partial"][0].cost is Cost.SECONDS
    with durable.locked(cache.lock("models--org--model", "etag-partial"), wait=True):
        assert found(cache)["partial"][0].in_use == "a download is under way"
    with opened_by_another_process(partial):
        assert "in use" in (found(cache)["partial"][0].in_use or "")


def test_a_blob_that_no_revision_needs_is_an_orphan(cache: Hub) -> None:
    repo = cache.model()
    (repo / "blobs" / "left-behind").write_bytes(bytes(9000))
    [orphan] = found(cache)["orphan"]
    assert orphan.paths == (repo / "blobs" / "left-behind",)


def test_a_revision_that_no_branch_names_goes_with_the_blobs_that_it_alone_needs(cache: Hub) -> None:
    repo = cache.model()
    shared = cache.file("models--org--model", "r0", "model.safetensors", b"", etag="etag-r1-model.safetensors")
    own = cache.file("models--org--model", "r0", "old.bin", bytes(7000))
    [revision] = found(cache)["revision"]
    assert set(revision.paths) == {repo / "snapshots" / "r0", own} and shared not in revision.paths


def test_without_any_branch_no_revision_is_called_superfluous(cache: Hub) -> None:
    repo = cache.model()
    (repo / "refs" / "main").unlink()
    assert set(found(cache)) == {"repo"}


@pytest.mark.parametrize("fault", ["a link leads nowhere", "no snapshots", "a branch names nothing"])
def test_a_repository_that_hf_cache_does_not_show_is_found(cache: Hub, fault: str) -> None:
    repo = cache.model()
    if fault == "a link leads nowhere":
        (repo / "snapshots" / "r1" / "gone.json").symlink_to("../../blobs/gone")
    elif fault == "no snapshots":
        os.rename(repo / "snapshots", cache.root.parent / "elsewhere")
    else:
        cache.ref("models--org--model", "v2", "no-such-revision")
    [broken] = found(cache)["broken"]
    assert broken.paths == (repo,) and broken.note
    scan = pytest.importorskip("huggingface_hub").scan_cache_dir(cache.root)
    assert scan.repos == frozenset() and scan.warnings, "hf cache shows it by now: has upstream mended it?"


def test_a_payload_of_the_shared_store_goes_when_its_list_names_no_link(cache: Hub) -> None:
    repo = cache.model(size=200_000)
    payload = cache.share(repo / "blobs" / "etag-r1-model.safetensors", DIGEST)
    [item] = found(cache)["repo"]
    assert [(stored.path, stored.bytes) for stored in item.stored] == [(payload, 200_704)]
    assert item.single_bytes < 100_000
    assert "shared" not in found(cache)
    (repo / "blobs" / "etag-r1-model.safetensors").unlink()
    assert [one.paths for one in found(cache)["shared"]] == [(payload,)]


@pytest.mark.parametrize("manifest", [None, b"\xff\xfe", "a link"])
def test_a_payload_whose_list_cannot_be_read_stays(cache: Hub, manifest: bytes | str | None) -> None:
    repo = cache.model()
    payload = cache.share(repo / "blobs" / "etag-r1-model.safetensors", DIGEST)
    refs = payload.with_name(f"{DIGEST}.refs")
    refs.unlink()
    (repo / "blobs" / "etag-r1-model.safetensors").unlink()
    if isinstance(manifest, bytes):
        refs.write_bytes(manifest)
    elif manifest:
        (cache.root / "empty").touch()
        refs.symlink_to(cache.root / "empty")
    assert "shared" not in found(cache)


def test_a_folder_called_blobs_without_the_hubs_mark_is_not_its_store(cache: Hub) -> None:
    path = cache.root / "blobs" / "ab" / DIGEST
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    path.with_name(f"{DIGEST}.refs").touch()
    assert found(cache) == {}


@pytest.mark.parametrize("way", ["a link", "elsewhere", "unreadable ref"])
def test_where_it_cannot_be_told_what_is_needed_nothing_is_an_orphan(cache: Hub, tmp_path: Path, way: str) -> None:
    repo = cache.model()
    (repo / "blobs" / "maybe").write_bytes(bytes(9000))
    if way == "a link":
        os.rename(repo / "snapshots", tmp_path / "snapshots")
        (repo / "snapshots").symlink_to(tmp_path / "snapshots")
    elif way == "elsewhere":
        (tmp_path / "file").touch()
        (repo / "snapshots" / "r1" / "other").symlink_to(tmp_path / "file")
    else:
        os.mkfifo(repo / "refs" / "v2")
    assert not found(cache).keys() & {"orphan", "revision"}


def test_a_link_by_another_way_to_the_same_blobs_is_understood(cache: Hub, tmp_path: Path) -> None:
    repo = cache.model()
    (tmp_path / "way").symlink_to(cache.root)
    link = repo / "snapshots" / "r1" / "model.safetensors"
    link.unlink()
    link.symlink_to(tmp_path / "way" / repo.name / "blobs" / "etag-r1-model.safetensors")
    assert "orphan" not in found(cache)


def test_what_is_no_repository_is_not_looked_at(cache: Hub) -> None:
    for name in ("token", "notes--mine", "models", ".locks"):
        (cache.root / name).mkdir()
        (cache.root / name / "file").write_text("mine")
    (cache.root / "models--org--link").symlink_to(cache.root / "notes--mine")
    assert found(cache) == {}


def test_a_line_that_leads_out_of_the_cache_refers_to_nothing(cache: Hub, tmp_path: Path) -> None:
    repo = cache.model()
    payload = cache.share(repo / "blobs" / "etag-r1-model.safetensors", DIGEST)
    (repo / "blobs" / "etag-r1-model.safetensors").unlink()
    (tmp_path / "outside").symlink_to(payload)
    payload.with_name(f"{DIGEST}.refs").write_text("../outside\n/etc/passwd\nmodels--a--b/blobs/gone\n\n")
    assert hub.references_of(payload, cache.root) == frozenset()
