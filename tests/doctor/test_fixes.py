"""Each trap, made for real: doctor names it, and the line that it prints mends it, run in a shell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from outlast.doctor import CHECKS, Finding, Status, diagnose, gather
from outlast.host import Budget
from tests.builders import MODEL, MOMENTS, fill, make_vault, undeletable


class Machine:
    """A home folder, an environment and a run's folder of the test's own."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        self.root, self.stack = root, stack
        self.home, self.run = root / "home", root / "run"
        self.home.mkdir()
        self.run.mkdir()
        self.budgets: list[Budget] = []
        self.python = sys.executable
        self.deep = False
        (root / "bin").mkdir()
        self.program("outlast", f'exec {sys.executable} -m outlast "$@"')
        (root / "tmp").mkdir()
        self.environment = {
            "HOME": str(self.home),
            "TMPDIR": str(root / "tmp"),
            "PATH": f"{root}/bin:{os.environ['PATH']}",
            "USER": "me",
        }

    def program(self, name: str, body: str) -> None:
        path = self.root / "bin" / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    @property
    def hub(self) -> Path:
        return self.home / ".cache" / "huggingface" / "hub"

    def findings(self, check: str) -> list[Finding]:
        facts = gather(
            self.run, self.budgets, environment=self.environment, python=self.python, deep=self.deep, shm=self.root
        )
        wrong = (Status.WARNING, Status.ERROR)
        return [found for found in diagnose(facts) if found.id == check and found.status in wrong]

    def apply(self, fix: str) -> int:
        """Run a fix as a user does, and keep what it exports."""
        done = subprocess.run(
            ["sh", "-c", f"{fix}\ncode=$?; env -0 > {self.root}/env; exit $code"],
            env=self.environment, cwd=self.run, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        pairs = (self.root / "env").read_text().split("\0")
        self.environment = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
        assert "not found" not in done.stderr and "Usage" not in done.stderr, done.stderr
        return done.returncode


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    with ExitStack() as stack:
        made = Machine(tmp_path, stack)
        monkeypatch.setenv("HOME", str(made.home))
        yield made


def repo(hub: Path, name: str = "models--a--b") -> Path:
    """A repository with one file, as the hub lays it out."""
    folder = hub / name
    (folder / "blobs").mkdir(parents=True)
    (folder / "snapshots" / "1").mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("1")
    (folder / "blobs" / "x").write_bytes(b"weights")
    (folder / "snapshots" / "1" / "w").symlink_to("../../blobs/x")
    return folder


def old(path: Path, seconds: float = 7200) -> None:
    moment = path.stat().st_mtime - seconds
    os.utime(path, (moment, moment))


# A scenario for each check: makes the trap.


def not_writable(m: Machine) -> None:
    m.stack.enter_context(undeletable(m.run))


def disk_low(m: Machine) -> None:
    (m.run / "mine").write_bytes(bytes(990_000))
    m.budgets = [Budget(m.run, 10**6)]


def tmp_is_ram(m: Machine) -> None:
    folder = tempfile.mkdtemp(dir="/dev/shm")
    m.stack.callback(shutil.rmtree, folder)
    m.environment["TMPDIR"] = folder


def hf_home_literal(m: Machine) -> None:
    m.environment["HF_DATASETS_CACHE"] = "$HOME/data"


def two_caches_after_a_quoted_home(m: Machine) -> None:
    m.environment["HF_HOME"] = "${HOME}/x"


def split_caches(m: Machine) -> None:
    repo(m.hub)
    m.environment["HF_HUB_CACHE"] = str(m.root / "new" / "hub")


def split_caches_both_filled(m: Machine) -> None:
    split_caches(m)
    repo(m.root / "new" / "hub", "models--c--d")


def ignored_variable(m: Machine) -> None:
    m.environment["TRANSFORMERS_CACHE"] = "~/models"


def hf_transfer_ignored(m: Machine) -> None:
    m.environment["HF_HUB_ENABLE_HF_TRANSFER"] = "1"


def xet_disabled(m: Machine) -> None:
    m.environment["HF_HUB_DISABLE_XET"] = "1"


def cache_missing(m: Machine) -> None:
    m.environment["TORCH_HOME"] = str(m.root / "volume that is not mounted" / "torch")


def cache_not_writable(m: Machine) -> None:
    m.hub.mkdir(parents=True)
    m.stack.enter_context(undeletable(m.hub))


def hf_broken_repo(m: Machine) -> None:
    (repo(m.hub) / "snapshots" / "1" / "gone").symlink_to("../../blobs/gone")


def hf_partial_downloads(m: Machine) -> None:
    path = repo(m.hub) / "blobs" / "abc.1f2e3d4c.incomplete"
    path.write_bytes(bytes(50_000))
    old(path)
    # Two days from now: clean looks at the time of the last change too, which nobody can set back.
    later = "import sys, time; now = time.time; time.time = lambda: now() + 172800; "
    later += "from outlast.cli import main; sys.exit(main())"
    m.program("outlast", f"exec {sys.executable} -c '{later}' \"$@\"")


def stale_torch_lock(m: Machine) -> None:
    path = m.home / ".cache" / "torch_extensions" / "py311_cu124" / "fused_adam" / "lock"
    path.parent.mkdir(parents=True)
    path.touch()
    old(path)


def token_in_cache_you_clean(m: Machine) -> None:
    m.environment["HF_HOME"] = str(m.home / "scratch" / "hf")  # the folder for temporary files is above it
    (m.home / "scratch" / "hf").mkdir(parents=True)
    (m.home / "scratch" / "hf" / "token").write_text("hf_secret")
    m.environment["TMPDIR"] = str(m.home / "scratch")


def wandb_unsynced(m: Machine) -> None:
    folder = m.run / "wandb" / "offline-run-20261101_120000-abc"
    folder.mkdir(parents=True)
    (folder / "run-abc.wandb").touch()
    # The real `wandb sync PATH...` was tried by hand: it needs a server. This one leaves what that one leaves.
    m.program("wandb", '[ "$1" = sync ] && shift && for run; do touch "$run/run-abc.wandb.synced"; done')


def gpu_precision(m: Machine) -> None:
    m.environment["ACCELERATE_MIXED_PRECISION"] = "bf16"
    m.stack.enter_context(pytest.MonkeyPatch.context()).setattr(
        sys.modules["outlast.doctor.gather"], "DriverQuestion", _T4
    )


class _T4:
    def answer(self, seconds: float) -> object:
        from outlast.doctor.facts import Driver, Gpu

        return Driver((Gpu("Tesla T4", (7, 5), 16 << 30),), "570.1")


def attention(m: Machine) -> None:
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", m.root / "venv"], check=True
    )
    m.python = str(m.root / "venv" / "bin" / "python")
    site = next((m.root / "venv").glob("lib/python3*/site-packages"))
    (site / "flash_attn.py").write_text("raise ImportError('undefined symbol: _ZN3c105ErrorC2E')")
    info = site / "flash_attn-2.7.4.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: flash-attn\nVersion: 2.7.4\n")
    (info / "RECORD").write_text(
        "flash_attn.py,,\nflash_attn-2.7.4.dist-info/METADATA,,\nflash_attn-2.7.4.dist-info/RECORD,,\n"
    )
    m.deep = True


