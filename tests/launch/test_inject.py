"""Which processes the injected hooks reach, and that they leave the rest of Python as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from running import clean_environment

from outlast.launch import Order
from outlast.launch.order import INJECT, environment

OLD = sorted(Path("/root/.pyenv/versions").glob("3.[0-9].*/bin/python3")) + sorted(
    Path("/root/.pyenv/versions").glob("3.10.*/bin/python3")
)
PYTHON = sys.executable


def test_a_script_a_module_and_a_string_are_hooked(guarded, events, tmp_path: Path):
    (tmp_path / "tool.py").write_text("print('ran')")
    for words in (["tool.py"], ["-m", "tool"], ["-c", "print('ran')"], ["-s", "tool.py"], ["-P", "tool.py"]):
        done = guarded(PYTHON, *words, cwd=tmp_path)
        assert done.stdout == "ran\n"
        assert [event.get("supported") for event in events("hooked")] == [True], words


def test_a_script_that_is_started_by_its_first_line_is_hooked(guarded, events, tmp_path: Path):
    script = tmp_path / "tool"
    script.write_text(f"#!{PYTHON}\nprint('ran')\n")
    script.chmod(0o755)
    assert guarded(script).stdout == "ran\n"
    assert len(events("hooked")) == 1


@pytest.mark.parametrize("how", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_are_hooked_without_a_handshake_of_their_own(guarded, events, tmp_path: Path, how):
    script = tmp_path / "pool.py"
    script.write_text(
        "import multiprocessing as mp, sys\n"
        "def reach(_): return any(type(f).__name__ == '_Finder' for f in sys.meta_path)\n"
        "if __name__ == '__main__':\n"
        f"    with mp.get_context('{how}').Pool(2) as pool: print(pool.map(reach, [1, 2]))\n"
    )
    assert guarded(PYTHON, script).stdout == "[True, True]\n"
    assert len(events("hooked")) == 1


@pytest.mark.parametrize("prefix", [[PYTHON, "-I"], [PYTHON, "-E"], ["env", "-i", PYTHON]])
def test_an_isolated_interpreter_is_only_watched_and_the_user_sees_it(guarded, events, tmp_path: Path, prefix):
    done = guarded(*prefix, "-c", "import time; time.sleep(3)")
    assert done.returncode == 0
    assert events("hooked") == []
    assert "watching only" in done.stderr
    assert [event.get("mode") for event in events("mode")] == ["watching only"]


def test_the_users_own_sitecustomize_still_runs_and_sees_itself(guarded, tmp_path: Path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "sitecustomize.py").write_text("import sys; MINE = __file__; sys.users = sys.modules['sitecustomize'].MINE")
    done = guarded(
        PYTHON, "-c", "import sys, sitecustomize as s; print(sys.users, s.__file__, s.__spec__.name)",
        env=clean_environment(PYTHONPATH=str(mine)),
    )  # fmt: skip
    path = str(mine / "sitecustomize.py")
    assert done.stdout.split() == [path, path, "sitecustomize"]


def test_an_error_in_the_users_own_sitecustomize_is_as_harmless_as_without_outlast(guarded, events, tmp_path: Path):
    (tmp_path / "sitecustomize.py").write_text("raise ValueError('mine')")
    done = guarded(PYTHON, "-c", "print('ran')", env=clean_environment(PYTHONPATH=str(tmp_path)))
    assert done.stdout == "ran\n" and "mine" in done.stderr
    assert len(events("hooked")) == 1


def test_a_foreign_interpreter_gets_outlast_but_none_of_its_neighbours(guarded, events, tmp_path: Path):
    subprocess.run([PYTHON, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    done = guarded(
        tmp_path / "bare/bin/python",
        "-c",
        "from importlib.util import find_spec; import outlast.journal as j\n"
        "print(j.__file__, find_spec('typer'), find_spec('blake3'))",
    )
    assert done.stdout.split() == [str(INJECT.parent.parent / "journal.py"), "None", "None"]
    assert events("hook_failed") == []


@pytest.mark.skipif(not OLD, reason="no Python older than 3.11 here")
@pytest.mark.parametrize("python", OLD, ids=lambda path: path.parts[-3])
def test_an_old_interpreter_shakes_hands_and_is_left_alone(guarded, events, python: Path):
    done = guarded(python, "-c", "import sys; print([f for f in sys.meta_path if type(f).__name__ == '_Finder'])")
    assert (done.returncode, done.stdout) == (0, "[]\n")
    assert [event.get("supported") for event in events("hooked")] == [False]


def hooked_python(code: str, tmp_path: Path, package: str | None = None) -> subprocess.CompletedProcess[str]:
    """A hooked process without a supervisor; ``package`` stands in for outlast."""
    (tmp_path / ".outlast/journal/r").mkdir(parents=True, exist_ok=True)
    order = Order(("x",), tmp_path)
    variables = environment(order, "r", 1, False, clean_environment())
    if package:
        variables["OUTLAST_PACKAGE"] = package
    return subprocess.run([PYTHON, "-c", code], env=variables, cwd=tmp_path, capture_output=True, text=True)


@pytest.fixture
def package(tmp_path: Path) -> str:
    """A stand-in for the outlast package, whose torch hook marks the module, and a stand-in for torch."""
    integrations = tmp_path / "stand_in/integrations"
    integrations.mkdir(parents=True)
    (tmp_path / "stand_in/__init__.py").write_text("")
    (integrations / "__init__.py").write_text("")
    (integrations / "torch_save.py").write_text(
        "import functools\n"
        "def install(module):\n"
        "    module.calls = getattr(module, 'calls', 0) + 1\n"
        "    original = module.save\n"
        "    @functools.wraps(original)\n"
        "    def save(*a): return 'guarded ' + original(*a)\n"
        "    module.save = save\n"
    )
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text("from torch.serialization import save\n")
    (tmp_path / "torch/serialization.py").write_text("def save(x): return x\n")
    return str(tmp_path / "stand_in")


def told(tmp_path: Path) -> str:
    return "".join(path.read_text() for path in (tmp_path / ".outlast/journal/r").glob("*.jsonl"))


def test_a_module_is_hooked_before_anyone_can_take_a_name_from_it(tmp_path: Path, package: str):
    code = "from torch import save; import torch.serialization as s; print(save('x'), s.calls)"
    done = hooked_python(code, tmp_path, package)
    assert done.stdout == "guarded x 1\n", done.stderr


def test_reload_hooks_the_fresh_function_once(tmp_path: Path, package: str):
    code = "import importlib, torch.serialization as s; importlib.reload(s); print(s.save('x'))"
    assert hooked_python(code, tmp_path, package).stdout == "guarded x\n"


def test_loaders_and_specs_are_the_real_ones_and_pickle(tmp_path: Path, package: str):
    code = (
        "import pickle, importlib.util, torch, torch.serialization as s\n"
        "print(type(s.__loader__).__name__, type(s.__spec__.loader).__name__)\n"
        "found = importlib.util.find_spec('torch.serialization').loader\n"
        "print(type(pickle.loads(pickle.dumps(found))).__name__, found.get_source('torch.serialization')[:8])\n"
        "fresh = torch.__spec__.loader; print(pickle.loads(pickle.dumps(torch.save)) is torch.save)\n"
    )
    done = hooked_python(code, tmp_path, package)
    assert done.stdout.split("\n")[:3] == [
        "SourceFileLoader SourceFileLoader", "SourceFileLoader def save", "True",
    ], done.stderr  # fmt: skip


def test_a_lazy_loader_hooks_at_first_use(tmp_path: Path, package: str):
    code = (
        "import importlib.util as u, sys, torch\n"
        "del sys.modules['torch.serialization']\n"
        "spec = u.find_spec('torch.serialization'); spec.loader = u.LazyLoader(spec.loader)\n"
        "module = u.module_from_spec(spec); sys.modules[spec.name] = module; spec.loader.exec_module(module)\n"
        "print(module.save('x'))\n"
    )
    done = hooked_python(code, tmp_path, package)
    assert done.stdout == "guarded x\n", done.stderr


def test_a_hook_that_fails_is_journaled_and_the_import_goes_on(tmp_path: Path, package: str):
    Path(package, "integrations/torch_save.py").write_text("raise RuntimeError('broken hook')")
    done = hooked_python("import torch; print(torch.save('x'))", tmp_path, package)
    assert done.stdout == "x\n"
    assert '"event":"hook_failed"' in told(tmp_path) and "broken hook" in told(tmp_path)


def test_an_integration_that_is_not_there_is_journaled_and_the_import_goes_on(tmp_path: Path, package: str):
    Path(package, "integrations/torch_save.py").unlink()
    assert hooked_python("import torch; print(torch.save('x'))", tmp_path, package).stdout == "x\n"
    assert "hook_failed" in told(tmp_path)


def test_a_module_whose_import_fails_fails_as_it_would_without_us(tmp_path: Path, package: str):
    (tmp_path / "torch/serialization.py").write_text("1/0")
    done = hooked_python("import torch", tmp_path, package)
    assert "ZeroDivisionError" in done.stderr and done.returncode == 1


def test_an_exception_is_recorded_and_still_printed_once(tmp_path: Path):
    done = hooked_python("raise ValueError('boo')", tmp_path)
    assert done.stderr.count("ValueError: boo") == 1
    assert '"cause":"EXCEPTION"' in told(tmp_path) and '"message":"boo"' in told(tmp_path)


def test_the_users_excepthook_is_called(tmp_path: Path):
    code = "import sys\nsys.excepthook = lambda *a: print('mine')\nraise ValueError('boo')"
    assert hooked_python(code, tmp_path).stdout == "mine\n"


def test_an_exception_in_a_thread_is_recorded_with_the_threads_name(tmp_path: Path):
    code = "import threading\nt = threading.Thread(target=lambda: 1/0, name='loader')\nt.start(); t.join()"
    done = hooked_python(code, tmp_path)
    assert done.returncode == 0 and "ZeroDivisionError" in done.stderr
    assert '"thread":"loader"' in told(tmp_path)


def test_a_journal_that_cannot_be_written_breaks_nothing(tmp_path: Path):
    done = hooked_python("import os; print('ran')", tmp_path)
    assert done.stdout == "ran\n"
    variables = environment(Order(("x",), tmp_path / "gone"), "r", 1, False, clean_environment())
    again = subprocess.run([PYTHON, "-c", "print('ran'); 1/0"], env=variables, capture_output=True, text=True)
    assert again.stdout == "ran\n" and "ZeroDivisionError" in again.stderr


def test_the_start_imports_nothing_that_a_bare_start_does_not(tmp_path: Path):
    code = "import sys; print(' '.join(sorted(sys.modules)))"
    bare = subprocess.run([PYTHON, "-c", code], env=clean_environment(), capture_output=True, text=True)
    more = set(hooked_python(code, tmp_path).stdout.split()) - set(bare.stdout.split())
    assert more <= {"sitecustomize", "_json"}


def test_outside_a_guarded_run_the_file_does_nothing(tmp_path: Path):
    variables = clean_environment(PYTHONPATH=str(INJECT))
    code = "import sys; print([f for f in sys.meta_path if type(f).__name__ == '_Finder'])"
    assert subprocess.run([PYTHON, "-c", code], env=variables, capture_output=True, text=True).stdout == "[]\n"
    assert os.listdir(tmp_path) == []
