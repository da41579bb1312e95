"""Doctor's promise: what it names is so, the line that it prints mends it, and nothing that it looks at can hurt it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from outlast.doctor import Finding, Status, diagnose, gather
from outlast.doctor.facts import Facts, Interpreter

from .conftest import child_environment

Volume = Callable[..., Path]


def _wrong(check: str, home: Path, **more: object) -> list[Finding]:
    answers = diagnose(gather(home, environment={"HOME": str(home)}, python=sys.executable, **more))  # type: ignore[arg-type]
    return [one for one in answers if one.id == check and one.status in (Status.WARNING, Status.ERROR)]


def _run(fix: str | None) -> str:
    assert fix is not None
    return subprocess.run(["sh", "-c", fix], check=True, capture_output=True, text=True).stdout


def test_dockers_small_shared_memory_is_found_and_made_larger(volume: Volume, tmp_path: Path) -> None:
    """Attacks: research/storage.md, "/dev/shm: docker default 64 MB"."""
    shm = volume("64m")
    (found,) = _wrong("shm-small", tmp_path, shm=shm)
    _run(found.fix)
    assert _wrong("shm-small", tmp_path, shm=shm) == []


def test_a_machine_without_shared_memory_gets_one(tmp_path: Path) -> None:
    """Attacks: a minimal container; in a mount namespace of its own."""
    doctor = f"{sys.executable} -m outlast doctor --dir {tmp_path} --python {sys.executable} --json"
    script = f"""
        mount -t tmpfs dev /dev && mknod -m 666 /dev/null c 1 3
        {doctor} > {tmp_path}/before
        sh -c "$({sys.executable} -c 'import json, sys; print(next(a["fix"] for a in json.load(open(sys.argv[1]))
if a["id"] == "shm-small"))' {tmp_path}/before)"
        {doctor} > {tmp_path}/after; true
    """
    subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        check=True, env=child_environment(HOME=str(tmp_path)), timeout=60,
    )  # fmt: skip
    status = {}
    for name in ("before", "after"):
        answers = json.loads((tmp_path / name).read_text())
        status[name] = next(one["status"] for one in answers if one["id"] == "shm-small")
    assert status == {"before": "warning", "after": "ok"}


def test_a_volume_that_runs_out_of_files_is_found_and_the_folder_that_has_them_is_shown(tmp_path: Path) -> None:
    """Attacks: "no space left on device" with an empty disk: a cache of many small files."""
    place = tmp_path / "few"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,nr_inodes=3000", "outlast-test", place], check=True)
    try:
        assert _wrong("inodes-low", place) == []
        (place / "triton").mkdir()
        for number in range(2800):
            (place / "triton" / str(number)).touch()
        found = _wrong("inodes-low", place)[0]
        assert found.status is Status.ERROR and "% of 3,000 are used" in found.evidence
        assert _run(found.fix).splitlines()[-2].endswith(f"{place}/triton")
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_a_volume_that_became_read_only_is_found_and_remounted(volume: Volume) -> None:
    """Attacks: the kernel remounts a faulty disk read-only, and every save fails."""
    place = volume("8m")
    subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    found = _wrong("not-writable", place)[0]
    assert "mounted read-only" in found.evidence
    _run(found.fix)
    assert _wrong("not-writable", place) == []


def test_a_user_whose_cache_lost_its_mode_gets_it_back() -> None:
    """Attacks: kohya_ss#1143 and its like; as a user who is not root."""
    # Not below tmp_path, whose parents are closed to everybody else.
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        home = Path(name) / "home"
        hub = home / ".cache" / "huggingface" / "hub"
        hub.mkdir(parents=True)
        for folder in (Path(name), *Path(name).rglob("*")):
            os.chown(folder, 65534, 65534)
        hub.chmod(0o555)
        _wrong("cache-not-writable", home)  # what is imported on the way is root's to read
        assert json.loads(_as_nobody(lambda: _mended(home))) == [1, True, 0]


def _mended(home: Path) -> str:
    def found() -> list[Finding]:
        # Caches below /tmp are the machine's: another user may have left them.
        return [one for one in _wrong("cache-not-writable", home) if one.path and home in one.path.parents]

    before = found()
    subprocess.run(["sh", "-c", str(before[0].fix)], check=False)
    after = found()
    return json.dumps([len(before), before[0].mend is not None, len(after)])


