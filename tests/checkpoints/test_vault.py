"""A folder of sealed checkpoints: what is listed, chosen, pinned, deleted, made light, and put in order at a start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.builders import (
    BLOCK,
    MODEL,
    MOMENTS,
    SIDECAR,
    debris,
    events,
    fill,
    flip_bit,
    kinds,
    make_vault,
    names,
    opened_by_another_process,
    put_checkpoint,
    safetensors_bytes,
    undeletable,
)

from outlast import durable
from outlast.checkpoints import Draft, Keep, Needs, Saver, Stage, Vault
from outlast.checkpoints import seal as seals
from outlast.errors import BadInput, NoWayBack


def saved_by_saver(vault: Vault, step: int) -> None:
    """A save as a new training makes it."""

    def write(stage: Stage) -> Draft:
        (stage.path / "weights").write_bytes(b"new")
        return Draft("transformers", {"full": ()})

    Saver(vault).save(f"checkpoint-{step}", step, Needs({"full": (3,)}), write)


def trainers_own(folder: Path, *, training: bool = True, state: bool = True) -> Path:
    """What a Trainer writes, as far as it can be judged without loading it."""
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(safetensors_bytes())
    (folder / "config.json").write_text("{}")
    if training:
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
            (folder / name).write_bytes(b"\x80\x02.")
    if state:
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": 40}))
    return folder


def quarantined(vault: Vault) -> list[str]:
    return sorted(path.name.partition(".")[0] for path in (vault.own / "quarantine").iterdir())


# Listing


def test_checkpoints_come_in_the_order_of_their_steps_as_numbers(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10_000, 9000, 20])
    assert names(vault) == ["checkpoint-20", "checkpoint-9000", "checkpoint-10000"]


def test_a_new_training_in_the_same_folder_is_newer_than_an_old_one_that_came_further(tmp_path: Path) -> None:
    vault = make_vault(tmp_path)
    put_checkpoint(vault, 100, lineage="old", created=1000)
    put_checkpoint(vault, 90, lineage="old", created=900)
    put_checkpoint(vault, 10, lineage="new", created=2000)
    assert names(vault) == ["checkpoint-90", "checkpoint-100", "checkpoint-10"]


def test_a_training_that_was_resumed_stays_in_order_whatever_the_clock_said(tmp_path: Path) -> None:
    vault = make_vault(tmp_path)
    put_checkpoint(vault, 10, created=5000)
    put_checkpoint(vault, 20, created=100)
    assert names(vault) == ["checkpoint-10", "checkpoint-20"]


def test_a_folder_that_is_not_there_holds_nothing_and_is_not_made(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "gone")
    assert vault.checkpoints() == [] and vault.choose() is None and vault.unsealed() == {}
    vault.recover()
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("damage", ["torn seal", "no seal", "cut model", "a link to a checkpoint"])
def test_what_is_not_whole_is_not_listed_as_whole(tmp_path: Path, damage: str) -> None:
    vault = make_vault(tmp_path, [10, 20])
    newest = tmp_path / "checkpoint-20"
    match damage:
        case "torn seal":
            (newest / seals.NAME).write_bytes((newest / seals.NAME).read_bytes()[:50])
        case "no seal":
            (newest / seals.NAME).unlink()
        case "cut model":
            os.truncate(newest / MODEL, 5)
        case _:
            newest.rename(tmp_path / "elsewhere")
            newest.symlink_to(tmp_path / "elsewhere")
    assert [c.name for c in vault.checkpoints() if c.kind and c.path == newest] == []
    assert kinds(vault)["checkpoint-10"] == "full"


def test_a_seal_that_is_replaced_is_read_again(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10])
    assert vault.get("checkpoint-10").step == 10
    put_checkpoint(vault, 11, name="checkpoint-10")
    assert vault.get("checkpoint-10").step == 11


def test_a_checkpoint_that_is_one_file_is_listed_with_the_others(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10])
    path = tmp_path / "epoch=1.ckpt"
    path.write_bytes(b"lightning")
    seals.write(path, vault.seal_for(path, 20, "lightning", {"full": ()}, lineage="one", created=1020.0))
    assert kinds(vault) == {"checkpoint-10": "full", "epoch=1.ckpt": "full"}


@pytest.mark.parametrize("name", ["checkpoint-99", "..", "../x", "", "checkpoint-10/.."])
def test_a_checkpoint_that_is_not_there_is_bad_input(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match="no sealed checkpoint"):
        make_vault(tmp_path, [10]).get(name)


def test_what_it_takes_is_counted_in_whole_blocks(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10], model=BLOCK + 1, moments=BLOCK)
    assert vault.get("checkpoint-10").bytes == (2 + 1 + 1 + 1) * BLOCK  # model, moments, sidecar, seal


# Choosing


def test_resume_takes_the_newest(tmp_path: Path) -> None:
    choice = make_vault(tmp_path, [10, 20, 30]).take()
    assert choice is not None
    assert (choice.checkpoint.name, choice.kind, choice.passed_over) == ("checkpoint-30", "full", ())


def test_resume_takes_nothing_where_nothing_is_sealed(tmp_path: Path) -> None:
    fill(tmp_path / "checkpoint-10", 10)
    assert make_vault(tmp_path).take() is None


def test_a_flipped_bit_is_passed_over_and_the_bad_one_set_aside_with_the_reason(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10, 20, 30])
    flip_bit(tmp_path / "checkpoint-30" / MOMENTS, 77)
    choice = vault.take()
    assert choice is not None and choice.checkpoint.name == "checkpoint-20"
    assert names(vault) == ["checkpoint-10", "checkpoint-20"] and quarantined(vault) == ["checkpoint-30"]
    (event,) = events(vault, "quarantined")
    assert MOMENTS in event.get("reason")
    assert events(vault, "resumed")[0].get("name") == "checkpoint-20"


def test_choosing_alone_changes_nothing(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10, 20])
    flip_bit(tmp_path / "checkpoint-20" / MODEL)
    choice = vault.choose()
    assert choice is not None and choice.checkpoint.name == "checkpoint-10"
    assert [name for name, _ in choice.passed_over] == ["checkpoint-20"]
    assert names(vault) == ["checkpoint-10", "checkpoint-20"]


def test_damage_after_the_first_look_is_seen_by_its_traces(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10])
    assert vault.check(vault.get("checkpoint-10")).is_whole
    flip_bit(tmp_path / "checkpoint-10" / MODEL)
    assert not vault.check(vault.get("checkpoint-10")).is_whole


def test_a_newer_light_one_comes_before_an_older_full_one_unless_exactness_is_asked_for(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10])
    put_checkpoint(vault, 20, kind="light")
    newest, exact = vault.choose(), vault.choose(keep_exact=True)
    assert newest is not None and (newest.checkpoint.step, newest.kind) == (20, "light")
    assert exact is not None and (exact.checkpoint.step, exact.kind) == (10, "full")


def test_with_keep_exact_and_nothing_exact_left_the_newest_light_one_is_taken(tmp_path: Path) -> None:
    choice = make_vault(tmp_path, [10, 20], kind="light").choose(keep_exact=True)
    assert choice is not None and choice.checkpoint.step == 20


@pytest.mark.parametrize("keep_exact", [True, False])
def test_bare_weights_come_last_of_all(tmp_path: Path, keep_exact: bool) -> None:
    vault = make_vault(tmp_path)
    put_checkpoint(vault, 10, kind="light")
    put_checkpoint(vault, 30, kind="weights")
    choice = vault.choose(keep_exact=keep_exact)
    assert choice is not None and choice.checkpoint.step == 10


def test_bare_weights_are_taken_when_they_are_all_there_is(tmp_path: Path) -> None:
    choice = make_vault(tmp_path, [10, 20], kind="weights").choose()
    assert choice is not None and (choice.checkpoint.step, choice.kind) == (20, "weights")


def test_the_light_part_of_a_damaged_full_one_is_the_last_way_back(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10])
    flip_bit(tmp_path / "checkpoint-10" / MOMENTS)
    choice = vault.take()
    assert choice is not None and choice.kind == "light"
    assert names(vault) == ["checkpoint-10"], "what is resumed from is not set aside"


def test_when_nothing_verifies_it_says_why_and_deletes_nothing(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10, 20])
    for step in (10, 20):
        flip_bit(tmp_path / f"checkpoint-{step}" / MODEL)
    with pytest.raises(NoWayBack, match="none of 2 .* checkpoint-20: model.bytes does not have the content"):
        vault.take()
    assert names(vault) == ["checkpoint-10", "checkpoint-20"]


def test_what_was_asked_for_is_taken_if_it_verifies(tmp_path: Path) -> None:
    choice = make_vault(tmp_path, [10, 20, 30]).take(wanted="checkpoint-10")
    assert choice is not None and choice.checkpoint.step == 10


@pytest.mark.parametrize("wanted", ["checkpoint-20", "checkpoint-99"])
def test_what_was_asked_for_and_is_not_whole_is_passed_over_aloud(tmp_path: Path, wanted: str) -> None:
    vault = make_vault(tmp_path, [10, 20, 30])
    flip_bit(tmp_path / "checkpoint-20" / MODEL)
    choice = vault.take(wanted=wanted)
    assert choice is not None and choice.checkpoint.step == 30
    assert events(vault, "passed_over")[0].get("name") == wanted


# Keeping and deleting


def test_pruning_deletes_what_the_rules_do_not_keep_and_writes_it_down(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10, 20, 30])
    removals = vault.prune(Keep(last=1))
    assert names(vault) == ["checkpoint-30"] and debris(tmp_path) == []
    assert [(removal.name, removal.reason) for removal in removals] == [
        ("checkpoint-10", None),
        ("checkpoint-20", None),
    ]
    assert all(removal.freed_bytes >= 9 * BLOCK for removal in removals)
    assert [event.get("why") for event in events(vault, "deleted")] == ["not wanted by last=1"] * 2


def test_what_is_pinned_outlives_pruning_until_it_is_unpinned(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10, 20, 30])
    vault.pin("checkpoint-10")
    vault.prune(Keep(last=1))
    assert names(vault) == ["checkpoint-10", "checkpoint-30"] and vault.get("checkpoint-10").is_pinned
    vault.unpin("checkpoint-10")
    vault.prune(Keep(last=1))
    assert names(vault) == ["checkpoint-30"]


def test_what_a_framework_will_load_later_outlives_pruning(tmp_path: Path) -> None:
    make_vault(tmp_path, [10, 20, 30])
    vault = Vault(tmp_path, budgets=[], is_protected=lambda name: "the best" if name == "checkpoint-10" else None)
    vault.prune(Keep(last=1))
    assert names(vault) == ["checkpoint-10", "checkpoint-30"]


def test_with_keep_exact_the_newest_full_one_outlives_pruning(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10, 20])
    put_checkpoint(vault, 30, kind="light")
    vault.prune(Keep(last=1), keep_exact=True)
    assert kinds(vault) == {"checkpoint-20": "full", "checkpoint-30": "light"}


def test_the_last_one_that_verifies_is_never_deleted(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10, 20])
    flip_bit(tmp_path / "checkpoint-20" / MODEL)
    removal = vault.drop("checkpoint-10", "test")
    assert removal.reason == "no other checkpoint verifies" and removal.held_bytes >= 9 * BLOCK
    assert "checkpoint-10" in names(vault) and events(vault, "not_deleted")[0].get("reason") == removal.reason


def test_a_deleted_file_takes_its_seal_with_it(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10])
    path = tmp_path / "epoch=1.ckpt"
    path.write_bytes(b"lightning")
    seals.write(path, vault.seal_for(path, 20, "lightning", {"full": ()}))
    vault.drop("epoch=1.ckpt", "test")
    assert names(vault) == ["checkpoint-10"] and list((vault.own / "seals").iterdir()) == []


def test_what_another_process_has_open_is_not_deleted_and_its_user_is_named(tmp_path: Path) -> None:
    make_vault(tmp_path, [10, 20])
    vault = Vault(tmp_path, budgets=[])
    with opened_by_another_process(tmp_path / "checkpoint-10" / MODEL) as pid:
        removals = vault.prune(Keep(last=1))
        assert removals[0].reason is not None and f"in use by {pid} (" in removals[0].reason
        assert vault.is_stuck("checkpoint-10") and vault.prune(Keep(last=1)) == []
    vault.retry_stuck()
    vault.prune(Keep(last=1))
    assert names(vault) == ["checkpoint-20"]


def test_what_cannot_be_deleted_is_told_once_and_counts_as_used(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10, 20])
    with undeletable(tmp_path / "checkpoint-10"):
        (removal,) = vault.prune(Keep(last=1))
        vault.retry_stuck()
        vault.prune(Keep(last=1))
    assert removal.reason is not None and removal.freed_bytes == 0 and removal.held_bytes > 9 * BLOCK
    assert [event.get("path") for event in events(vault, "not_deleted")] == [str(tmp_path / "checkpoint-10")]


# Making light


def test_making_light_deletes_the_moments_and_leaves_a_whole_light_checkpoint(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10, 20])
    removal = vault.lighten("checkpoint-10", "test")
    assert (removal.reason, removal.freed_bytes) == (None, 6 * BLOCK)
    assert kinds(vault) == {"checkpoint-10": "light", "checkpoint-20": "full"}
    assert vault.check(vault.get("checkpoint-10")).is_whole and debris(tmp_path) == []


def test_making_the_only_one_light_is_allowed_when_its_light_part_verifies(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10])
    assert vault.lighten("checkpoint-10", "test").reason is None
    assert kinds(vault) == {"checkpoint-10": "light"}


@pytest.mark.parametrize("file", [MODEL, SIDECAR, MOMENTS])
def test_the_only_one_is_not_made_light_when_it_does_not_verify(tmp_path: Path, file: str) -> None:
    vault = make_vault(tmp_path, [10])
    flip_bit(tmp_path / "checkpoint-10" / file)
    assert vault.lighten("checkpoint-10", "test").reason == "it does not verify and no other one does"
    assert (tmp_path / "checkpoint-10" / MOMENTS).exists()


def test_what_is_pinned_or_has_no_light_form_is_not_made_light(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10])
    put_checkpoint(vault, 20, kind="weights")
    vault.pin("checkpoint-10")
    assert vault.lighten("checkpoint-10", "test").reason == "it is pinned"
    assert vault.lighten("checkpoint-20", "test").reason == "it has no light form"
    assert kinds(vault) == {"checkpoint-10": "full", "checkpoint-20": "weights"}


def test_making_light_twice_frees_nothing_the_second_time(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10])
    vault.lighten("checkpoint-10", "test")
    removal = vault.lighten("checkpoint-10", "test")
    assert (removal.freed_bytes, removal.reason) == (0, None)


def test_moments_that_are_open_elsewhere_are_not_deleted(tmp_path: Path) -> None:
    make_vault(tmp_path, [10])
    vault = Vault(tmp_path, budgets=[])
    with opened_by_another_process(tmp_path / "checkpoint-10" / MOMENTS):
        removal = vault.lighten("checkpoint-10", "test")
    assert removal.reason is not None and "in use by" in removal.reason
    assert kinds(vault) == {"checkpoint-10": "full"} and vault.is_stuck("checkpoint-10")


# A start


def test_a_sealed_stage_is_committed_and_everything_else_of_a_kill_is_swept(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10])
    stage = vault.own / "stage"
    put_checkpoint(make_vault(tmp_path / "built"), 20).rename((stage / "1-aa").resolve())
    (stage / "2-bb").mkdir()
    (stage / "1-aa").rename(stage / "2-bb" / "checkpoint-20")
    fill(stage / "3-cc" / "checkpoint-30", 30)
    (stage / "3-cc" / ".reserved-0").write_bytes(bytes(BLOCK))
    fill(vault.own / "trash" / "checkpoint-5.0a", 5)
    (tmp_path / "checkpoint-10" / f".{seals.NAME}.0b.part").touch()
    vault.recover()
    assert names(vault) == ["checkpoint-10", "checkpoint-20"] and debris(tmp_path) == []
    assert [event.get("path") for event in events(vault, "committed_late")] == [str(tmp_path / "checkpoint-20")]
    assert len(events(vault, "trash_emptied")) == 1


def test_a_sealed_stage_whose_bytes_did_not_reach_the_disk_is_not_committed(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10])
    put_checkpoint(make_vault(tmp_path / "built"), 20)
    (vault.own / "stage" / "2-bb").mkdir()
    (tmp_path / "built" / "checkpoint-20").rename(vault.own / "stage" / "2-bb" / "checkpoint-20")
    flip_bit(vault.own / "stage" / "2-bb" / "checkpoint-20" / MODEL)
    vault.recover()
    assert names(vault) == ["checkpoint-10"] and debris(tmp_path) == []


def test_a_stage_of_a_process_that_is_saving_now_is_left_alone(tmp_path: Path) -> None:
    vault = make_vault(tmp_path)
    fill(vault.own / "stage" / "1-aa" / "checkpoint-10", 10)
    with durable.locked(vault.own / "save.lock", wait=True):
        make_vault(tmp_path).recover()
    assert (vault.own / "stage" / "1-aa" / "checkpoint-10").is_dir()


def test_putting_in_order_twice_changes_nothing_more(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10])
    trainers_own(tmp_path / "checkpoint-40")
    trainers_own(tmp_path / "checkpoint-50", state=False)
    vault.recover()
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    make_vault(tmp_path).recover()
    after = sorted(str(path) for path in tmp_path.rglob("*"))
    assert [path for path in after if "journal" not in path] == [path for path in before if "journal" not in path]


def test_a_whole_folder_that_nobody_sealed_is_adopted(tmp_path: Path) -> None:
    vault = make_vault(tmp_path)
    trainers_own(tmp_path / "checkpoint-40")
    vault.recover()
    adopted = vault.get("checkpoint-40")
    assert (adopted.kind, adopted.step, adopted.seal.made, adopted.seal.layout) == (
        "full",
        40,
        "adopted",
        "transformers",
    )
    assert vault.check(adopted).is_whole


def test_a_folder_with_weights_alone_is_adopted_as_that(tmp_path: Path) -> None:
    vault = make_vault(tmp_path)
    trainers_own(tmp_path / "checkpoint-40", training=False)
    vault.recover()
    assert kinds(vault) == {"checkpoint-40": "weights"}


def test_a_folder_without_the_file_that_is_written_last_is_set_aside(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10])
    trainers_own(tmp_path / "checkpoint-40", state=False)
    vault.recover()
    assert names(vault) == ["checkpoint-10"] and quarantined(vault) == ["checkpoint-40"]
    assert not any(path.name.startswith("checkpoint-40") for path in tmp_path.iterdir())
    assert "trainer_state.json is missing" in events(vault, "quarantined")[0].get("reason")


def test_a_folder_that_another_process_is_still_writing_is_left_alone(tmp_path: Path) -> None:
    make_vault(tmp_path)
    vault = Vault(tmp_path, budgets=[])
    folder = trainers_own(tmp_path / "checkpoint-40", state=False)
    with opened_by_another_process(folder / "model.safetensors"):
        vault.recover()
    assert folder.is_dir() and names(vault) == []


@pytest.mark.parametrize("seal", [b"", b"{}", b'{"format": 1}'])
def test_a_folder_with_a_torn_seal_is_set_aside_and_not_adopted(tmp_path: Path, seal: bytes) -> None:
    vault = make_vault(tmp_path)
    (trainers_own(tmp_path / "checkpoint-40") / seals.NAME).write_bytes(seal)
    vault.recover()
    assert names(vault) == [] and quarantined(vault) == ["checkpoint-40"]


def test_a_folder_with_a_seal_of_a_newer_outlast_is_left_alone(tmp_path: Path) -> None:
    vault = make_vault(tmp_path)
    folder = trainers_own(tmp_path / "checkpoint-40")
    (folder / seals.NAME).write_bytes(b'{"format": 99}')
    vault.recover()
    assert names(vault) == quarantined(vault) == [] and folder.is_dir()


def test_a_folder_of_the_users_own_that_has_a_checkpoints_name_is_left_alone(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10])
    (tmp_path / "step-1").mkdir()
    (tmp_path / "step-1" / "thesis.bin").write_bytes(b"mine")
    vault.recover()
    assert (tmp_path / "step-1" / "thesis.bin").read_bytes() == b"mine" and quarantined(vault) == []


def test_what_is_quarantined_and_not_known_for_a_checkpoint_is_never_superseded(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [40])
    (vault.own / "quarantine" / "checkpoint-10.123").mkdir(parents=True)
    (vault.own / "quarantine" / "checkpoint-10.123" / "thesis.bin").write_bytes(b"mine")
    assert vault.superseded() == {}


def test_of_a_checkpoint_that_is_whole_only_in_part_the_rest_is_set_aside_before_it_is_resumed(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [40])
    checkpoint = vault.checkpoints()[0]
    rest = next(name for name in checkpoint.seal.files if name not in checkpoint.seal.kinds["light"])
    (checkpoint.path / rest).write_bytes(b"\xff" * checkpoint.seal.files[rest].bytes)
    choice = Vault(tmp_path).take()
    assert choice is not None and choice.kind == "light" and not (checkpoint.path / rest).exists()


def test_of_two_drops_at_once_one_is_refused(tmp_path: Path) -> None:
    make_vault(tmp_path, [10, 20])
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: Vault(tmp_path).drop(name, "test"), ["checkpoint-10", "checkpoint-20"]))
    assert len(Vault(tmp_path).checkpoints()) == 1


def test_a_pinned_checkpoint_keeps_its_bytes_and_its_pin_when_a_new_one_takes_its_name(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10])
    vault.pin("checkpoint-10")
    before = vault.check(vault.get("checkpoint-10"))
    saved_by_saver(Vault(tmp_path), 10)
    pinned = [checkpoint for checkpoint in Vault(tmp_path).checkpoints() if checkpoint.is_pinned]
    assert [c.name.partition(".")[0] for c in pinned] == ["checkpoint-10"] and pinned[0].name != "checkpoint-10"
    assert before.is_whole and vault.check(pinned[0]).is_whole


def test_a_link_in_the_place_of_the_trash_is_not_followed(tmp_path: Path) -> None:
    vault = make_vault(tmp_path / "out", [10])
    (tmp_path / "user/a").mkdir(parents=True)
    (vault.own / "trash").rmdir()
    (vault.own / "trash").symlink_to(tmp_path / "user")
    vault.empty_trash()
    assert (tmp_path / "user/a").is_dir()


def test_a_new_training_is_newer_than_one_whose_clock_was_ahead(tmp_path: Path) -> None:
    old = trainers_own(tmp_path / "checkpoint-500")
    for path in [*old.iterdir(), old]:
        os.utime(path, (time.time() + 7200,) * 2)
    Vault(tmp_path).recover()
    saved_by_saver(Vault(tmp_path), 10)
    assert names(Vault(tmp_path))[-1] == "checkpoint-10"


def test_a_sealed_folder_with_a_cut_file_is_set_aside(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10, 20])
    os.truncate(tmp_path / "checkpoint-20" / MODEL, 3)
    vault.recover()
    assert names(vault) == ["checkpoint-10"] and quarantined(vault) == ["checkpoint-20"]


def test_a_folder_that_no_tool_would_resume_from_is_nobodys_business(tmp_path: Path) -> None:
    vault = make_vault(tmp_path)
    (tmp_path / "logs").mkdir()
    (tmp_path / "checkpoint-best").mkdir()
    vault.recover()
    assert (tmp_path / "logs").is_dir() and (tmp_path / "checkpoint-best").is_dir()


def test_what_has_no_seal_is_shown_with_its_problems(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10])
    trainers_own(tmp_path / "checkpoint-40")
    trainers_own(tmp_path / "checkpoint-50", state=False)
    found = vault.unsealed()
    assert {name: one.kind for name, one in found.items()} == {"checkpoint-40": "full", "checkpoint-50": None}
    assert found["checkpoint-50"].problems == ("trainer_state.json is missing",)


# Trash and quarantine


def test_what_lies_in_the_trash_is_accounted_for_until_it_is_gone(tmp_path: Path) -> None:
    vault = make_vault(tmp_path)
    assert vault.trash_bytes() == 0
    fill(vault.own / "trash" / "checkpoint-5.0a", 5)
    assert vault.trash_bytes() >= 9 * BLOCK
    vault.empty_trash()
    assert vault.trash_bytes() == 0 and debris(tmp_path) == []


def test_trash_that_cannot_be_emptied_is_no_longer_promised_as_room(tmp_path: Path) -> None:
    vault = make_vault(tmp_path)
    fill(vault.own / "trash" / "checkpoint-5.0a", 5)
    with undeletable(vault.own / "trash" / "checkpoint-5.0a"):
        vault.empty_trash()
        assert vault.trash_bytes() == 0
        assert len(events(vault, "not_deleted")) == 1
    vault.retry_stuck()
    assert vault.trash_bytes() >= 9 * BLOCK


def test_remains_are_superseded_once_a_checkpoint_of_their_step_or_a_later_one_is_sealed(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [40])
    for step in (30, 40, 50):
        fill(tmp_path / f"remains-{step}", step)
        (tmp_path / f"remains-{step}" / "model.safetensors").touch()
        (tmp_path / f"remains-{step}").rename(vault.own / "quarantine" / f"checkpoint-{step}.123456789")
    assert sorted(vault.superseded()) == ["checkpoint-30.123456789", "checkpoint-40.123456789"]
    assert vault.drop_quarantined("checkpoint-30.123456789", "test").reason is None
    assert sorted(vault.superseded()) == ["checkpoint-40.123456789"]


# The ballast


def test_the_ballast_is_there_after_preparing_and_stays_a_small_part_of_the_volume(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, budget=50_000_000)
    assert vault.ballast.size_bytes == 1_000_000


def test_where_there_is_hardly_room_no_ballast_is_taken(tmp_path: Path) -> None:
    assert make_vault(tmp_path, budget=900_000).ballast.size_bytes == 0


# Two at once


def test_what_another_process_commits_and_deletes_is_seen(tmp_path: Path) -> None:
    one, two = make_vault(tmp_path, [10, 20]), make_vault(tmp_path)
    assert names(two) == ["checkpoint-10", "checkpoint-20"]
    one.prune(Keep(last=1))
    put_checkpoint(one, 30)
    assert names(two) == ["checkpoint-20", "checkpoint-30"]


def test_two_processes_that_prune_at_once_leave_what_is_kept_and_no_debris(tmp_path: Path) -> None:
    make_vault(tmp_path, range(10, 110, 10), model=10, moments=10)
    code = (
        "import sys; from outlast.checkpoints import Keep, Vault\n"
        "vault = Vault(sys.argv[1], budgets=[]); input()\n"
        "vault.prune(Keep(last=2))"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    for child in children:
        child.communicate()
        assert child.returncode == 0
    assert names(make_vault(tmp_path)) == ["checkpoint-90", "checkpoint-100"] and debris(tmp_path) == []
