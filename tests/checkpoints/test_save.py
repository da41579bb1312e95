"""One save from admission to seal, on volumes that a declared budget makes small."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.builders import (
    MODEL,
    MOMENTS,
    debris,
    events,
    fill,
    flip_bit,
    kinds,
    make_saver,
    make_vault,
    names,
    needs,
    opened_by_another_process,
    put_checkpoint,
    undeletable,
    writer,
)

from outlast.checkpoints import Draft, Keep, Needs, Policy, Saver, Stage, Vault, reserved_file
from outlast.errors import BadInput, NoRoom, SaveFailed

KIB = 1024
LARGE = {"model": 300 * KIB, "moments": 600 * KIB}
"""A full state of 900 KiB, a light one of 300 KiB; with its margin a save needs 256 KiB more."""
TWO_AND_A_BIT, ONE_AND_A_HALF, LESS_THAN_ONE = 2900 * KIB, 1900 * KIB, 1000 * KIB
"""Budgets that hold so many full states, the ballast of 256 KiB included where it fits."""


def save(saver: Saver, step: int, write: Callable[[Stage], Draft] | None = None, **sizes: int) -> None:
    sizes = sizes or LARGE
    sealed = saver.save(f"checkpoint-{step}", step, needs(**sizes), write or writer(step, **sizes))
    saver.settle(sealed)


def rungs(vault: Vault) -> list[tuple[int, str]]:
    return [(event.get("number"), event.get("action")) for event in events(vault, "rung")]


def failing(times: int, error: Callable[[], BaseException], step: int = 10) -> Callable[[Stage], Draft]:
    """A writer that fails after its first file, so many times."""
    left = [times]

    def write(stage: Stage) -> Draft:
        if left[0]:
            left[0] -= 1
            (stage.path / "half.bytes").write_bytes(b"half")
            raise error()
        return writer(step)(stage)

    return write


# Where there is room


def test_a_save_is_sealed_whole_and_leaves_nothing_else(tmp_path: Path) -> None:
    vault = make_vault(tmp_path)
    sealed = make_saver(vault).save("checkpoint-10", 10, needs(), writer(10))
    assert (sealed.name, sealed.step, sealed.kind) == ("checkpoint-10", 10, "full")
    assert vault.check(sealed).is_whole and debris(tmp_path) == []
    assert [event.name for event in events(vault)] == ["save_admitted", "sealed"]


def test_the_bytes_are_those_that_the_writer_wrote(tmp_path: Path) -> None:
    sealed = make_saver(make_vault(tmp_path)).save("checkpoint-10", 10, needs(**LARGE), writer(10, **LARGE))
    assert (sealed.path / MODEL).read_bytes() == bytes([10]) * LARGE["model"]
    assert (sealed.path / MOMENTS).read_bytes() == bytes([12]) * LARGE["moments"]


def test_while_it_is_written_it_has_no_name_that_a_tool_would_pick_up(tmp_path: Path) -> None:
    vault = make_vault(tmp_path)

    def write(stage: Stage) -> Draft:
        draft = writer(10)(stage)
        assert [path.name for path in tmp_path.iterdir()] == [".outlast"]
        return draft

    make_saver(vault).save("checkpoint-10", 10, needs(), write)
    assert names(vault) == ["checkpoint-10"]


def test_the_writer_writes_into_the_reservation_itself(tmp_path: Path) -> None:
    reserved: set[int] = set()

    def write(stage: Stage) -> Draft:
        reserved.update(path.stat().st_ino for path in stage.path.parent.glob(".reserved-*"))
        return writer(10, **LARGE)(stage)

    sealed = make_saver(make_vault(tmp_path)).save("checkpoint-10", 10, needs(**LARGE), write)
    assert {(sealed.path / name).stat().st_ino for name in (MODEL, MOMENTS)} == reserved


def test_a_save_of_a_name_that_is_there_takes_its_place(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10, 20])
    make_saver(vault).save("checkpoint-20", 20, needs(), writer(99))
    assert (tmp_path / "checkpoint-20" / MODEL).read_bytes()[:1] == bytes([99])
    assert names(vault) == ["checkpoint-10", "checkpoint-20"] and debris(tmp_path) == []


def test_metrics_and_notes_of_the_writer_are_in_the_seal(tmp_path: Path) -> None:
    vault = make_vault(tmp_path)

    def write(stage: Stage) -> Draft:
        draft = writer(10)(stage)
        return Draft(draft.layout, draft.without, {"loss": 0.5}, {"why": "test"})

    seal = make_saver(vault).save("checkpoint-10", 10, needs(), write).seal
    assert (seal.metrics, seal.notes, seal.lineage) == ({"loss": 0.5}, {"why": "test"}, "one")


def test_retention_follows_a_save_and_never_comes_before_it(tmp_path: Path) -> None:
    vault = make_vault(tmp_path)
    saver = make_saver(vault, keep=Keep(last=2))
    for step in (10, 20, 30):
        save(saver, step)
    assert names(vault) == ["checkpoint-20", "checkpoint-30"]
    order = [event.name for event in events(vault, "sealed", "deleted")]
    assert order == ["sealed", "sealed", "sealed", "deleted"]


# Where there is little room


def test_with_room_for_two_older_ones_give_way_and_the_newest_is_full(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, budget=TWO_AND_A_BIT)
    saver = make_saver(vault)
    for step in range(10, 70, 10):
        save(saver, step)
        assert kinds(vault)[f"checkpoint-{step}"] == "full"
    assert {number for number, _ in rungs(vault)} == {5} and len(names(vault)) >= 2
    assert all(vault.check(checkpoint).is_whole for checkpoint in vault.checkpoints())


def test_with_room_for_one_and_a_half_the_way_back_is_light_until_the_new_one_is_sealed(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, budget=ONE_AND_A_HALF)
    saver = make_saver(vault)
    ways_back = []

    def write(stage: Stage) -> Draft:
        ways_back.append(kinds(vault))
        return writer(20, **LARGE)(stage)

    save(saver, 10)
    save(saver, 20, write)
    assert ways_back == [{"checkpoint-10": "light"}]
    assert kinds(vault)["checkpoint-20"] == "full"


def test_with_keep_exact_and_that_room_new_saves_are_light_and_the_exact_one_stays(
    tmp_path: Path,
) -> None:
    vault = make_vault(tmp_path, budget=ONE_AND_A_HALF)
    saver = make_saver(vault, keep=Keep(last=1), keep_exact=True)
    for step in (10, 20, 30):
        save(saver, step)
        exact = vault.choose(keep_exact=True)
        assert exact is not None and (exact.kind, exact.checkpoint.step) == ("full", 10)
    assert kinds(vault) == {"checkpoint-10": "full", "checkpoint-30": "light"}


def test_a_full_save_that_can_never_fit_becomes_a_light_one(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, budget=LESS_THAN_ONE)
    saver = make_saver(vault)
    for step in (10, 20):
        save(saver, step)
        assert kinds(vault)[f"checkpoint-{step}"] == "light"
    assert (6, "save_as") in rungs(vault)


def test_what_retention_no_longer_wants_goes_before_a_byte_is_written(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10, 20], budget=TWO_AND_A_BIT, **LARGE)
    save(make_saver(vault, keep=Keep(last=1)), 30)
    assert rungs(vault) == [(2, "drop")]
    assert [event.get("path") for event in events(vault, "deleted")][0] == str(tmp_path / "checkpoint-10")


def test_what_is_pinned_or_best_is_not_dropped_for_room(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, budget=ONE_AND_A_HALF + 600 * KIB)
    put_checkpoint(vault, 10, metrics={"loss": 0.1}, kind="light", **LARGE)
    put_checkpoint(vault, 20, kind="light", **LARGE)
    put_checkpoint(vault, 30, kind="light", **LARGE)
    vault.pin("checkpoint-20")
    save(make_saver(vault, keep=Keep(last=9, best=1, metric="loss")), 40)
    assert {"checkpoint-10", "checkpoint-20"} <= set(names(vault))


def test_remains_that_a_newer_checkpoint_supersedes_make_room(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [20], budget=TWO_AND_A_BIT, **LARGE)
    fill(vault.own / "quarantine" / "checkpoint-10.123456789", 10, **LARGE)
    (vault.own / "quarantine" / "checkpoint-10.123456789" / "model.safetensors").touch()
    save(make_saver(vault), 30)
    assert rungs(vault) == [(2, "drop_quarantined")] and names(vault) == ["checkpoint-20", "checkpoint-30"]


def test_what_cannot_be_deleted_counts_as_used_and_something_else_gives_way(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10, 20], budget=TWO_AND_A_BIT, **LARGE)
    with undeletable(tmp_path / "checkpoint-10"):
        save(make_saver(vault, keep=Keep(last=1)), 30)
    assert kinds(vault)["checkpoint-30"] == "full" and (tmp_path / "checkpoint-10").is_dir()
    assert events(vault, "not_deleted")


# Where there is none


def test_it_pauses_aloud_until_somebody_makes_room_and_then_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").write_bytes(bytes(700 * KIB))
    vault = make_vault(tmp_path, budget=LESS_THAN_ONE)
    waits = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            (tmp_path / "mine").unlink()

    save(make_saver(vault, wait=wait), 10)
    assert len(waits) == 3 and kinds(vault) == {"checkpoint-10": "light"}
    assert [event.name for event in events(vault, "paused", "continued")] == ["paused", "continued"]
    told = capsys.readouterr().err
    assert told.count("training is paused") == 1 and "free some space there" in told


def test_what_would_not_make_enough_room_is_not_given_up_before_the_pause(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10, 20], budget=TWO_AND_A_BIT, **LARGE)
    (tmp_path / "theirs").write_bytes(bytes(3000 * KIB))
    before = kinds(vault)
    seen: list[dict[str, str | None]] = []

    def wait(seconds: float) -> None:
        seen.append(kinds(vault))
        (tmp_path / "theirs").unlink(missing_ok=True)

    save(make_saver(vault, wait=wait), 30, model=1000 * KIB, moments=1000 * KIB)
    assert seen[0] == before


def test_where_pausing_is_forbidden_it_is_an_error_that_says_how_much_is_missing(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(bytes(700 * KIB))
    vault = make_vault(tmp_path, budget=LESS_THAN_ONE)
    with pytest.raises(NoRoom, match="checkpoint-10 needs .* kB more") as caught:
        save(make_saver(vault, forbid=[9]), 10)
    assert "allow rung 9" in caught.value.hint and debris(tmp_path) == []


def test_what_policy_forbids_is_not_done_to_make_room(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10], budget=ONE_AND_A_HALF, **LARGE)
    with pytest.raises(NoRoom):
        save(make_saver(vault, forbid=[5, 6, 8, 9]), 20)
    assert kinds(vault) == {"checkpoint-10": "full"} and rungs(vault) == []


@pytest.mark.parametrize("forbid", [{0}, {10}, {-1, 5}])
def test_a_rung_that_is_not_on_the_ladder_cannot_be_forbidden(forbid: set[int]) -> None:
    with pytest.raises(BadInput, match="no rung"):
        Policy(forbid=frozenset(forbid))


def test_a_policy_is_handed_on_by_the_environment() -> None:
    given = {"OUTLAST_KEEP": "last=2", "OUTLAST_KEEP_EXACT": "1", "OUTLAST_FORBID": "3,5"}
    assert Policy.from_environment(given) == Policy(Keep(last=2), True, frozenset({3, 5}))
    assert Policy.from_environment({"OUTLAST_SAVE": "light"}) == Policy(save="light")
    assert Policy.from_environment({}) == Policy()


# Light by choice


def test_light_saves_leave_out_what_a_light_one_does_not_need_and_say_so_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vault = make_vault(tmp_path)
    saver = make_saver(vault, save="light", keep=Keep(last=2))
    for step in (10, 20, 30):
        save(saver, step)
    assert kinds(vault) == {"checkpoint-20": "light", "checkpoint-30": "light"}
    assert not list(tmp_path.rglob(MOMENTS)) and rungs(vault) == []
    assert {c.seal.notes["why_light"] for c in vault.checkpoints()} == {"save=light"}
    said = capsys.readouterr().err
    assert said.count("checkpoints are light (save=light)") == 1 and "docs/checkpoints.md" in said
    assert len(events(vault, "kind_of_saves")) == 1


def test_a_light_save_asks_for_no_more_room_than_it_takes(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, budget=LESS_THAN_ONE)
    saver = make_saver(vault, save="light", keep=Keep(last=1))
    save(saver, 10)
    assert kinds(vault) == {"checkpoint-10": "light"} and rungs(vault) == []
    (admitted,) = events(vault, "save_admitted")
    assert admitted.get("need_bytes") == saver.next_bytes(needs(**LARGE)) < LARGE["model"] * 2


def test_what_has_no_light_form_stays_full_and_that_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vault = make_vault(tmp_path)
    saver = make_saver(vault, save="light")
    for step in (10, 20):
        saver.save(f"checkpoint-{step}", step, Needs({"full": (900 * KIB,)}), writer(step, **LARGE))
    assert set(kinds(vault).values()) == {"full"}
    assert capsys.readouterr().err.count("has no light form: they stay full") == 1


def test_a_full_checkpoint_of_before_is_the_way_back_until_the_light_one_is_sealed(tmp_path: Path) -> None:
    vault = make_vault(tmp_path)
    save(make_saver(vault), 10)

    def fails(stage: Stage) -> Draft:
        raise ZeroDivisionError

    later = make_saver(vault, save="light", keep=Keep(last=1))
    with pytest.raises(ZeroDivisionError):
        save(later, 20, fails)
    assert kinds(vault) == {"checkpoint-10": "full"}
    save(later, 20)
    choice = vault.choose()
    assert choice is not None and (choice.checkpoint.name, choice.kind) == ("checkpoint-20", "light")


# When writing fails


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_volume_in_the_middle_of_a_save_is_cured_and_the_save_is_tried_again(
    tmp_path: Path, number: int
) -> None:
    vault = make_vault(tmp_path)
    save(make_saver(vault), 10, failing(3, lambda: OSError(number, os.strerror(number))))
    assert kinds(vault) == {"checkpoint-10": "full"} and debris(tmp_path) == []
    assert not (tmp_path / "checkpoint-10" / "half.bytes").exists()
    assert [event.get("cause") for event in events(vault, "save_failed")] == ["full"] * 3


def test_an_errno_that_a_framework_lost_is_known_from_our_own_writer(tmp_path: Path) -> None:
    vault = make_vault(tmp_path)
    tries = []

    def write(stage: Stage) -> Draft:
        tries.append(stage.error)
        if len(tries) == 1:
            stage.error = OSError(errno.ENOSPC, "No space left on device")
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 470")
        return writer(10)(stage)

    save(make_saver(vault), 10, write)
    assert names(vault) == ["checkpoint-10"] and tries == [None, None]
    assert events(vault, "save_failed")[0].get("errno") == errno.ENOSPC


def test_another_error_is_tried_once_more_and_then_raised_with_nothing_left(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10])
    with pytest.raises(ZeroDivisionError) as caught:
        save(make_saver(vault), 20, failing(2, ZeroDivisionError))
    assert any("older checkpoints are intact" in note for note in caught.value.__notes__)
    assert names(vault) == ["checkpoint-10"] and debris(tmp_path) == []


def test_an_error_that_was_over_the_second_time_is_none(tmp_path: Path) -> None:
    vault = make_vault(tmp_path)
    save(make_saver(vault), 10, failing(1, lambda: OSError(errno.EIO, "I/O error")))
    assert names(vault) == ["checkpoint-10"]
    assert [event.get("cause") for event in events(vault, "save_failed")] == ["other"]


def test_bad_input_is_not_tried_again(tmp_path: Path) -> None:
    vault = make_vault(tmp_path)
    with pytest.raises(BadInput):
        save(make_saver(vault), 10, failing(1, lambda: BadInput("odd", hint="none")))
    assert len(events(vault, "save_failed")) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_passed_on_at_once_and_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    vault = make_vault(tmp_path, [10])
    with pytest.raises(error):
        save(make_saver(vault), 20, failing(1, error))
    assert names(vault) == ["checkpoint-10"] and debris(tmp_path) == []
    assert make_saver(vault).save("checkpoint-20", 20, needs(), writer(20)).kind == "full"


@pytest.mark.parametrize("content", [b"", b'{"step": ', b"\x00" * 100])
def test_a_json_file_that_a_full_volume_emptied_unseen_is_caught_before_the_seal(
    tmp_path: Path, content: bytes
) -> None:
    vault = make_vault(tmp_path, [10])

    def write(stage: Stage) -> Draft:
        (stage.path / "trainer_state.json").write_bytes(content)
        return writer(20)(stage)

    with pytest.raises(SaveFailed, match="trainer_state.json does not parse"):
        save(make_saver(vault), 20, write)
    assert names(vault) == ["checkpoint-10"] and debris(tmp_path) == []


def test_a_writer_that_goes_past_the_reservation_gets_the_room_for_itself(tmp_path: Path) -> None:
    vault = make_vault(tmp_path)
    unclaimed = []

    def write(stage: Stage) -> Draft:
        assert stage.reservation is not None
        unclaimed.append(stage.reservation.unclaimed_bytes)
        if unclaimed[-1]:
            raise OSError(errno.ENOSPC, "No space left on device")
        fill(stage.path, 10, **LARGE)
        return Draft("transformers", {"full": (), "light": (MOMENTS,)})

    save(make_saver(vault), 10, write)
    assert unclaimed[0] >= 900 * KIB and unclaimed[1:] == [0]
    assert len(events(vault, "reservation_released")) == 1 and kinds(vault) == {"checkpoint-10": "full"}


def test_a_larger_save_than_was_said_is_learned_from(tmp_path: Path) -> None:
    vault = make_vault(tmp_path)
    saver = make_saver(vault)
    little = Needs({"full": (KIB,)})
    for step in (10, 20):
        saver.save(f"checkpoint-{step}", step, little, writer(step, **LARGE))
    first, second = (event.get("need_bytes") for event in events(vault, "save_admitted"))
    assert first < 300 * KIB and second > 900 * KIB


def test_a_folder_that_cannot_be_written_is_an_error_with_the_reason(tmp_path: Path) -> None:
    vault = make_vault(tmp_path)
    with undeletable(vault.own / "stage"), pytest.raises(SaveFailed, match="cannot write to") as caught:
        save(make_saver(vault), 10)
    assert "writable" in caught.value.hint


def test_a_file_is_not_there_until_it_is_whole(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "full", None)
    with pytest.raises(ZeroDivisionError), reserved_file(stage, tmp_path / "model", 10) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert not (tmp_path / "model").exists() and stage.error is None


def test_among_ranks_an_error_is_kept_and_the_writer_goes_on(tmp_path: Path) -> None:
    stage = Stage(tmp_path, "full", None, holds_errors=True)
    with reserved_file(stage, tmp_path / "model", 10):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert stage.error is not None and stage.error.errno == errno.ENOSPC


# After the users' callbacks


def test_what_callbacks_changed_is_sealed_again(tmp_path: Path) -> None:
    vault = make_vault(tmp_path)
    saver = make_saver(vault)
    sealed = saver.save("checkpoint-10", 10, needs(), writer(10))
    (sealed.path / "notes.json").write_text(json.dumps({"mine": True}))
    flip_bit(sealed.path / MODEL)
    saver.settle(sealed)
    again = vault.get("checkpoint-10")
    assert vault.check(again).is_whole and "notes.json" in again.seal.files
    assert again.seal.kinds.keys() == {"full", "light"} and again.seal.created == sealed.seal.created
    assert len(events(vault, "sealed_again")) == 1


def test_what_nobody_changed_is_not_sealed_again(tmp_path: Path) -> None:
    vault = make_vault(tmp_path)
    save(make_saver(vault), 10)
    assert events(vault, "sealed_again") == []


# Several at once


def test_two_savers_of_one_folder_take_turns_and_both_are_sealed(tmp_path: Path) -> None:
    one, two = make_vault(tmp_path), make_vault(tmp_path)
    make_saver(one).save("checkpoint-10", 10, needs(), writer(10))
    make_saver(two).save("checkpoint-20", 20, needs(), writer(20))
    make_saver(one).save("checkpoint-30", 30, needs(), writer(30))
    assert names(one) == names(two) == ["checkpoint-10", "checkpoint-20", "checkpoint-30"]


def test_a_checkpoint_that_someone_reads_does_not_give_way_and_the_save_finds_other_room(tmp_path: Path) -> None:
    make_vault(tmp_path, [10, 20], budget=TWO_AND_A_BIT, **LARGE)
    from outlast.host import Budget

    vault = Vault(tmp_path, budgets=[Budget(tmp_path.resolve(), TWO_AND_A_BIT)])
    with opened_by_another_process(tmp_path / "checkpoint-10" / MOMENTS):
        save(make_saver(vault), 30)
    assert kinds(vault) == {"checkpoint-10": "full", "checkpoint-20": "light", "checkpoint-30": "full"}


# What is no checkpoint


def test_room_is_made_for_what_is_written_beside_the_checkpoints(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10, 20], budget=TWO_AND_A_BIT, **LARGE)
    calls: list[int] = []

    def write() -> None:
        calls.append(len(calls))
        if len(calls) < 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    make_saver(vault).write_beside("final-model", Needs({"full": (900 * KIB,)}), write)
    assert calls == [0, 1, 2] and kinds(vault)["checkpoint-20"] == "full"
    assert rungs(vault)[0] == (5, "lighten") and debris(tmp_path) == []


def test_another_error_of_what_is_written_beside_is_passed_on(tmp_path: Path) -> None:
    def write() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        make_saver(make_vault(tmp_path)).write_beside("final-model", Needs({"full": (KIB,)}), write)


def test_torchs_hidden_error_on_a_volume_without_room_is_taken_for_a_full_one(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, budget=ONE_AND_A_HALF)
    filler = tmp_path / "theirs"

    def write(stage: Stage) -> Draft:
        if not filler.exists():
            filler.write_bytes(bytes(ONE_AND_A_HALF))
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 470")
        return writer(10)(stage)

    make_saver(vault, wait=lambda seconds: os.truncate(filler, 0)).save("checkpoint-10", 10, needs(), write)
    assert [event.get("cause") for event in events(vault, "save_failed")] == ["full"]
    assert kinds(vault) == {"checkpoint-10": "full"}


def test_a_metric_that_no_save_has_is_told_once_and_drops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vault = make_vault(tmp_path)
    saver = make_saver(vault, keep=Keep(last=1, best=1, metric="val_los"))
    for step in (10, 20, 30):
        save(saver, step)
    assert len(names(vault)) == 3
    assert capsys.readouterr().err.count("val_los") == 1 and len(events(vault, "metric_not_known")) == 1


def test_a_full_volume_elsewhere_is_told_and_not_only_journaled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vault = make_vault(tmp_path)
    full_elsewhere = failing(9, lambda: OSError(errno.ENOSPC, "No space left on device", "/tmp/of-the-writer"))
    save(make_saver(vault, wait=lambda seconds: None), 10, full_elsewhere)
    told = capsys.readouterr().err
    assert "/tmp/of-the-writer" in told and "TMPDIR" in told and kinds(vault) == {"checkpoint-10": "full"}


def test_a_checkpoint_that_is_taken_away_before_it_is_settled_is_written_down(tmp_path: Path) -> None:
    vault = make_vault(tmp_path, [10])
    saver = make_saver(vault)
    sealed = saver.save("checkpoint-20", 20, needs(), writer(20))
    sealed.path.rename(tmp_path / ".elsewhere")
    saver.settle(sealed)
    assert len(events(vault, "settle_failed")) == 1 and names(vault) == ["checkpoint-10"]
