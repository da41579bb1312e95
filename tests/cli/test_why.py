"""`outlast why` from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def outlast(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OUTLAST")}
    command = [sys.executable, "-m", "outlast", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=kept, cwd=cwd, timeout=120)


def test_the_last_run_here_is_explained_in_words(tmp_path: Path):
    outlast("run", "--", "true", cwd=tmp_path)
    outlast("run", "--", sys.executable, "-c", "raise ValueError('boo')", cwd=tmp_path)
    done = outlast("why", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("EXCEPTION: the program raised an exception (exit code 1)")
    assert "ValueError: boo" in done.stdout and "fix" in done.stdout


def test_facts_for_programs_are_one_json_document(tmp_path: Path):
    outlast("run", "--dir", tmp_path / "runs", "--", "sh", "-c", "exit 3", cwd=tmp_path)
    story = json.loads(outlast("why", "--dir", "runs", "--json", cwd=tmp_path).stdout)
    assert (story["cause"], story["exit_code"]) == ("exit", 3)
    assert story["command"] == ["sh", "-c", "exit 3"] and story["mode"].startswith("watching only")


def test_without_a_run_it_says_what_to_look_for_and_ends_with_2(tmp_path: Path):
    done = outlast("why", cwd=tmp_path)
    assert done.returncode == 2 and "no guarded run" in done.stderr and "--dir" in done.stderr


def test_a_run_that_did_not_start_says_so(tmp_path: Path):
    outlast("run", "--", "no-such-command", cwd=tmp_path)
    assert "could not be started" in outlast("why", cwd=tmp_path).stdout