def unsealed_checkpoint(m: Machine) -> None:
    (m.run / "checkpoint-40").mkdir()


def damaged_checkpoint(m: Machine) -> None:
    make_vault(m.run, [10])
    (m.run / "checkpoint-10" / MODEL).unlink()


def cut_checkpoint(m: Machine) -> None:
    make_vault(m.run, [10])
    os.truncate(m.run / "checkpoint-10" / MOMENTS, 1)


def unfinished_deletion(m: Machine) -> None:
    stuck = make_vault(m.run, [10]).own / "trash" / "checkpoint-5.0a"
    fill(stuck, 5)
    if os.geteuid():
        stuck.chmod(0o555)
    else:
        subprocess.run(["chattr", "+i", stuck], check=True)
        m.stack.callback(subprocess.run, ["chattr", "-i", stuck], stderr=subprocess.DEVNULL)


def next_save_does_not_fit(m: Machine) -> None:
    make_vault(m.run, [10, 20], budget=3_300_000, model=400_000, moments=800_000)
    m.budgets = [Budget(m.run, 3_300_000)]


SCENARIOS: tuple[tuple[str, Callable[[Machine], None]], ...] = (
    ("not-writable", not_writable),
    ("tmp-is-ram", tmp_is_ram),
    ("hf-home-literal", hf_home_literal),
    ("hf-home-literal", two_caches_after_a_quoted_home),
    ("split-caches", split_caches),
    ("split-caches", split_caches_both_filled),
    ("ignored-variable", ignored_variable),
    ("hf-transfer-ignored", hf_transfer_ignored),
    ("xet-disabled", xet_disabled),
    ("cache-missing", cache_missing),
    ("cache-not-writable", cache_not_writable),
    ("hf-broken-repo", hf_broken_repo),
    ("hf-partial-downloads", hf_partial_downloads),
    ("stale-torch-lock", stale_torch_lock),
    ("token-in-cache-you-clean", token_in_cache_you_clean),
    ("wandb-unsynced", wandb_unsynced),
    ("gpu-precision", gpu_precision),
    ("attention", attention),
    ("unsealed-checkpoint", unsealed_checkpoint),
    ("damaged-checkpoint", damaged_checkpoint),
    ("unfinished-deletion", unfinished_deletion),
    ("next-save-does-not-fit", next_save_does_not_fit),
)
SHOWN = (("disk-low", disk_low, 0), ("cut-checkpoint", cut_checkpoint, 3))
"""Whose fix shows what to choose from, and with which exit code; the choice is the user's."""
ELSEWHERE = {
    "inodes-low": "tests/torture/test_doctor.py: a volume with few inodes",
    "shm-small": "tests/torture/test_doctor.py: a mount of 64 MB",
    "network-volume-without-budget": "test_checks.py: no network volume of petabytes is to be had",
    "venv-on-network": "tests/torture/test_doctor.py: makes an environment, which takes seconds",
    "cache-declared-effective": "test_checks.py",
    "gpu-driver": "test_checks.py: no broken driver is to be had; its line asks nvidia-smi",
}


