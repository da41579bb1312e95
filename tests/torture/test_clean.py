"""Promises 3 and 7 about caches: only what is catalogued and unused goes, and what is said to be freed is freed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from outlast import journal
from outlast.checkpoints import Vault
from tests.builders import names
from tests.caches.builders import Hub

from .conftest import child_environment, share

Volume = Callable[..., Path]
BLOCK = 4096
DIGEST = "ef" * 32
LATER = """
import sys, time
now = time.time
time.time = lambda: now() + 2 * 86400
from outlast.cli import main
sys.exit(main(sys.argv[1:]))
"""
"""``outlast`` two days from now: the kernel keeps the time of a file's last change, and nobody can set that back."""


def clean(home: Path, *words: object, **variables: object) -> dict[str, Any]:
    """``outlast clean`` as a user of that home folder calls it; its facts."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OUTLAST", "HF_", "XDG_"))}
    # The journal elsewhere: its own blocks would be part of what is measured.
    environment = {**kept, "HOME": str(home), "XDG_STATE_HOME": "/tmp/outlast-test-state", **variables}
    command = [sys.executable, "-c", LATER, "clean", *map(str, words), "--json"]
    done = subprocess.run(
        command, env={k: str(v) for k, v in environment.items()}, cwd="/", capture_output=True, text=True, timeout=300
    )
    assert done.returncode in (0, 3) and "Traceback" not in done.stderr, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def free(place: Path) -> int:
    figures = os.statvfs(place)
    return figures.f_bavail * figures.f_frsize


@contextmanager
def child(code: str, *arguments: object) -> Iterator[None]:
    """Another process, which has done what it should when the block begins, and is killed at its end."""
    with subprocess.Popen(
        [sys.executable, "-c", f"{code}\nprint('ready', flush=True)\ninput()", *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout and process.stdout.readline() == "ready\n"
        yield
        process.kill()


DOWNLOAD = """
import fcntl, sys
lock = open(sys.argv[1], "a"); fcntl.flock(lock, fcntl.LOCK_EX)
part = open(sys.argv[2], "ab")
"""
MAPPED = """
import sys
from safetensors import safe_open
file = safe_open(sys.argv[1], framework="np"); tensor = file.get_tensor("w")
"""


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_download_under_way_survives_and_what_a_dead_one_left_is_counted_in_blocks(volume: Volume, kind: str) -> None:
    """Trap 3: ``hf cache prune`` unlinks a live download, and says that a sparse leftover of 40 GB freed 40 GB."""
    home = volume("64m", kind=kind)
    hub = Hub(home / ".cache/huggingface/hub")
    hub.model()
    live = hub.partial("models--org--model", bytes(3 << 20), etag="live")
    dead = hub.partial("models--org--model", bytes(1 << 20), etag="dead")
    os.truncate(dead, 40 << 30 if kind == "tmpfs" else 15 << 30)
    lock = hub.lock("models--org--model", "live")
    with child(DOWNLOAD, lock, live):
        before = free(home)
        facts = clean(home, "--yes")
        grown = free(home) - before
    assert live.exists() and not dead.exists()
    assert abs(facts["freed_bytes"] - grown) <= BLOCK and facts["predicted_bytes"] == facts["freed_bytes"] < 2 << 20


def test_a_broken_repository_and_orphans_are_reclaimed_and_said_truly(volume: Volume) -> None:
    """Trap 4: one dangling link hides a repository from ``hf cache``; orphan blobs are invisible to it."""
    home = volume("64m", kind="ext4")
    hub = Hub(home / ".cache/huggingface/hub")
    hub.model("models--org--good", 4 << 20)
    (hub.root / "models--org--good/blobs/orphan").write_bytes(bytes(3 << 20))
    broken = hub.model("models--org--broken", 8 << 20)
    (broken / "snapshots/r1/gone.json").symlink_to("../../blobs/gone")
    os.sync()
    assert clean(home)["predicted_bytes"] == 3 << 20, "without --up-to nothing that must be downloaded goes"
    before = free(home)
    facts = clean(home, "--yes", "--free", "9MB")
    os.sync()
    grown = free(home) - before
    assert not broken.exists() and (hub.root / "models--org--good/snapshots/r1/model.safetensors").exists()
    assert abs(facts["freed_bytes"] - grown) <= len(facts["items"]) * BLOCK
    assert facts["predicted_bytes"] == facts["freed_bytes"] > 11 << 20


def test_removing_a_repository_frees_what_it_alone_had_in_the_shared_store(volume: Volume) -> None:
    """Trap 5: ``rm -rf`` of a repository frees nothing where its blobs are in the shared store."""
    home = volume("64m")
    hub = Hub(home / ".cache/huggingface/hub")
    own = hub.share(hub.model("models--org--one", 8 << 20) / "blobs/etag-r1-model.safetensors", "aa" * 32)
    both = hub.share(hub.model("models--org--two", 4 << 20) / "blobs/etag-r1-model.safetensors", DIGEST)
    hub.share(hub.file("models--org--one", "r1", "base.bin", bytes(4 << 20)), DIGEST)
    before = free(home)
    facts = clean(home, "--yes", "--up-to", "download", "--keep", "models--org--two")
    grown = free(home) - before
    assert not own.exists() and both.exists() and not (hub.root / "models--org--one").exists()
    assert facts["freed_bytes"] == facts["predicted_bytes"] and abs(facts["freed_bytes"] - grown) <= 4 * BLOCK
    assert facts["freed_bytes"] > 8 << 20


def test_a_model_that_is_mapped_and_closed_is_in_use(volume: Volume) -> None:
    """Trap 9: safetensors maps a file and closes it; no descriptor shows that it is used."""
    import numpy
    from safetensors.numpy import save_file

    home = volume("64m", kind="ext4")
    hub = Hub(home / ".cache/huggingface/hub")
    blob = hub.model() / "blobs/etag-r1-model.safetensors"
    save_file({"w": numpy.zeros(1 << 18, dtype=numpy.float32)}, blob)
    with child(MAPPED, blob):
        facts = clean(home, "--yes", "--up-to", "download")
    assert blob.exists() and facts["freed_bytes"] == 0
    assert "in use" in facts["items"][0]["reason"]


def test_credentials_and_results_in_the_cache_folder_are_never_touched(volume: Volume) -> None:
    """Trap 11: ``$HF_HOME`` holds the login token, accelerate's settings and trackio's experiments."""
    home = volume("64m")
    precious = [
        "huggingface/token", "huggingface/stored_tokens", "huggingface/accelerate/default_config.yaml",
        "huggingface/trackio/project.db", "huggingface/xet/staging/upload",
    ]  # fmt: skip
    for name in precious:
        path = home / ".cache" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("precious")
    Hub(home / ".cache/huggingface/hub").model()
    clean(home, "--yes", "--up-to", "download", "--free", "1TB")
    assert [name for name in precious if not (home / ".cache" / name).exists()] == []
    assert list((home / ".cache/huggingface/hub").iterdir()) == []


def test_another_users_file_keeps_its_repository(volume: Volume) -> None:
    """Promise 7: never another user's file, also when root cleans."""
    home = volume("64m")
    hub = Hub(home / ".cache/huggingface/hub")
    blob = hub.model() / "blobs/etag-r1-model.safetensors"
    os.chown(blob, 12345, 12345)
    facts = clean(home, "--yes", "--up-to", "download")
    assert blob.exists() and "another user" in facts["items"][0]["reason"]


