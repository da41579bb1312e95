"""Two trainings in one folder, in two processes, leave each other's checkpoints alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.builders import events, make_saver, make_vault, names, needs, put_checkpoint, writer

from outlast.checkpoints import Keep, Saver, _alive

HOLD = """
import sys
from pathlib import Path
from outlast.checkpoints import _alive
print(_alive.claim(Path(sys.argv[1]), sys.argv[2]), flush=True)
sys.stdin.read()
"""


@contextmanager
def claimed_elsewhere(own: Path, lineage: str) -> Iterator[None]:
    """Another process that saves this training, until the end of the block, when it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, own, lineage], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "True\n"
    try:
        yield
    finally:
        process.kill()
        process.communicate()


def save(saver: Saver, step: int) -> None:
    saver.settle(saver.save(f"checkpoint-{step}", step, needs(), writer(step)))


def test_what_another_process_saves_is_not_pruned_until_it_has_died(tmp_path: Path) -> None:
    vault = make_vault(tmp_path)
    for step in (10, 20, 30):
        put_checkpoint(vault, step, lineage="other")
    saver = make_saver(vault, keep=Keep(last=1))
    with claimed_elsewhere(vault.own, "other"):
        save(saver, 5)
        save(saver, 6)
        assert sorted(names(vault)) == ["checkpoint-10", "checkpoint-20", "checkpoint-30", "checkpoint-6"]
    save(saver, 7)
    assert names(vault) == ["checkpoint-7"]


def test_a_name_that_another_process_has_used_is_kept_under_another_one(tmp_path: Path) -> None:
    vault = make_vault(tmp_path)
    put_checkpoint(vault, 10, lineage="other")
    with claimed_elsewhere(vault.own, "other"):
        save(make_saver(vault), 10)
    lineages = {c.name.partition(".")[0]: c.seal.lineage for c in vault.checkpoints()}
    assert len(names(vault)) == 2 and set(lineages) == {"checkpoint-10"}
    assert "other" in {c.seal.lineage for c in vault.checkpoints()}


def test_one_training_resumed_twice_at_once_becomes_two_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saver = make_saver(make_vault(tmp_path))
    saver.lineage = "one"
    with claimed_elsewhere(saver.vault.own, "one"):
        save(saver, 10)
    assert saver.lineage != "one"
    assert len(events(saver.vault, "set_apart")) == 1
    assert "another process is saving the same training" in capsys.readouterr().err


def test_a_forked_worker_does_not_hold_its_parents_claim(tmp_path: Path) -> None:
    code = """
import os, sys, time
from pathlib import Path
from outlast.checkpoints import _alive
_alive.claim(Path(sys.argv[1]), "one")
if os.fork() == 0:
    print(os.getpid(), flush=True)
    os.close(1)
    time.sleep(60)
os._exit(0)
"""
    out = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True).stdout
    try:
        assert not _alive.is_alive(tmp_path, "one")
    finally:
        os.kill(int(out), 9)


def test_what_the_dead_leave_is_swept_and_what_lives_stays(tmp_path: Path) -> None:
    assert _alive.claim(tmp_path, "mine")
    with claimed_elsewhere(tmp_path, "other"):
        with claimed_elsewhere(tmp_path, "dead"):
            pass
        _alive.sweep(tmp_path)
        assert len(list(tmp_path.iterdir())) == 2
        assert _alive.is_alive(tmp_path, "other") and not _alive.is_alive(tmp_path, "mine")


@pytest.mark.parametrize("lineage", ["", "../../x", "a/b", "\0", "é" * 500])
def test_any_text_is_a_lineage_and_none_leads_out(tmp_path: Path, lineage: str) -> None:
    assert _alive.claim(tmp_path / "own", lineage)
    assert [path.parent for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "own"]
