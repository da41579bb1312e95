"""How a command ended: the table of rules, from records down to the text on stderr."""

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.launch.causes import CAUSES
from outlast.launch.ends import Facts, Recorded, Sent, Stopped, classify, exit_code, pertinent


def raised(cause: str = "EXCEPTION", message: str = "boo", **more: object) -> Recorded:
    return Recorded(type="ValueError", message=message, cause=cause, frames=("train.py:7 in step: x",), pid=9, **more)


def test_exit_code_zero_is_finished():
    assert classify(Facts(status=0)).cause == "finished"


def test_an_exception_is_quoted_with_its_process_and_its_last_frame():
    end = classify(Facts(status=1, recorded=[raised()]))
    assert end.cause == "EXCEPTION"
    assert "ValueError: boo (process 9)" in end.evidence
    assert any("train.py:7" in line for line in end.evidence)


@pytest.mark.parametrize("cause", ["ENOSPC", "EDQUOT", "CUDA_OOM", "MEMORY", "IMPORT"])
def test_a_recorded_cause_is_believed_over_a_launchers_exit_code(cause: str):
    launcher = raised(message="ChildFailedError", reports_anothers_end=True)
    assert classify(Facts(status=1, recorded=[raised(cause), launcher])).cause == cause


def test_a_rise_of_the_oom_count_explains_a_sigkill():
    end = classify(Facts(-9, oom_kills=1, oom_source="memory.oom_control: 0 -> 1", memory_limit_bytes=10**9))
    assert end.cause == "OOM_KILL"
    assert end.exit_code == 137
    assert "oom_kill rose by 1 (memory.oom_control: 0 -> 1)" in end.evidence
    assert "the memory limit is 1.0 GB" in end.evidence


def test_a_kill_without_a_rise_was_a_persons_and_says_that_the_count_stood_still():
    end = classify(Facts(-9, oom_source="memory.oom_control: 3 -> 3"))
    assert end.cause == "KILLED"
    assert any("did not rise" in line for line in end.evidence)


def test_a_parent_that_reports_a_dead_worker_died_of_the_oom_kill():
    report = raised(message="DataLoader worker (pid 5) is killed by signal: Killed.", reports_anothers_end=True)
    assert classify(Facts(1, [report], oom_kills=1, oom_source="x", oom_age_seconds=500.0)).cause == "OOM_KILL"
    assert classify(Facts(1, [report])).cause == "KILLED"


def test_an_oom_kill_long_ago_does_not_explain_a_bug_now():
    end = classify(Facts(1, [raised()], oom_kills=1, oom_source="x", oom_age_seconds=3600.0))
    assert end.cause == "EXCEPTION"
    assert any("oom_kill rose by 1" in line for line in end.evidence)


def test_a_kill_that_was_foreseen_is_said_to_have_been():
    told = "it was foreseen: 590.0 MB of 600.0 MB are held; it was asked to leave, and was still in a step"
    assert told in classify(Facts(-9, oom_kills=1, oom_source="x", foreseen=told)).evidence
    assert told not in classify(Facts(1, [raised()], foreseen=told)).evidence, "a bug is no want of memory"


def test_torchruns_report_of_a_sigkill_is_a_kill():
    text = "train.py FAILED\n exitcode  : -9 (pid: 12)\n traceback : Signal 9 (SIGKILL) received by PID 12"
    assert classify(Facts(1, [raised(message=text, reports_anothers_end=True)])).cause == "KILLED"


def test_a_forwarded_sigterm_explains_any_end_after_it_also_an_orderly_one():
    sent = [Sent("SIGTERM", "process 1 (slurmstepd)")]
    for status in (-signal.SIGTERM, 0, 1):
        end = classify(Facts(status, sent=sent))
        assert end.cause == "SIGTERM"
        assert "process 1 (slurmstepd)" in end.evidence[0]


def test_a_usr1_that_was_passed_on_does_not_hide_a_finish():
    assert classify(Facts(0, sent=[Sent("SIGUSR1", "x")])).cause == "finished"


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("OSError: [Errno 28] No space left on device: 'x'", "ENOSPC"),
        ("OSError: [Errno 122] Disk quota exceeded", "EDQUOT"),
        ("SafetensorError: I/O error: No space left on device (os error 28)", "ENOSPC"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "CUDA_OOM"),
        ("RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried", "MEMORY"),
    ],
)
def test_without_a_record_the_text_on_stderr_is_quoted(line: str, cause: str):
    end = classify(Facts(1, tail=f"epoch 1\n{line}\nbye\n"))
    assert end.cause == cause
    assert any(line[:40] in text and "line -2 from its end" in text for text in end.evidence)