def _as_nobody(call: Callable[[], str]) -> str:
    """What a call says in a process of another user. That process must not outlive it: it is a copy of pytest's."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.setgid(65534)
            os.setuid(65534)
            os.write(writer, call().encode())
        except BaseException:
            os.write(writer, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text


def test_an_environment_on_a_network_volume_is_rebuilt_on_a_local_one(tmp_path: Path) -> None:
    """Attacks: the longest line that doctor prints."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "far"], check=True)
    trains = Interpreter(tmp_path / "far" / "bin" / "python", tmp_path / "far", "/far (nfs4, server:/far)")
    facts = Facts(tmp_path, {}, temporary=tmp_path / "near", interpreter=trains)
    (tmp_path / "near").mkdir()
    (found,) = [one for one in diagnose(facts) if one.id == "venv-on-network"]
    _run(found.fix)
    seen = gather(tmp_path, environment={}, python=str(tmp_path / "near" / "venv" / "bin" / "python")).interpreter
    assert seen is not None and seen.packages is not None and "pip" in seen.packages
    mended = diagnose(replace(facts, interpreter=seen))
    assert [one.status for one in mended if one.id == "venv-on-network"] == [Status.OK]


def test_a_malicious_cache_neither_hurts_nor_stops_it(tmp_path: Path) -> None:
    """Attacks: names with newlines and escapes, a pipe for a lock, loops of links, a closed folder, links out."""
    hub = tmp_path / ".cache" / "huggingface" / "hub"
    nasty = hub / "models--a\n--\x1b[31mb"
    (nasty / "snapshots" / "1").mkdir(parents=True)
    (nasty / "snapshots" / "1" / "w\x1b]0;owned\x07").symlink_to("nothing")
    (nasty / "snapshots" / "loop").symlink_to(nasty / "snapshots")
    (nasty / "blobs").symlink_to("/proc")
    os.mkfifo(hub / "models--pipe")
    extensions = tmp_path / ".cache" / "torch_extensions"
    for name, make in (("fifo", os.mkfifo), ("link", lambda path: path.symlink_to("/dev/zero"))):
        (extensions / name).mkdir(parents=True)
        make(extensions / name / "lock")  # type: ignore[no-untyped-call]
    (tmp_path / "wandb" / "offline-run-\n1").mkdir(parents=True)
    os.mkfifo(tmp_path / "wandb" / "offline-run-\n1" / "x.wandb")
    before = sorted(os.walk(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "outlast", "doctor", "--dir", tmp_path, "--python", sys.executable],
        capture_output=True, text=True, env=child_environment(HOME=str(tmp_path)), timeout=20,
    )  # fmt: skip
    assert done.returncode in (1, 2) and done.stderr == "", done.stderr
    assert "hf-broken-repo" in done.stdout and "\x1b" not in done.stdout and "\x07" not in done.stdout
    assert sorted(os.walk(tmp_path)) == before


def test_ten_thousand_links_take_no_longer_than_a_second(tmp_path: Path) -> None:
    """Attacks: the look at the hub's cache is bounded; what was not seen is said."""
    hub = tmp_path / ".cache" / "huggingface" / "hub"
    for number in range(200):
        folder = hub / f"models--a--{number}" / "snapshots" / "1"
        folder.mkdir(parents=True)
        for link in range(50):
            (folder / str(link)).symlink_to("/")
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "outlast", "doctor", "--dir", tmp_path, "--python", sys.executable, "--json"],
        capture_output=True, text=True, env=child_environment(HOME=str(tmp_path)), timeout=20,
    )  # fmt: skip
    assert time.monotonic() - begun < 1.5
    found = next(one for one in json.loads(done.stdout) if one["id"] == "hf-broken-repo")
    assert found["status"] in ("ok", "skipped")
    assert found["status"] == "ok" or " of 200 repositories" in found["evidence"]


@pytest.mark.parametrize("words", [("--deep",), ()])
def test_the_real_machine_is_judged_without_a_traceback(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Attacks: everything at once, with the interpreter of this test and its libraries."""
    done = subprocess.run(
        [sys.executable, "-m", "outlast", "doctor", "--dir", tmp_path, "--python", sys.executable, "--json", *words],
        capture_output=True, text=True, env=child_environment(HOME=str(tmp_path)), timeout=120,
    )  # fmt: skip
    assert done.returncode in (0, 1, 2) and done.stderr == "", done.stderr
    answers = {one["id"]: one for one in json.loads(done.stdout)}
    assert (answers["cache-declared-effective"]["status"] == "skipped") == (not words), answers