def test_a_malicious_tree_does_no_harm_and_is_reported_on_one_line_each(volume: Volume, tmp_path: Path) -> None:
    """Promise 7: links out, names with newlines and escapes, a FIFO, a folder without permission, a deep tree."""
    home = volume("256m")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("mine")
    cache = home / ".cache/pip/http-v2"
    for name in ("a/0", "b/0", "c/0", "d/0", "e/0"):
        (cache / name).mkdir(parents=True)
    (cache / "a/0/link").symlink_to(outside)
    (cache / "b/0/new\nline \x1b[31mred\x1b[0m").write_bytes(bytes(5000))
    os.mkfifo(cache / "c/0/pipe")
    (cache / "e/0/closed").mkdir(mode=0o000)
    (cache / "f").symlink_to(outside)
    (cache / "0").symlink_to("/")
    many = cache / "1/0"
    many.mkdir(parents=True)
    for number in range(share(100_000)):
        (many / str(number)).touch()
    hub = Hub(home / ".cache/huggingface/hub")
    hub.model("models--evil\n\x1b[31m--x")
    (hub.root / "models--out--side").symlink_to(outside)
    (hub.root / "models--org--inner/blobs").mkdir(parents=True)
    (hub.root / "models--org--inner/snapshots").symlink_to(outside)
    deep = cache / "d/0"
    while len(str(deep)) < 4000:  # deeper than Python recurses, as deep as a path can name
        deep /= "x"
        deep.mkdir()
    command = [sys.executable, "-c", LATER, "clean", "--up-to", "download"]
    shown = subprocess.run(command, env={**os.environ, "HOME": str(home)}, cwd="/", capture_output=True, text=True)
    assert shown.returncode == 0 and shown.stderr == "" and "\x1b" not in shown.stdout
    began = time.monotonic()
    facts = clean(home, "--yes", "--up-to", "download")
    assert time.monotonic() - began < 120
    assert (outside / "precious").read_text() == "mine" and Path("/bin").exists()
    assert facts["freed_bytes"] > 0 and not many.exists() and not deep.exists()
    assert list(hub.root.glob("models--evil*")) == []


