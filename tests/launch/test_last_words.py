"""What an exception says about the end of a process."""

import errno

import pytest

from outlast.launch.last_words import cause_of, describe, text_cause


def caught(function) -> BaseException:
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def chained(inner: BaseException, outer: BaseException) -> BaseException:
    def fail() -> None:
        try:
            raise inner
        except BaseException as error:
            raise outer from error

    return caught(fail)


class OutOfMemoryError(RuntimeError):
    """As torch names it."""


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (OSError(errno.ENOSPC, "No space"), "ENOSPC"),
        (OSError(errno.EDQUOT, "Quota"), "EDQUOT"),
        (MemoryError(), "MEMORY"),
        (OutOfMemoryError("tried to allocate"), "CUDA_OOM"),
        (RuntimeError("CUDA out of memory."), "CUDA_OOM"),
        (ModuleNotFoundError("no module"), "IMPORT"),
        (SyntaxError("bad"), "IMPORT"),
        (KeyboardInterrupt(), "INTERRUPT"),
        (ValueError("bad shape"), "EXCEPTION"),
        (FileNotFoundError(errno.ENOENT, "gone"), "EXCEPTION"),
    ],
)
def test_a_cause_is_read_from_errno_text_or_type(error: BaseException, cause: str):
    assert cause_of(error) == cause


def test_the_cause_is_found_behind_the_exception_that_replaced_it():
    assert cause_of(chained(OSError(errno.ENOSPC, "full"), RuntimeError("save failed"))) == "ENOSPC"


def test_a_description_has_the_message_the_errno_and_the_last_frames():
    error = chained(OSError(errno.ENOSPC, "full"), RuntimeError("save failed"))
    facts = describe(error, error.__traceback__)
    assert (facts["type"], facts["message"], facts["errno"]) == ("RuntimeError", "save failed", errno.ENOSPC)
    assert "in fail" in facts["frames"][-1]
    assert facts["by_user_code"] is True


@pytest.mark.parametrize(
    "message",
    [
        "DataLoader worker (pid 7) is killed by signal: Killed.",
        "Command '['python']' died with <Signals.SIGKILL: 9>.",
        "Command '['python']' returned non-zero exit status 7.",
        "process 0 terminated with signal SIGKILL",
    ],
)
def test_an_exception_that_only_reports_another_processs_end_is_known_as_such(message: str):
    assert describe(RuntimeError(message), None)["reports_anothers_end"]


def test_a_cycle_of_causes_ends():
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert cause_of(first) == "EXCEPTION"


def test_ordinary_text_has_no_cause():
    assert text_cause("epoch 28 loss 0.28, device cuda, memory 12 GB") is None


def test_the_path_that_could_not_be_written_is_named(tmp_path):
    error = RuntimeError("save failed")
    error.__cause__ = OSError(28, "No space left on device", tmp_path / "model.pt")
    assert describe(error, None)["path"] == str(tmp_path / "model.pt")
    assert describe(OSError(2, "No such file", "x"), None)["path"] is None
    assert describe(OSError(28, "full"), None)["path"] is None
