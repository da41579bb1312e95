"""Promise 4: another process fills the volume in the middle of a save, and training goes on; promise 2 holds meanwhile.

The points are moments of the driver's saves (each piece of each file, before the seal, before each rename, before each
unlink): ``driver.py --count`` lists them. A point is replayed by its number.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import SCRIPTS, child_environment, share
from .scripts import looks

SEED = int(os.environ.get("OUTLAST_TORTURE_SEED", "5"))
RUN = ("--saves", "9", "--keep", "last=3", "--weights", "700", "--optimizer", "1500", "--seed", SEED)
Volume = Callable[..., Path]


def _moments(root: Path) -> list[tuple[int, str]]:
    """Moments at which the volume can be filled, from the fourth save on: earlier there is nothing to give way."""
    done = subprocess.run(
        looks.python(looks.DRIVER, root, *RUN, "--count"),
        capture_output=True, text=True, check=True, env=child_environment(),
    )  # fmt: skip
    found: list[tuple[int, str]] = []
    saves = 0
    for line in done.stdout.splitlines():
        words = line.split()
        saves += line.startswith("sealed")
        if words[0] == "tick" and 3 <= saves < 7:
            found.append((int(words[1]), words[2]))
    return found


def _points(moments: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Twenty moments (a share of them, in a sampled run), each kind of moment first."""
    dice = random.Random(SEED)
    dice.shuffle(moments)
    kinds = {what: (number, what) for number, what in reversed(moments)}
    rest = [moment for moment in moments if moment not in kinds.values()]
    return [*kinds.values(), *rest][: max(share(20), 6)]


@pytest.mark.parametrize(("size", "kind"), [("9m", "tmpfs"), ("16m", "tmpfs"), ("16m", "ext4")])
def test_a_volume_filled_for_good_in_the_middle_of_a_save_does_not_stop_the_run(
    volume: Volume, size: str, kind: str
) -> None:
    """Attacks: the save goes into its reservation, the next make room, one checkpoint verifies at every instant."""
    for number, what in _points(_moments(volume(size, kind) / "out")):
        place = volume(size, kind)
        root = place / "out"
        try:
            with looks.Monitor(root):
                done = subprocess.run(
                    looks.python(looks.DRIVER, root, *RUN, "--fill-at", number, "--filler", place / "filler"),
                    capture_output=True, text=True, env=child_environment(), timeout=120,
                )  # fmt: skip
            assert done.returncode == 0, done.stderr[-2000:]
            assert "filled " in done.stdout, "the run never came to this moment"
            assert looks.steps_said(done.stdout, "sealed") == list(range(10, 100, 10))
            looks.assert_only_whole_are_offered(root)
            assert "checkpoint-90" in looks.verifying(root)
            looks.events(root)
        except AssertionError as error:
            error.add_note(f"seed {SEED}, filled at moment {number} ({what}) of {size} {kind}")
            raise


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_save_that_meets_a_full_volume_with_nothing_to_give_way_waits_until_room_is_made(
    volume: Volume, kind: str
) -> None:
    """Attacks: rung 9. Nothing is sealed yet and another process holds all the room: wait, say so, go on."""
    place = volume("14m", kind)
    root = place / "out"
    with subprocess.Popen(
        looks.python(looks.DRIVER, root, *RUN, "--fill-at", "1", "--filler", place / "filler"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=child_environment(),
    ) as child:  # fmt: skip
        assert child.stdout is not None and child.stderr is not None
        said = child.stderr.readline()
        assert "paused" in said, said
        assert "free some space" in child.stderr.readline()
        assert looks.verifying(root) == {}
        os.unlink(place / "filler")
        assert "sealed 90" in child.stdout.read()
        assert child.wait(timeout=60) == 0
    names = [event["event"] for event in looks.named(root, "paused", "continued")]
    assert names[:2] == ["paused", "continued"] and names[-1] == "continued"


def test_a_neighbour_that_takes_every_freed_byte_never_costs_the_last_checkpoint(volume: Volume) -> None:
    """Attacks: what the ladder frees may be gone before it is reserved. The way back stays, the run goes on after."""
    place = volume("9m")
    root = place / "out"
    stop = threading.Event()

    def greedy() -> None:
        while not stop.is_set():
            subprocess.run([sys.executable, "-S", SCRIPTS / "fill.py", place / "filler"], check=True)

    neighbour = threading.Thread(target=greedy, name="neighbour", daemon=True)
    with subprocess.Popen(
        looks.python(looks.DRIVER, root, *RUN[2:], "--saves", 40),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=child_environment(),
    ) as child:  # fmt: skip
        assert child.stdout is not None and child.stderr is not None
        while not child.stdout.readline().startswith("sealed"):
            assert child.poll() is None
        with looks.Monitor(root):
            neighbour.start()
            assert "paused" in child.stderr.readline(), "a neighbour that takes everything must lead to a pause"
            assert looks.verifying(root)
            stop.set()
            neighbour.join()
            os.unlink(place / "filler")
            child.stdout.read()
            assert child.wait(timeout=120) == 0
    looks.assert_only_whole_are_offered(root)
    assert "checkpoint-400" in looks.verifying(root)


EVENTS_OF_A_SAVE = 45


@pytest.mark.sampled(2)
@pytest.mark.parametrize("event", random.Random(SEED).sample(range(1, EVENTS_OF_A_SAVE + 1), share(20)))
def test_a_trainer_whose_volume_is_filled_at_a_file_event_of_its_fourth_save_finishes(
    volume: Volume, tmp_path: Path, event: int
) -> None:
    """Attacks: the same with the unmodified Trainer script; the neighbour strikes at the n-th file event of a save."""
    place = volume("45m")
    root = place / "out"
    environment = looks.hooked(
        tmp_path, STRIKE_AT=str(event), STRIKE_IN="checkpoint-40", STRIKE_FILL=str(place / "filler")
    )
    environment["PYTHONPATH"] += f":{SCRIPTS / 'strike'}"
    with looks.Monitor(root):
        done = subprocess.run(
            looks.python(looks.TRAINER, root, "--steps", 70),
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
    assert done.returncode == 0, f"event {event}: {done.stderr[-2000:]}"
    assert "struck at" in done.stderr, f"a save has fewer than {event} events now"
    sealed = [event["step"] for event in looks.named(tmp_path, "sealed")]
    assert sealed == list(range(10, 80, 10)), f"event {event}"
    assert "checkpoint-70" in looks.verifying(root)
    looks.assert_only_whole_are_offered(root)