@pytest.mark.parametrize("check, make", SCENARIOS, ids=lambda one: getattr(one, "__name__", one))
def test_the_printed_line_mends_what_was_found(machine: Machine, check: str, make: Callable[[Machine], None]) -> None:
    assert machine.findings(check) == [], "a machine in order"
    make(machine)
    (found,) = {finding.fix: finding for finding in machine.findings(check)}.values()
    assert found.fix is not None and "\n" not in found.fix and "\n" not in found.evidence
    assert machine.apply(found.fix) == 0
    assert machine.findings(check) == []


@pytest.mark.parametrize("check, make, code", SHOWN, ids=lambda one: getattr(one, "__name__", one))
def test_a_line_that_only_shows_runs(machine: Machine, check: str, make: Callable[[Machine], None], code: int) -> None:
    make(machine)
    for finding in machine.findings(check):
        assert finding.fix is not None and machine.apply(finding.fix) == code


def test_every_check_is_tried_here_or_elsewhere() -> None:
    tried = {check for check, _ in SCENARIOS} | {check for check, *_ in SHOWN}
    assert tried | set(ELSEWHERE) == {check.id for check in CHECKS} and not tried & set(ELSEWHERE)


def test_the_hub_sees_the_repository_again_after_the_fix(machine: Machine) -> None:
    from huggingface_hub import scan_cache_dir

    hf_broken_repo(machine)
    assert len(scan_cache_dir(machine.hub).repos) == 0, "the trap"
    (found,) = machine.findings("hf-broken-repo")
    machine.apply(str(found.fix))
    assert [one.repo_id for one in scan_cache_dir(machine.hub).repos] == ["a/b"]


def test_the_hub_finds_the_token_where_the_fix_put_it(machine: Machine) -> None:
    token_in_cache_you_clean(machine)
    (found,) = machine.findings("token-in-cache-you-clean")
    machine.apply(str(found.fix))
    code = "import huggingface_hub; print(huggingface_hub.get_token())"
    done = subprocess.run([sys.executable, "-c", code], env=machine.environment, capture_output=True, text=True)
    assert done.stdout.strip() == "hf_secret"


def test_a_build_that_goes_on_keeps_its_lock(machine: Machine) -> None:
    stale_torch_lock(machine)
    (found,) = machine.findings("stale-torch-lock")
    with Path(str(found.path)).open():
        assert machine.findings("stale-torch-lock") == []


def test_a_download_that_goes_on_is_not_dead(machine: Machine) -> None:
    hf_partial_downloads(machine)
    with next(machine.hub.rglob("*.incomplete")).open():
        assert machine.findings("hf-partial-downloads") == []


def test_files_of_a_bounded_look_are_not_more_than_it_saw(machine: Machine) -> None:
    from outlast.doctor import looking

    for number in range(5):
        repo(machine.hub, f"models--a--{number}")
    ticks = iter(range(100))
    found = looking.hub(machine.hub, 3, clock=lambda: next(ticks))
    assert 0 < found.repos < found.all_repos == 5
