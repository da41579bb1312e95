"""Promises 1, 2, 4, 5: the DUO recipe ends in the same bits after kills, and outlives a full disk and a session."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from duo import tokens

from .conftest import child_environment, outlast, share
from .hub_server import serving

RECIPE = Path(__file__).resolve().parents[2] / "recipes/duo"
SEED = 20261122
STEPS = 100
IS_FULL = share(10) == 10
# The seeds' command word for word, and after it what makes it a toy: the width, and every step a line.
SEEDS = (
    "mode=train data=openwebtext-split algo=duo_base algo.backbone=hf_dit strategy=single loader.batch_size=2 "
    "loader.global_batch_size=2 loader.eval_batch_size=2 loader.eval_global_batch_size=2 model.length=512 "
    "trainer.max_steps=100 trainer.devices=1 trainer.num_nodes=1 trainer.accelerator=gpu trainer.precision=16 "
    "trainer.accumulate_grad_batches=1 trainer.log_every_n_steps=10 +wandb.offline=true"
)
TOY = (
    "model=toy model.length=32 data.vocab_size=512 data.rows=30 optim.lr=3e-3 trainer.log_every_n_steps=1 "
    "trainer.val_check_interval=40 trainer.limit_val_batches=4 checkpointing.every_n_train_steps=15"
)
GUARD = [sys.executable, "-m", "outlast", "run"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The text, fetched and tokenised once for all of these."""
    place = tmp_path_factory.mktemp("cache")
    done = subprocess.run(
        command(place, place / "first", "trainer.max_steps=1"), env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "no network (HF_HUB_OFFLINE is set)" in done.stdout
    assert "no GPU here" in done.stdout or torch.cuda.is_available()
    return place


def environment() -> dict[str, str]:
    return child_environment(CUDA_VISIBLE_DEVICES="")


def command(cache: Path, run: Path, *words: str) -> list[str]:
    keys = [*SEEDS.split(), *TOY.split(), f"data.cache_dir={cache}", f"checkpointing.save_dir={run}", *words]
    return [sys.executable, str(RECIPE / "main.py"), *keys]


def finished(words: list[str]) -> str:
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def kill_when(log: Path, step: int, words: list[str]) -> None:
    """Start it, and kill -9 the whole group once the log has that step."""
    child = subprocess.Popen(
        words, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while child.poll() is None and not (log.exists() and f'"step": {step},' in log.read_text()):
        time.sleep(0.005)
    os.killpg(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "the run ended before it could be killed"


def losses(run: Path) -> set[str]:
    return set((run / "log.jsonl").read_text().splitlines())


@pytest.mark.parametrize("case", range(10 if IS_FULL else 1))
def test_a_training_killed_twice_is_the_uninterrupted_one_to_the_bit(tmp_path: Path, cache: Path, case: int) -> None:
    """Sampled: under `outlast run`; of the full count, every other one plainly, and some with workers."""
    rng = random.Random(SEED + case)
    more = ["loader.num_workers=2"] if case % 3 == 2 else []
    guard = [*GUARD, "--dir", str(tmp_path), "--"] if case % 2 == 0 else []
    finished(command(cache, tmp_path / "straight", *more))
    killed = tmp_path / "killed"
    for step in sorted(rng.sample(range(5, 95), 2)):
        kill_when(killed / "log.jsonl", step, [*guard, *command(cache, killed, *more)])
    finished([*guard, *command(cache, killed, *more)])
    assert losses(killed) == losses(tmp_path / "straight")
    ours, theirs = (
        torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in (killed, tmp_path / "straight")
    )
    assert ours["global_step"] == theirs["global_step"] == STEPS
    assert all(torch.equal(ours["state_dict"][name], value) for name, value in theirs["state_dict"].items())
    for mine, other in zip(ours["duo"]["ema"]["means"], theirs["duo"]["ema"]["means"], strict=True):
        assert torch.equal(mine, other)
    # Not one file more with each restart.
    assert len([path for path in (killed / "checkpoints").glob("*.ckpt") if not path.is_symlink()]) <= 3


def test_a_volume_with_room_for_two_checkpoints_is_enough(
    tmp_path: Path, cache: Path, volume: Callable[..., Path]
) -> None:
    """A checkpoint of the toy has 3.3 MB; two newest are wanted, and a third is being written."""
    place = volume("9m")
    keys = ("checkpointing.keep_best=0", "trainer.limit_val_batches=1")
    said = finished([*GUARD, "--dir", str(tmp_path), "--", *command(cache, place / "run", *keys)])
    assert f"the last at step {STEPS}" in said
    assert outlast("checkpoints", "verify", "--dir", place / "run/checkpoints").returncode == 0
    saved = torch.load(place / "run/checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] == STEPS


@pytest.mark.parametrize("end", ["asked to stop", "deadline"] if IS_FULL else ["asked to stop"])
def test_a_session_that_ends_seals_its_last_step_and_the_next_goes_on(tmp_path: Path, cache: Path, end: str) -> None:
    run, never = tmp_path / "run", "1000000"
    long = command(cache, run, f"trainer.max_steps={never}", f"checkpointing.every_n_train_steps={never}",
                   f"trainer.val_check_interval={never}")  # fmt: skip
    deadline = ["--deadline", "100s"] if end == "deadline" else []
    child = subprocess.Popen(
        [*GUARD, "--dir", str(tmp_path), *deadline, "--", *long],
        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with child:
        if end == "asked to stop":
            while child.poll() is None and not ((run / "log.jsonl").exists() and len(losses(run)) > 4):
                time.sleep(0.01)
            child.terminate()
        said = child.stderr.read() if child.stderr else ""
    assert child.returncode == 0, said
    assert "sealed its last step" in said
    reached = json.loads((run / "log.jsonl").read_text().splitlines()[-1])["step"]
    again = finished(command(cache, run, f"trainer.max_steps={reached + 2}", f"trainer.val_check_interval={never}"))
    assert f"goes on from step {reached:,}" in again


def test_where_there_is_a_hub_its_text_and_tokenizer_are_taken(tmp_path: Path) -> None:
    """Of 80 documents the first 20: 18 to train on, 2 held out; GPT-2's tokenizer, and nothing in its place."""
    texts = [f"document {number}: " + f"some words of number {number} " * 30 for number in range(80)]
    files = {}
    for number in range(2):
        held = io.BytesIO()
        pq.write_table(pa.table({"text": texts[40 * number : 40 * number + 40]}), held, row_group_size=10)
        files[f"plain_text/train-{number:05d}-of-00002.parquet"] = held.getvalue()
    tokenizer = tokens.train(texts, 400).to_str().encode()
    hub = {"datasets/Skylion007/openwebtext": files, "models/org/gpt2": {"tokenizer.json": tokenizer}}
    run = tmp_path / "run"
    words = [*command(tmp_path / "cache", run, "trainer.max_steps=2"), "data.rows=20", "data.tokenizer=org/gpt2"]
    with serving(hub) as served:
        online = {"HF_ENDPOINT": served.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}
        done = subprocess.run(words, env=environment() | online, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "duo: text: hf://datasets/Skylion007/openwebtext" in done.stdout
    assert "is not to be had" not in done.stdout
    assert (run / "tokenizer.json").read_bytes() == tokenizer
    (manifest,) = (tmp_path / "cache/subsets").glob("*/manifest.json")
    assert json.loads(manifest.read_text())["rows"] == {"train": 18, "validation": 2}
    # The server is gone: the same command goes on from what is there.
    again = subprocess.run(
        [*words, "trainer.max_steps=3"], env=environment() | online, capture_output=True, text=True, timeout=120
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert "goes on from step 2" in again.stdout


def test_a_wrong_key_ends_it_at_once_without_a_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path, tmp_path / "run", "+trainer.max_stps=3"), env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "no key 'trainer.max_stps'" in done.stderr
    assert "trainer.max_steps" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_scripts_train_measure_and_write(tmp_path: Path, cache: Path) -> None:
    """Sampled: it trains only; the notebook's test runs the other scripts too."""
    settings = {"PLACE": str(tmp_path), "PYTHON": sys.executable, "CACHE": str(cache), "HF_HUB_OFFLINE": "1",
                "CUDA_VISIBLE_DEVICES": ""}  # fmt: skip
    parts = [] if IS_FULL else ["--skip", "eval", "--skip", "gen"]
    words = ["--subset", "30", "--steps", "8", "--model", "toy", "--length", "32", "--skip", "check", *parts,
             "--", "sampling.steps=4", "data.vocab_size=512"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(RECIPE / "scripts/kaggle_train.py"), *words],
        env=child_environment(**settings), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    run = tmp_path / "duo-run"
    assert (run / "checkpoints/last.ckpt").resolve().name == "step=8.ckpt"
    if IS_FULL:
        assert json.loads((run / "perplexity.json").read_text())["step"] == 8
        assert len(json.loads((run / "samples.json").read_text())["samples"]) == 2


def test_every_shell_script_parses_and_the_clean_up_deletes_nothing_by_itself(tmp_path: Path) -> None:
    for script in sorted((RECIPE / "scripts").glob("*.sh")):
        subprocess.run(["bash", "-n", script], check=True)
    mine = tmp_path / "hf_mine/model.bin"
    partial = tmp_path / "hf_cache/hub/models--a--b/blobs/abc.incomplete"
    for path in (mine, partial):
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x" * 5000)
    script = RECIPE / "scripts/cleanup_kaggle_cache.sh"
    settings = {"PLACE": str(tmp_path), "PYTHON": sys.executable, "HOME": str(tmp_path / "home")}
    shown = subprocess.run(["bash", script], env=child_environment(**settings), capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "models--a--b" in shown.stdout
    assert mine.exists() and partial.exists()
    # Young things count as in use: even with --yes they stay, and what is no cache is never looked at.
    done = subprocess.run(["bash", script, "--yes"], env=child_environment(**settings), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert mine.exists() and partial.exists()
    assert "hf_mine" not in shown.stdout + done.stdout
    wrong = subprocess.run(["bash", script, "--all"], env=child_environment(**settings), capture_output=True, text=True)
    assert wrong.returncode == 2
