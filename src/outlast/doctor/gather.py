"""Gathering the facts: every look at the machine is in here and in `looking` and `gpu`. Changes nothing."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from outlast.caches import probe
from outlast.checkpoints import Vault, cut_files, vaults_of
from outlast.doctor import looking
from outlast.doctor.facts import Facts, Gpu, Interpreter, Probed, Saves, Volume
from outlast.doctor.gpu import DriverQuestion
from outlast.host import Budget, room
from outlast.journal import Journal

_HUB_SECONDS, _HUB_SECONDS_DEEP = 0.1, 60.0
_DRIVER_SECONDS, _DRIVER_SECONDS_DEEP = 0.3, 20.0
_FLASH_SECONDS = 60.0
_NEED_PARTS, _NEED_BYTES = 100, 256 * 1024


def gather(
    home: Path,
    budgets: Sequence[Budget] = (),
    *,
    environment: Mapping[str, str] | None = None,
    python: str | None = None,
    deep: bool = False,
    shm: Path = Path("/dev/shm"),
) -> Facts:
    """Look at the machine.

    Args:
        home: the run's folder, absolute.
        budgets: declared ones; none takes those of the environment.
        environment: variables; None takes those of the process.
        python: the interpreter that trains; None takes the one that ``python`` means.
        deep: also ask that interpreter what its libraries say, and take the time that the driver needs.
        shm: the folder for shared memory.
    """
    driver = DriverQuestion()
    values = dict(os.environ if environment is None else environment)
    # Not tempfile's choice: it raises where every such volume is full, which is what is to be told.
    temporary = Path(values.get("TMPDIR") or "/tmp")
    vaults = [Vault(root, journal=Journal(home), budgets=budgets or None) for root in vaults_of(home)]
    places = {"this folder": home, "temporary files": temporary, "home": Path(values.get("HOME") or "/")}
    places |= {f"budget {number}": budget.root for number, budget in enumerate(budgets, 1)}
    places |= {f"checkpoints {number}": vault.root for number, vault in enumerate(vaults, 1)}
    caches = looking.caches(values, home)
    volumes = [_volume(name, path, budgets) for name, path in places.items()]
    for name, cache in caches.items():
        # What is on a volume of its own counts too: a full one stops downloads and compilers.
        if cache.place.cache.role in ("data", "small") and cache.device not in {v.room.device for v in volumes}:
            volumes.append(_volume(f"cache {name}", cache.place.path, budgets))
    trains = _interpreter(python, values, deep)
    facts = Facts(
        home,
        values,
        tuple(budgets),
        tuple(volumes),
        _volume("shared memory", shm, ()) if os.path.isdir(shm) else None,
        caches,
        looking.hub(caches["hf-hub"].place.path, _HUB_SECONDS_DEEP if deep else _HUB_SECONDS),
        looking.locks(caches["torch-extensions"].place.path),
        looking.unsynced(caches["wandb"].place.path),
        token if (token := caches["hf-token"].place.path).is_file() else None,
        temporary,
        looking.precision(values, caches["hf-accelerate"].place.path),
        trains,
        saves=tuple(_saves(vault) for vault in vaults),
    )
    if deep:
        facts = _deepened(facts, values)
    found = driver.answer(_DRIVER_SECONDS_DEEP if deep else _DRIVER_SECONDS)
    # Where the driver's library is hidden from us torch may still find its GPUs.
    return facts if facts.driver.gpus and not found.gpus else replace(facts, driver=found)


def _volume(name: str, path: Path, budgets: Sequence[Budget]) -> Volume:
    found = room(path, list(budgets) or None)
    total = None
    with suppress(OSError):
        total = os.statvfs(found.path).f_files or None
    return Volume(name, path, os.path.lexists(path), found, looking.access(found.path), total)


def _interpreter(python: str | None, environment: Mapping[str, str], deep: bool) -> Interpreter | None:
    program = python or probe.find_python(environment)
    if program is None:
        return None
    # Not resolved: a venv's python is a link to another prefix.
    return looking.interpreter(Path(os.path.normpath(Path.cwd() / Path(program).expanduser())), may_start=deep)


def _deepened(facts: Facts, environment: Mapping[str, str]) -> Facts:
    python = str(facts.interpreter.python) if facts.interpreter else None
    answer = probe.ask(
        python, environment, timeout=60.0, deep=True, cwd=facts.home if os.path.isdir(facts.home) else None
    )
    problem = f"{python} did not answer: {answer.reason}" if answer.reason else None
    probed = Probed({name: Path(path) for name, path in answer.effective.items()}, problem)
    trains = facts.interpreter
    if trains and "flash-attn" in (trains.packages or {}):
        trains = replace(trains, flash_error=_import_error(trains.python, environment))
    gpus = tuple(Gpu(gpu.name, gpu.capability, gpu.total_bytes) for gpu in answer.gpus)
    return replace(facts, probed=probed, interpreter=trains, driver=replace(facts.driver, gpus=gpus))


def _import_error(python: Path, environment: Mapping[str, str]) -> str | None:
    try:
        done = subprocess.run(
            [python, "-c", "import flash_attn"], env=dict(environment), capture_output=True, text=True,
            errors="replace", stdin=subprocess.DEVNULL, timeout=_FLASH_SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    words = done.stderr.strip().splitlines()
    return None if done.returncode == 0 else words[-1] if words else f"exit code {done.returncode}"


def _saves(vault: Vault) -> Saves:
    checkpoints = vault.checkpoints()
    full = [checkpoint for checkpoint in checkpoints if checkpoint.kind == "full"]
    trash = vault.trash_bytes()
    return Saves(
        vault.root,
        vault.own,
        sum(checkpoint.kind is not None for checkpoint in checkpoints),
        {vault.root / name: found.problems for name, found in vault.unsealed().items() if found.kind is None},
        tuple(checkpoint.path for checkpoint in checkpoints if checkpoint.kind is None),
        {
            checkpoint.path: (", ".join(cut), checkpoint.kind)
            for checkpoint in checkpoints
            if checkpoint.kind and (cut := cut_files(checkpoint.path, checkpoint.seal))
        },
        vault.own / "trash" if trash else None,
        trash,
        # From the last full one: a margin of 1 % and 256 KiB.
        full[-1].bytes + full[-1].bytes // _NEED_PARTS + _NEED_BYTES if full else None,
        vault.room().free_bytes,
    )
