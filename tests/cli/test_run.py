"""The command line: quick help, plain errors, exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from outlast.cli import COMMANDS, main


def outlast(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OUTLAST")}
    command = [sys.executable, "-m", "outlast", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=kept, cwd=cwd, timeout=120)


def modules_after(code: str) -> set[str]:
    """Modules that are loaded after some code has run in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('MODULES', *sys.modules)"], capture_output=True, text=True
    )
    return set(done.stdout.rpartition("MODULES")[2].split())


def test_help_names_every_command_and_loads_none_of_them():
    done = outlast("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in COMMANDS)
    loaded = modules_after("from outlast.cli import main; main(['--help'])")
    assert not loaded & {"typer", "rich", "torch", "numpy", "outlast.launch", *(c.module for c in COMMANDS.values())}


@pytest.mark.parametrize("name", ["run", "why"])
def test_a_command_loads_neither_torch_nor_rich_nor_numpy(name: str):
    assert not modules_after(f"import outlast.cli.{name}") & {"torch", "rich", "numpy"}


def test_no_words_are_a_call_for_help(capsys):
    assert main([]) == 0
    assert "Usage: outlast COMMAND" in capsys.readouterr().out


def test_an_unknown_command_is_bad_input_and_the_hint_lists_the_real_ones(capsys):
    assert main(["trian"]) == 2
    said = capsys.readouterr().err
    assert "'trian'" in said and "run, why" in said


def test_the_version_is_told(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("outlast 0.")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--budget", "nothing"], "expected DIR=SIZE"),
        (["--budget", "runs=lots"], "expected a size"),
        (["--keep", "many"], "cannot read 'many'"),
        (["--resume", "perhaps"], "--resume is 'perhaps'"),
        (["--forbid-rung", "12"], "no rung 12"),
        (["--save", "half"], "save is 'half'"),
        (["--save", "light", "--keep-exact"], "(save='light', --save light) contradict"),
        (["--wrong"], "No such option"),
        ([], "Missing argument"),
    ],
)
def test_a_wrong_option_ends_with_2_before_anything_is_started(tmp_path: Path, options: list[str], expected: str):
    command = ["--", "touch", str(tmp_path / "ran")] if options else []
    done = outlast("run", *options, *command, cwd=tmp_path)
    assert done.returncode == 2 and expected in done.stderr
    assert os.listdir(tmp_path) == []


def test_options_after_the_command_are_the_commands_own(tmp_path: Path):
    code = "import sys; print(sys.argv[1:])"
    for separator in ([], ["--"]):
        done = outlast("run", "--dir", tmp_path, *separator, sys.executable, "-c", code, "--keep", "x", "--help")
        assert done.stdout == "['--keep', 'x', '--help']\n"


def test_options_reach_the_command_through_the_environment(tmp_path: Path):
    code = "import os; print({k: v for k, v in os.environ.items() if k.startswith('OUTLAST_')})"
    done = outlast(
        "run", "--dir", tmp_path, "--budget", f"{tmp_path}=45MB", "--keep", "last=2", "--keep-exact",
        "--forbid-rung", 5, "--forbid-rung", 6, "--resume", "always", "--", sys.executable, "-c", code,
    )  # fmt: skip
    said = eval(done.stdout)
    assert said["OUTLAST_BUDGETS"] == f"{tmp_path.resolve()}=45000000"
    assert (said["OUTLAST_KEEP"], said["OUTLAST_KEEP_EXACT"]) == ("last=2", "1")
    assert (said["OUTLAST_FORBID"], said["OUTLAST_RESUME"], said["OUTLAST_ATTEMPT"]) == ("5,6", "1", "1")


def test_a_folder_that_cannot_be_written_is_bad_input(tmp_path: Path):
    (tmp_path / "file").write_text("")
    done = outlast("run", "--dir", tmp_path / "file", "--", "true")
    assert done.returncode == 2 and "hint" in done.stderr
