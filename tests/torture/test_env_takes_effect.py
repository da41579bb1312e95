"""Attacks: "caches go to the roomy volume". Real volumes, real shells, the real libraries, a download from a hub.

Each platform is a fake root with volumes of its own; what `outlast env` prints there is evaluated by a shell, and a
plain program below it downloads a model, a data set and weights. Where the files then are is what counts.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import torch

from .conftest import SCRIPTS
from .hub_server import Hub, serving

Volume = Callable[..., Path]


def weights() -> bytes:
    file = io.BytesIO()
    torch.save({"w": torch.ones(8)}, file)
    return file.getvalue()


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    repositories = {
        "models/org/tiny": {"config.json": b"{}", "weights.pt": weights(), "deep/model.bin": bytes(300_000)},
        "datasets/org/rows": {"train.jsonl": b'{"a": 1}\n{"a": 2}\n', "README.md": b"# rows\n"},
    }
    with serving(repositories) as running:
        yield running


def machine(tmp_path: Path, volume: Volume, sizes: Mapping[str, str]) -> Path:
    """A root folder whose paths are volumes of these sizes (ext4)."""
    root = tmp_path / "machine"
    for path, size in {"tmp": "120m", **sizes}.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(volume(size, "ext4"))
    return root


def values(root: Path, hub: Hub, **more: str) -> dict[str, str]:
    """A bare environment, as on a machine where nothing was set."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    plain = {"HOME": str(root / "root"), "TMPDIR": str(root / "tmp"), "HF_ENDPOINT": hub.url, "OMP_NUM_THREADS": "1"}
    return {**kept, **plain, "HF_HUB_DISABLE_TELEMETRY": "1", **more}


def printed(root: Path, cwd: Path, environment: dict[str, str], shell: str = "sh") -> str:
    done = subprocess.run(
        [sys.executable, SCRIPTS / "print_env.py", root, cwd, shell], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def used(text: str, cwd: Path, environment: dict[str, str], hub: Hub, shell: str = "bash") -> dict[str, str]:
    """Where the real libraries put their files below a shell that evaluated the text."""
    program = [sys.executable, str(SCRIPTS / "use_caches.py"), hub.url]
    if shell == "fish":
        command = ["fish", "--no-config", "-c", "echo $argv[1] | source; $argv[2..]", text, *program]
    else:
        command = [shell, "-c", 'eval "$1"; shift; exec "$@"', shell, text, *program]
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=240)
    line = next((line for line in done.stdout.splitlines() if line.startswith("found:")), None)
    assert line, done.stderr[-3000:]
    return dict(json.loads(line.removeprefix("found:")))


PLATFORMS = {
    # name: (variables, volumes, where weights and data must be, where small files must be)
    "runpod": ({"RUNPOD_POD_ID": "p"}, {"root": "16m", "workspace": "180m"}, "workspace", "tmp"),
    "docker": ({"container": "docker"}, {"root": "16m", "data": "180m"}, "data", "tmp"),
    "vast": ({"VAST_CONTAINERLABEL": "C.1"}, {"root": "16m", "workspace": "180m"}, "workspace", "tmp"),
    "slurm": ({"SLURM_JOB_ID": "1", "SCRATCH": "@/work/me"}, {"root": "16m", "work/me": "180m"}, "work/me", "tmp"),
    "kaggle": ({"KAGGLE_KERNEL_RUN_TYPE": "Interactive"}, {"root": "180m", "kaggle/working": "16m"}, "root", "tmp"),
    "plain": ({}, {"root": "180m"}, "root", "tmp"),
}  # fmt: skip


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", PLATFORMS)
def test_after_eval_the_libraries_put_their_files_on_the_roomy_volume(
    tmp_path: Path, volume: Volume, hub: Hub, name: str
) -> None:
    more, sizes, data, small = PLATFORMS[name]
    root = machine(tmp_path, volume, sizes)
    cwd = tmp_path / "project"
    cwd.mkdir()
    environment = values(root, hub, **{key: value.replace("@", str(root)) for key, value in more.items()})
    text = printed(root, cwd, environment, "fish" if name == "docker" else "sh")
    found = used(text, cwd, environment, hub, "fish" if name == "docker" else "bash")

    for cache in ("hf-hub", "hf-datasets", "map", "torch"):
        assert Path(found[cache]).resolve().is_relative_to((root / data).resolve()), (cache, found[cache])
    assert Path(found["inductor"]).is_relative_to(root / small)
    weights_there = list((root / data).resolve().rglob("weights.pt"))
    assert len(weights_there) == 2, "one of the hub's, one of torch.hub's"
    assert list(cwd.iterdir()) == [], "nothing in the project, under whatever name"
    if data != "root":
        large = [p for p in (root / "root").resolve().rglob("*") if p.is_file() and p.stat().st_size > 100_000]
        assert large == []


