"""`outlast memory` from the command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from outlast import cli


def outlast(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "outlast", "memory", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_it_shows_main_memory_with_its_limit_and_the_gpus() -> None:
    done = outlast()
    assert done.returncode == 0 and "held of" in done.stdout and "the limit is" in done.stdout
    assert "GPU" in done.stdout and done.stdout.startswith("largest")


def test_a_process_can_be_asked_about() -> None:
    done = outlast("--pid", os.getpid())
    assert done.returncode == 0 and f"process {os.getpid()} (" in done.stdout


def test_facts_for_programs_are_one_json_document() -> None:
    found = json.loads(outlast("--json").stdout)
    assert found["ram"]["held_bytes"] <= found["ram"]["limit_bytes"] and found["gpu_problem"] is None
    assert found["processes_bytes"] is None and found["largest"][0]["rss_bytes"] > 0


def test_a_process_that_is_not_there_and_a_pause_of_nothing_are_bad_input() -> None:
    gone, never = outlast("--pid", 2**22 + 1), outlast("--watch", 0)
    assert (gone.returncode, never.returncode) == (2, 2)
    assert "there is no process" in gone.stderr and "--watch is 0" in never.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [("--watch", value) for value in ("nan", "inf", "1e20", "-1", "1e-300")] + [("--pid", "0"), ("--pid", "-7")],
)
def test_numbers_that_make_no_sense_are_bad_input(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["memory", option, value]) == 2
    err = capsys.readouterr().err
    assert f"outlast: {option} is " in err and "hint: " in err


def test_it_is_shown_again_and_again_until_it_is_interrupted() -> None:
    command = [sys.executable, "-m", "outlast", "memory", "--watch", "0.05", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None and watching.stderr is not None
        times = [json.loads(watching.stdout.readline())["time"] for _ in range(3)]
        watching.send_signal(signal.SIGINT)
        watching.stdout.read()
        assert (watching.wait(60), watching.stderr.read()) == (0, "")
    assert times == sorted(times) and times[0] < times[2]
