"""Asking an interpreter: whatever it does, the answer is data."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from outlast.caches.probe import PACKAGES, ask, find_python


def script(folder: Path, text: str, name: str = "python") -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_an_interpreter_says_its_version_and_what_is_installed_without_importing_it() -> None:
    answer = ask(sys.executable)
    assert answer.reason is None and answer.python == sys.executable
    assert answer.version == "{}.{}.{}".format(*sys.version_info[:3])
    assert answer.versions["torch"].startswith("2.") and set(answer.versions) <= set(PACKAGES)
    assert not answer.effective and answer.seconds < 2.0, "torch alone takes longer to import"


def test_only_the_marked_line_counts_whatever_else_is_printed(tmp_path: Path) -> None:
    noisy = 'echo "outlast-0:{}"; echo \'{"version": "fake"}\'; exec ' + f'{sys.executable} "$@"; '
    assert ask(script(tmp_path, noisy)).version == ask(sys.executable).version


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("exit 3", "exit code 3 and said nothing"),
        ("echo no such thing >&2; exit 1", "exit code 1: no such thing"),
        ("kill -SEGV $$", "signal 11"),
        ("exit 0", "exit code 0"),
        ('echo "$3not json"', "exit code 0"),
        ('echo "$3[1, 2]"; echo "$3{}"', "exit code 0"),
    ],
)
def test_a_crash_or_nonsense_is_an_answer_with_a_reason(tmp_path: Path, does: str, said: str) -> None:
    answer = ask(script(tmp_path, does))
    assert said in (answer.reason or "") and answer.version is None


def test_one_that_hangs_is_ended_with_its_children_and_the_answer_says_so(tmp_path: Path) -> None:
    begun = time.monotonic()
    answer = ask(script(tmp_path, f"sleep 60 & echo $! > {tmp_path}/child; sleep 60"), timeout=0.5)
    assert answer.reason == "it did not answer within 0.5 seconds"
    assert time.monotonic() - begun < 5
    child = int((tmp_path / "child").read_text())
    for _ in range(100):
        if not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split(")")[1][:3]:
            break
        time.sleep(0.02)
    else:
        raise AssertionError("the grandchild lives on")


@pytest.mark.parametrize("python", ["/no/such/python", "/etc/passwd", "/etc", "a\0b"])
def test_what_is_no_interpreter_cannot_be_started(python: str) -> None:
    assert "cannot be started" in (ask(python).reason or "")


def test_python_means_what_the_path_says(tmp_path: Path) -> None:
    mine = script(tmp_path, "exit 0", "python3")
    assert find_python({"PATH": str(tmp_path)}) == mine
    assert find_python({"PATH": "/nowhere"}) == sys.executable


def test_a_file_of_the_users_is_not_taken_for_a_library(tmp_path: Path) -> None:
    for name in ("json", "os", "importlib", "huggingface_hub"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')")
    assert ask(sys.executable, cwd=tmp_path).reason is None


def test_deep_the_libraries_say_themselves_where_they_look(tmp_path: Path) -> None:
    values = {**os.environ, "HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf"), "TORCH_HOME": str(tmp_path / "t")}
    # A small stand-in for each library: what counts is what is asked of them; the real ones are in test_catalogue.
    packages = tmp_path / "packages"
    for name, text in {
        "huggingface_hub/constants.py": "HF_HOME = HF_HUB_CACHE = HF_XET_CACHE = "
        "HF_ASSETS_CACHE = HF_TOKEN_PATH = 'hub'",
        "huggingface_hub/__init__.py": "print('loud')",
        "datasets/__init__.py": "raise OSError('broken wheel')",
    }.items():
        path = packages / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in ("huggingface_hub", "datasets"):
        info = packages / f"{name}-9.9.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
    bare = script(tmp_path, f'exec {sys.executable} -S "$@"')
    answer = ask(bare, {**values, "PYTHONPATH": str(packages)}, deep=True, cwd=tmp_path)
    assert answer.reason is None
    assert answer.versions == {"huggingface_hub": "9.9", "datasets": "9.9"}
    assert answer.effective["hf-hub"] == str(tmp_path / "hub"), "absolute, from the folder that it ran in"
    assert answer.failed == {"datasets": "OSError: broken wheel"}
    assert json.dumps(answer.effective)
