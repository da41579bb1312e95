"""When a command is started again."""

from hypothesis import given
from hypothesis import strategies as st

from outlast.launch.again import Attempt, decide
from outlast.launch.causes import CAUSES


def attempt(cause: str = "OOM_KILL", step: int | None = 10, *, new: bool = True, hooked: bool = True) -> Attempt:
    return Attempt(cause, step, new, hooked)


def test_an_oom_kill_after_a_seal_is_resumed():
    decision = decide([attempt()], 3)
    assert decision.restart and "step 10" in decision.why


def test_a_users_bug_is_never_restarted():
    for cause in ("EXCEPTION", "IMPORT", "exit"):
        assert not decide([attempt(cause)], 3).restart


def test_the_same_end_at_the_same_step_is_not_tried_a_third_time():
    decision = decide([attempt(), attempt()], 3)
    assert not decision.restart and "no progress" in decision.why


def test_the_same_end_at_a_later_step_is_progress():
    assert decide([attempt(step=10), attempt(step=20)], 3).restart


def test_without_a_seal_there_is_nothing_to_go_on_from():
    assert "begin from nothing" in decide([attempt(step=None)], 3).why


def test_a_program_that_nothing_is_hooked_in_is_not_restarted():
    assert not decide([attempt(hooked=False)], 3).restart


def test_gpu_memory_is_tried_again_only_after_a_new_seal():
    assert decide([attempt("CUDA_OOM")], 3).restart
    assert not decide([attempt("CUDA_OOM", new=False)], 3).restart


def test_a_leak_costs_restarts_without_using_them_up():
    leaks = [attempt("low_memory", step) for step in range(10, 100, 10)]
    assert decide(leaks, 3).restart
    assert decide([*leaks, attempt("KILLED", 100)], 3).restart
    assert not decide(leaks, 0).restart


def test_a_training_that_is_short_of_memory_at_the_same_step_again_is_not_restarted():
    assert "no progress" in decide([attempt("low_memory", 10), attempt("low_memory", 10)], 3).why
    assert not decide([attempt("low_memory", 10, new=False)], 3).restart


@given(
    st.lists(st.tuples(st.sampled_from(sorted(CAUSES)), st.none() | st.integers(0, 3)), min_size=1, max_size=12),
    st.integers(0, 5),
)
def test_restarts_are_bounded_and_never_repeat_a_cause_at_a_step(history, restarts):
    attempts: list[Attempt] = []
    for cause, step in history:
        attempts.append(attempt(cause, step))
        if not decide(attempts, restarts).restart:
            break
    counted = [a for a in attempts if CAUSES[a.cause].is_counted]
    assert len(counted) <= restarts + 1 and (restarts or len(attempts) == 1)
    restarted = [(a.cause, a.sealed_step) for a in attempts[:-1]]
    assert len(set(restarted)) == len(restarted)


def test_what_was_asked_to_stop_is_not_started_again_and_said_to_have_been_asked():
    for cause in ("SIGTERM", "SIGHUP", "INTERRUPT"):
        decision = decide([attempt(cause)], 3)
        assert not decision.restart and decision.why == "it was asked to stop, and did"
        assert CAUSES[cause].restart == "asked"
