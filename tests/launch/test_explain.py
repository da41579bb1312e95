"""`outlast why` from a journal alone."""

from pathlib import Path

import pytest

from outlast.errors import BadInput
from outlast.journal import Event, Journal
from outlast.launch import explain
from outlast.launch.why import lines, tell


def journaled(*events: tuple[str, dict[str, object]]) -> list[Event]:
    return [Event(float(time), 7, name, facts) for time, (name, facts) in enumerate(events)]


STARTED = ("started", {"command": ["python", "t.py"], "cwd": "/w", "attempt": 1})
HOOKED = ("hooked", {"supported": True, "version": "3.12.1"})
ENDED = ("ended", {"cause": "ENOSPC", "exit_code": 1, "evidence": ["OSError: full"], "attempt": 1, "seconds": 3.0})


def test_cause_evidence_and_fix_are_told():
    story = tell("r", journaled(STARTED, HOOKED, ENDED, ("decided", {"why": "no progress"})), is_alive=False)
    text = "\n".join(lines(story))
    assert (story.cause, story.exit_code, story.mode) == ("ENOSPC", 1, "hooked")
    for part in ("no space left", "OSError: full", "free space on that volume", "python t.py", "no progress"):
        assert part in text


def test_rungs_and_deletions_are_told_with_their_bytes():
    story = tell(
        "r",
        journaled(
            STARTED,
            HOOKED,
            ("rung", {"number": 2, "action": "drop", "name": "checkpoint-10", "why": "old", "frees_bytes": 13_400_000}),
            ("deleted", {"path": "/w/checkpoint-10", "freed_bytes": 13_400_000, "why": "unwanted"}),
            ("not_deleted", {"path": "/w/checkpoint-20", "held_bytes": 5, "reason": "immutable"}),
            ("sealed", {"name": "checkpoint-30", "step": 30, "kind": "full", "bytes": 13_400_000, "root": "/w"}),
            ("ended", {"cause": "finished", "exit_code": 0, "evidence": []}),
        ),
        is_alive=False,
    )
    text = "\n".join(lines(story))
    assert "2 drop checkpoint-10 (13.4 MB): old" in text
    assert "/w/checkpoint-20 (5 B): immutable" in text
    assert story.last_seal["step"] == 30 and story.decision == ""


def test_a_supervisor_that_was_killed_too_is_said():
    story = tell("r", journaled(STARTED, HOOKED), is_alive=False)
    assert story.cause == "vanished" and "'hooked' of process 7" in story.evidence[1]


def test_a_run_that_goes_on_is_said_to_run():
    assert tell("r", journaled(STARTED), is_alive=True).cause == "running"


def test_an_old_interpreter_is_the_reason_for_watching_only():
    story = tell("r", journaled(STARTED, ("hooked", {"supported": False, "version": "3.8.1"}), ENDED), is_alive=False)
    assert story.mode == "watching only: Python 3.8.1 is older than 3.11"


def test_a_save_that_waits_and_a_hook_that_failed_are_noted():
    story = tell(
        "r",
        journaled(STARTED, HOOKED, ("hook_failed", {"module": "m", "error": "e"}), ("paused", {"why": "needs 3 MB"})),
        is_alive=True,
    )
    assert any("needs 3 MB" in note for note in story.notes) and any("hook of m failed: e" in n for n in story.notes)


def test_long_lists_are_cut_in_text_and_whole_in_the_data():
    drops = [("rung", {"number": 2, "action": "drop", "name": f"c-{n}", "why": "w"}) for n in range(20)]
    story = tell("r", journaled(STARTED, *drops, ENDED), is_alive=False)
    assert len(story.rungs) == 20
    assert "(12 earlier; --json has all)" in "\n".join(lines(story))


def test_the_newest_run_that_was_started_by_outlast_run_is_explained(tmp_path: Path):
    first = Journal(tmp_path, "20260101T000000-1-1")
    first.write("started", command=["a"])
    Journal(tmp_path, "20260102T000000-1-1").write("sealed", step=1)
    assert explain(tmp_path).command == ("a",)


def test_a_folder_without_a_run_is_bad_input(tmp_path: Path):
    with pytest.raises(BadInput, match="--dir"):
        explain(tmp_path)


def test_a_way_back_that_is_gone_is_said_to_be_gone(tmp_path: Path):
    (tmp_path / "checkpoint-10").mkdir()
    for name, gone in (("checkpoint-10", False), ("checkpoint-20", True)):
        run = Journal(tmp_path, f"run-{name}")
        run.write("started", command=["a"])
        run.write("sealed", name=name, step=10, kind="full", bytes=5, root=str(tmp_path))
        assert ("NOT THERE" in "\n".join(lines(explain(tmp_path)))) is gone


def test_a_training_without_a_supervisor_is_told_what_it_goes_on_from(tmp_path: Path):
    Journal(tmp_path).write("sealed", name="checkpoint-10", step=10)
    with pytest.raises(BadInput, match="checkpoint-10"):
        explain(tmp_path)


def test_files_of_torch_save_are_told_with_how_often():
    saves = [("file_saved", {"path": "/w/ckpt.pt", "bytes": 5, "count": count}) for count in (1, 7)]
    text = "\n".join(lines(tell("r", journaled(STARTED, HOOKED, *saves, ENDED), is_alive=False)))
    assert "/w/ckpt.pt: torch.save replaced it 7 times or more" in text


def test_a_run_without_hooks_is_not_promised_to_resume():
    text = "\n".join(lines(tell("r", journaled(STARTED, ENDED), is_alive=False)))
    assert "nothing was hooked" in text


def test_what_the_guard_saw_of_memory_is_told():
    found = [
        ("leak_found", {"bytes_per_minute": 12_000_000, "limit_in_seconds": 900.0}),
        ("memory_close", {"why": "9.9 GB of 10.0 GB are held"}),
        ("cache_emptied", {"why": "3 allocations had to be tried again"}),
    ]
    text = "\n".join(lines(tell("r", journaled(STARTED, HOOKED, *found, ENDED), is_alive=False)))
    for part in ("by 12.0 MB a minute", "nearly used up: 9.9 GB of 10.0 GB", "emptied 1 times, the last: 3 alloc"):
        assert part in text


def test_batches_that_were_split_are_told_with_the_effective_batch():
    split = ("batch_split", {"pieces": [4, 4], "micro_batch": 4, "effective_batch": 8})
    text = "\n".join(lines(tell("r", journaled(STARTED, HOOKED, split, ENDED), is_alive=False)))
    assert "pieces of 4; effective batch 8" in text
