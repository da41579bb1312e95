"""What the recorder sees: each storage once, from its birth to its end, on real and on fake tensors alike."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from outlast.budget.replay import Trace
from outlast.budget.trace import Recorder


def recorded(run: Callable[[], object], fake: bool) -> Trace:
    recorder = Recorder()
    with ExitStack() as stack:
        if fake:
            stack.enter_context(FakeTensorMode())
        stack.enter_context(recorder)
        recorder.start()
        run()
        return recorder.finish()


def life(run: Callable[[], object], fake: bool) -> list[int]:
    """Bytes taken, and bytes given back as negative numbers, in order."""
    return [event.bytes if event.born else -event.bytes for event in recorded(run, fake).events]


def one_after_the_other() -> None:
    x = torch.empty(100)
    y = x + 1
    del x
    z = y * 2
    del y, z


def views() -> None:
    x = torch.empty(10, 10)
    y = x.t()[2:].reshape(-1) if x.is_contiguous() else x
    x.add_(1)
    del x
    assert y.numel() == 80


def resized() -> None:
    x = torch.empty(10)
    x.resize_(20)
    del x


@pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])
@pytest.mark.parametrize(
    ("run", "bytes_"),
    [
        (one_after_the_other, [400, 400, -400, 400, -400, -400]),
        (views, [400, 320, -400, -320]),
        (resized, [40, -40, 80, -80]),
    ],
)
def test_every_storage_is_taken_once_and_given_back_when_nothing_holds_it(
    run: Callable[[], None], bytes_: list[int], fake: bool
) -> None:
    assert life(run, fake) == bytes_


def test_an_event_says_what_was_made_by_what() -> None:
    trace = recorded(lambda: torch.ones(2, 3, dtype=torch.bfloat16), fake=True)
    assert trace.events[0].op == "aten.ones -> bf16[2, 3]"


def test_before_the_start_and_after_the_finish_nothing_is_recorded() -> None:
    recorder = Recorder()
    with recorder:
        before = torch.empty(10)
        recorder.start()
        during = torch.empty(20)
        trace = recorder.finish()
        after = torch.empty(30)
    del before, during, after
    assert [event.bytes for event in trace.events] == [80]


def test_what_is_registered_has_a_kind_and_is_not_taken_twice() -> None:
    recorder = Recorder()
    recorder.start()
    weight = torch.empty(10)
    recorder.register(weight, "parameters")
    recorder.register(weight.view(2, 5), "parameters")
    trace = recorder.finish()
    assert [trace.kinds[event.storage] for event in trace.events] == ["parameters"]