def test_a_bus_error_on_a_full_volume_is_a_memory_mapped_file_without_room():
    assert classify(Facts(-signal.SIGBUS, free_bytes=0)).cause == "ENOSPC"
    assert classify(Facts(-signal.SIGBUS, free_bytes=10**9)).cause == "CRASHED"


def test_an_exception_in_a_side_thread_does_not_speak_for_a_main_thread_that_raised():
    side, main = raised(message="side", thread="Thread-1"), raised(message="main")
    assert classify(Facts(1, [side, main])).evidence[0].startswith("ValueError: main")


@given(
    status=st.integers(-64, 255),
    causes=st.lists(st.sampled_from(["EXCEPTION", "ENOSPC", "IMPORT", "INTERRUPT", "MEMORY"]), max_size=4),
    reports=st.booleans(),
    kills=st.integers(0, 3),
    tail=st.text(max_size=60),
    free=st.none() | st.integers(0, 10**12),
)
def test_every_end_has_a_known_cause_an_exit_code_and_evidence(status, causes, reports, kills, tail, free):
    recorded = [raised(cause, reports_anothers_end=reports) for cause in causes]
    end = classify(Facts(status, recorded, oom_kills=kills, oom_source="f", tail=tail, free_bytes=free))
    assert end.cause in CAUSES
    assert end.exit_code == exit_code(status) and 0 <= end.exit_code <= 255
    assert end.evidence
    assert (end.cause == "finished") == (status == 0)


def test_a_launcher_that_reports_an_exit_code_says_no_bug_of_its_own():
    frames = ("/x/torch/distributed/launcher/api.py:1 in x: y",)
    report = Recorded("ChildFailedError", "FAILED exitcode : 7", "EXCEPTION", frames, reports_anothers_end=True)
    assert classify(Facts(1, [report])).cause == "exit"


def by(pid: int, message: str = "boo", **more: object) -> Recorded:
    return Recorded("ValueError", message, "EXCEPTION", (), pid, **more)


def test_what_the_command_itself_raised_outweighs_its_helpers():
    assert pertinent([by(5, "helper"), by(1, "main")], 1, 1) == [by(1, "main")]


def test_a_helpers_old_exception_does_not_explain_a_signal():
    assert pertinent([by(5)], 1, -9) == []


def test_a_launchers_report_leads_to_the_workers_record():
    worker, report = by(5), by(1, reports_anothers_end=True)
    assert pertinent([worker, report], 1, 1) == [worker, report]


def test_of_a_shell_scripts_steps_the_last_that_failed_counts():
    assert pertinent([by(5, "ignored"), by(6, "fatal")], 1, 1) == [by(6, "fatal")]


@pytest.mark.parametrize("cause", ["deadline", "notice", "signal"])
@pytest.mark.parametrize("status", [0, 1, -signal.SIGABRT])
def test_who_left_with_a_seal_has_not_failed_whatever_a_launcher_makes_of_it(cause: str, status: int):
    end = classify(Facts(status=status, stopped=Stopped(cause, "the deadline of 9h", 120)))
    assert (end.cause, end.exit_code) == (cause, 0)
    assert "the deadline of 9h: step 120 was sealed, then it left" in end.evidence


def test_who_left_for_want_of_memory_has_not_finished():
    end = classify(Facts(status=1, stopped=Stopped("memory", "571 of 600 MB", 120)))
    assert (end.cause, end.exit_code, CAUSES[end.cause].restart) == ("low_memory", 1, "progress")


def test_a_save_that_waited_for_room_was_no_seal():
    end = classify(Facts(status=143, stopped=Stopped("signal", "SIGTERM came from process 1", None)))
    assert (end.cause, end.exit_code) == ("SIGTERM", 143)


def test_an_exception_or_a_kill_after_it_left_is_the_end_that_counts():
    left = Stopped("deadline", "the deadline of 9h", 120)
    assert classify(Facts(status=1, recorded=[raised()], stopped=left)).cause == "EXCEPTION"
    assert classify(Facts(status=-signal.SIGKILL, stopped=left)).cause == "KILLED"