@pytest.mark.parametrize("seed", range(share(30)))
def test_a_clean_that_is_killed_at_any_moment_can_be_run_again(volume: Volume, seed: int) -> None:
    """Promise 3: interrupted anywhere it ends in the same place, and what stays is whole."""
    home = volume("64m")
    hub = Hub(home / ".cache/huggingface/hub")
    for number in range(40):
        hub.model(f"models--org--{number}", 50_000)
    keep = hub.model("models--keep--me", 50_000)
    words = ["clean", "--yes", "--up-to", "download", "--keep", "models--keep--me"]
    with subprocess.Popen(
        [sys.executable, "-c", LATER, *words], env={**os.environ, "HOME": str(home)}, cwd="/",
        stdout=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 60
        # The first half of the moments by progress, since start-up takes most of the time.
        while len(list(hub.root.glob("models--org--*"))) > 39 - seed and time.monotonic() < deadline:
            pass
        process.send_signal(signal.SIGKILL)
    clean(home, *words[1:])
    assert sorted(path.name for path in hub.root.iterdir()) == ["models--keep--me"]
    assert (keep / "snapshots/r1/model.safetensors").read_bytes() == bytes(50_000)


def test_a_save_that_does_not_fit_sweeps_dead_downloads_before_it_touches_history(
    volume: Volume, tmp_path: Path
) -> None:
    """The ladder's third rung, in a real run: what no tool can use goes first, a live download stays."""
    place = volume("16m", kind="ext4")
    hub = Hub(place / ".cache/huggingface/hub")
    dead = hub.partial("models--org--model", bytes(9 << 20), etag="dead")
    live = hub.partial("models--org--model", bytes(1 << 20), etag="live")
    hub.model(size=1 << 20)
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, time\n"
        "now = time.time\n"
        "time.time = lambda: now() + 2 * 86400\n"  # what lies in the cache is old
        "import torch, outlast\n"
        "model = torch.nn.Linear(500, 500)\n"
        "run = outlast.Run(sys.argv[1], model=model, every=1, keep=outlast.Keep(last=3))\n"
        "for _ in run.steps(range(6), total=6):\n"
        "    run.checkpoint()\n"
    )
    environment = {**child_environment(), "HOME": str(place)}
    with child(DOWNLOAD, hub.lock("models--org--model", "live"), live):
        done = subprocess.run(
            [sys.executable, "-m", "outlast", "run", "--dir", tmp_path, "--", sys.executable, script, place / "runs"],
            env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not dead.exists() and live.exists() and (hub.root / "models--org--model/snapshots/r1").exists()
    [run] = journal.runs(tmp_path)
    rungs = [(e.get("number"), e.get("name")) for e in journal.read(tmp_path, run) if e.name == "rung"]
    assert rungs == [(3, "hf-hub: partial")]
    assert len(names(Vault(place / "runs"))) == 3


def test_a_folder_that_is_mounted_from_the_same_volume_is_not_emptied(volume: Volume, tmp_path: Path) -> None:
    """Promise 7: a bind mount has the device number of its surroundings; containers are made of them."""
    home = volume("64m", kind="ext4")
    precious = home / "precious"
    precious.mkdir()
    (precious / "thesis").write_text("mine")
    hub = Hub(home / ".cache/huggingface/hub")
    inside = [hub.model() / "deep", home / "outputs" / "deep"]
    for place in inside:
        place.mkdir(parents=True)
        subprocess.run(["mount", "--bind", precious, place], check=True)
    try:
        facts = clean(home, "--yes", "--up-to", "download")
        named = clean(home, "--yes", home / "outputs")
    finally:
        for place in inside:
            subprocess.run(["umount", place], check=True)
    assert (precious / "thesis").read_text() == "mine"
    assert all("another mount" in shown["items"][0]["reason"] for shown in (facts, named))


def test_a_build_of_datasets_that_goes_on_is_left_alone(volume: Volume) -> None:
    """Promise 7: a builder that still downloads has an empty folder, and holds its lock."""
    home = volume("64m")
    root = home / ".cache/huggingface/datasets"
    (root / "org___c/default/0.0.0/0123456789abcdef.incomplete").mkdir(parents=True)
    lock = root / "_root_.cache_org___c_default_0.0.0.lock"
    lock.touch()
    with child("import fcntl, sys\nlock = open(sys.argv[1], 'a'); fcntl.flock(lock, fcntl.LOCK_EX)", lock):
        assert clean(home, "--yes")["freed_bytes"] == 0
    clean(home, "--yes")
    assert list(root.glob("org___c/default/0.0.0/*")) == []