def test_evaluated_twice_the_second_time_prints_nothing_to_set(tmp_path: Path, volume: Volume, hub: Hub) -> None:
    more, sizes, *_ = PLATFORMS["runpod"]
    root = machine(tmp_path, volume, sizes)
    environment = values(root, hub, **more)
    text = printed(root, tmp_path, environment)
    done = subprocess.run(
        ["sh", "-c", 'eval "$1"; exec "$2" -c "import json, os; print(json.dumps(dict(os.environ)))"', "sh", text,
         sys.executable], env=environment, capture_output=True, text=True,
    )  # fmt: skip
    after = json.loads(done.stdout)
    assert after["HF_HUB_CACHE"].startswith(str(root / "workspace"))
    again = printed(root, tmp_path, after)
    assert [line for line in again.splitlines() if not line.startswith("#")] == []


@pytest.mark.parametrize(("variable", "value"), [("HF_HOME", "$HOME/x"), ("HF_DATASETS_CACHE", "$HOME/x")])
def test_a_quoted_home_splits_the_caches_and_env_mends_it(
    tmp_path: Path, volume: Volume, hub: Hub, variable: str, value: str
) -> None:
    root = machine(tmp_path, volume, {"root": "180m"})
    home, cwd = root / "root", tmp_path / "project"
    cwd.mkdir()
    environment = values(root, hub, **{variable: value})
    trap = used("", cwd, environment, hub)
    assert trap["hf-datasets"].startswith(f"{cwd}/$HOME/x"), "the trap: a folder named $HOME in the project"
    assert Path(trap["hf-hub"]).is_relative_to(home.resolve())

    checked = check(cwd, environment)
    assert checked.returncode == 3
    assert f"fix: export {variable}={home}/x" in checked.stdout
    assert f"{cwd}/$HOME/x" in checked.stdout, "where the files really are is said"

    shutil.rmtree(cwd / "$HOME")
    mended = used(printed(root, cwd, environment), cwd, environment, hub)
    assert mended["hf-datasets"].startswith(f"{home}/x")
    assert list(cwd.iterdir()) == []


def test_a_quoted_tilde_is_a_folder_of_that_name_where_the_owner_does_not_expand_it(
    tmp_path: Path, volume: Volume, hub: Hub
) -> None:
    root = machine(tmp_path, volume, {"root": "180m"})
    home, cwd = root / "root", tmp_path / "project"
    cwd.mkdir()
    environment = values(root, hub, TORCHINDUCTOR_CACHE_DIR="~/x", HF_HOME="~/y")
    trap = used("", cwd, environment, hub)
    assert trap["inductor"] == f"{cwd}/~/x" and (cwd / "~").is_dir(), "the trap"
    # huggingface_hub and datasets do expand ~ (datasets 5.2.0, when it builds): no complaint about that one.
    assert trap["hf-hub"].startswith(f"{home.resolve()}/y") and trap["hf-datasets"].startswith(f"{home}/y")

    checked = check(cwd, environment)
    assert checked.returncode == 3
    assert f"fix: export TORCHINDUCTOR_CACHE_DIR={home}/x" in checked.stdout
    assert "export HF_HOME" not in checked.stdout

    os.rmdir(cwd / "~/x")
    os.rmdir(cwd / "~")
    mended = used(printed(root, cwd, environment), cwd, environment, hub)
    assert mended["inductor"] == f"{home}/x" and list(cwd.iterdir()) == []


def check(cwd: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "outlast", "env", "--check", "--python", sys.executable],
        env=environment, cwd=cwd, capture_output=True, text=True,
    )  # fmt: skip


def test_asked_deep_the_real_libraries_agree_with_the_catalogue(tmp_path: Path, volume: Volume, hub: Hub) -> None:
    more, sizes, *_ = PLATFORMS["runpod"]
    root = machine(tmp_path, volume, sizes)
    environment = values(root, hub, HF_HOME=str(root / "workspace/hf"), TORCH_HOME=str(root / "workspace/t"), **more)
    used("", tmp_path, environment, hub)
    done = subprocess.run(
        [sys.executable, "-m", "outlast", "env", "--check", "--deep", "--shell", "json", "--python", sys.executable],
        env=environment, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert (done.returncode, report["findings"]) == (0, [])
    rows = {row["cache"]: row for row in report["caches"]}
    for cache in ("hf-hub", "hf-datasets", "torch"):
        assert rows[cache]["effective"] == rows[cache]["path"]
        assert rows[cache]["used_bytes"] > 0 and rows[cache]["newest"] > 0
