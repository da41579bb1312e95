"""`outlast plan -- COMMAND`: a script's arguments are read, and nothing is trained or written."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from running import clean_environment, run_outlast

from outlast.errors import BadInput, OutlastError
from outlast.launch import rehearse

SCRIPTS = Path(__file__).parents[1] / "torture" / "scripts"
PYTHON = sys.executable


def told(*words: object, timeout: float = 120.0, **more: str):
    return rehearse([str(word) for word in words], timeout, clean_environment(HF_HUB_OFFLINE="1", **more))


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Path]:
    """Write a script beside the folder that is to stay empty."""

    def write(text: str) -> Path:
        path = tmp_path / "script.py"
        path.write_text(text)
        return path

    return write


def test_a_trainers_arguments_and_sizes_are_told_and_nothing_is_written(tmp_path: Path) -> None:
    found = told(PYTHON, SCRIPTS / "trainer.py", tmp_path / "runs" / "a", "--limit", 2, "--best", "--save", 20)
    assert list(tmp_path.iterdir()) == []
    wanted = {"framework": "transformers", "output_dir": str(tmp_path / "runs" / "a"), "every": 20, "limit": 2,
              "steps": 100, "best": True, "optimizer": "adamw_torch_fused", "batch": 4}  # fmt: skip
    assert {name: found[name] for name in wanted} == wanted
    assert found["trained"] == 1_104_972
    assert found["weights_bytes"] == 4 * 1_104_972
    assert found["steps_per_epoch"] > 1000


def test_what_a_script_does_after_its_training_is_not_done(tmp_path: Path, script: Callable[[str], Path]) -> None:
    """``finally`` and ``atexit`` would save a model that was never trained."""
    path = script(
        "import atexit, pathlib, sys, torch\n"
        "from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments\n"
        "place = pathlib.Path(sys.argv[1])\n"
        "atexit.register(lambda: place.mkdir())\n"
        "model = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=16))\n"
        "data = [{'input_ids': torch.zeros(4, dtype=torch.long)}] * 8\n"
        "trainer = Trainer(model, TrainingArguments(str(place), report_to=[]), train_dataset=data)\n"
        "assert trainer.args.output_dir == str(place)\n"
        "try:\n    trainer.train()\n"
        "finally:\n    trainer.save_model()\n"
    )
    found = told(PYTHON, path, tmp_path / "out")
    assert (found["epochs"], found["steps_per_epoch"], found["every"]) == (3.0, 1, 500)
    assert not (tmp_path / "out").exists()


def test_lightnings_checkpoint_callback_is_told(tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    found = told(PYTHON, SCRIPTS / "lightning_script.py", tmp_path / "out", "--last", "--top", 2)
    assert {name: found[name] for name in ("framework", "every", "limit", "copies_last", "optimizer")} == {
        "framework": "lightning", "every": 10, "limit": 2, "copies_last": True, "optimizer": "AdamW"
    }  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_loop_of_ones_own_ends_before_its_first_step(tmp_path: Path, script: Callable[[str], Path]) -> None:
    path = script(
        "import sys, torch\n"
        "model = torch.nn.Linear(10, 10)\n"
        "optimizer = torch.optim.SGD(model.parameters(), 0.1)\n"
        "model(torch.zeros(10)).sum().backward()\n"
        "optimizer.step()\n"
        "open(sys.argv[1], 'w')\n"
    )
    found = told(PYTHON, path, tmp_path / "out")
    assert (found["framework"], found["optimizer"], found["trained"]) == ("torch.save", "SGD", 110)
    assert not (tmp_path / "out").exists()


def test_a_script_that_trains_nothing_is_said_to(script: Callable[[str], Path]) -> None:
    with pytest.raises(OutlastError, match=r"ended \(exit code 3\) without a Trainer.train") as error:
        told(PYTHON, script("print('nothing to train'); raise SystemExit(3)"))
    assert "nothing to train" in error.value.message
    assert "--save-bytes" in error.value.hint


def test_what_takes_too_long_is_ended_with_all_that_it_started(script: Callable[[str], Path]) -> None:
    path = script("import subprocess, sys, time\nsubprocess.Popen(['sleep', '987654'])\ntime.sleep(600)\n")
    with pytest.raises(OutlastError, match="was ended after 2 s"):
        told(PYTHON, path, timeout=2.0)
    left = subprocess.run(["pgrep", "-f", "^sleep 987654$"], capture_output=True, text=True)
    assert left.stdout == ""


def test_what_cannot_be_hooked_is_ended_before_it_trains(script: Callable[[str], Path]) -> None:
    """A clock that is ahead stands for waiting: an isolated interpreter never says that it was met."""
    path = script("import time\ntime.sleep(600)\n")
    times = iter(range(0, 10_000, 20))
    with pytest.raises(OutlastError, match="no Python process of it could be reached"):
        rehearse([PYTHON, "-I", str(path)], 1e9, clean_environment(), clock=lambda: float(next(times)))


def test_a_command_that_is_not_there_is_bad_input() -> None:
    with pytest.raises(BadInput, match="cannot start"):
        told("no-such-program-here")


def test_the_rest_of_a_shell_script_does_not_run_after_the_answer(tmp_path: Path) -> None:
    script = tmp_path / "all.sh"
    out = tmp_path / "evaluated"
    script.write_text(f"{PYTHON} {SCRIPTS / 'trainer.py'} {tmp_path / 'out'} && sleep 2 && touch {out}\n")
    assert told("sh", script)["framework"] == "transformers"
    assert not out.exists() and not (tmp_path / "out").exists()


def test_the_command_line_shows_where_each_value_came_from(tmp_path: Path) -> None:
    command = (PYTHON, SCRIPTS / "trainer.py", tmp_path / "out")
    done = run_outlast("plan", "--budget", f"{tmp_path}=45MB", "--save-every", 20, "--", *command)
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("does not fit: full at step 80")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["every", "20", "--save-every"] in rows
    assert any(row[:2] == ["limit", "3"] and str(SCRIPTS / "trainer.py") in row for row in rows)
    assert list(tmp_path.iterdir()) == []
