"""How long does a command take to start? Outlast's beside an empty Python, accelerate and torchrun, in rounds.

Wall time of the whole process, run in an empty folder; files in the page cache, bytecode compiled before, in a folder
of its own (an installation that compiles nothing, as with PYTHONDONTWRITEBYTECODE, pays for it at each start). Also:
`outlast run` around an empty Python, and what the injected sitecustomize adds to the start of each Python process of a
guarded run ("hooked"). "torch" says whether the command imported torch, as seen by PYTHONPROFILEIMPORTTIME.
Limits: `outlast --help` 100 ms, `outlast doctor` 500 ms, neither imports torch.

    python benchmarks/start.py
    python benchmarks/start.py --rounds 50
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import outlast
from outlast.launch import Order
from outlast.launch.order import environment

BIN = Path(sys.executable).parent


@dataclass(slots=True)
class Command:
    """A row of the table."""

    name: str
    words: list[str]
    limit_ms: float | None = None
    variables: dict[str, str] = field(default_factory=dict)
    milliseconds: list[float] = field(default_factory=list)
    imports_torch: bool = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21, help="rounds (default: 21; peers that import torch: 3)")
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    folder = Path(tempfile.mkdtemp(prefix="outlast-start-"))
    try:
        commands = _commands(folder)
        for command in commands:
            command.variables["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
            command.imports_torch = _imports_torch(command, folder)  # compiles, too
        for number in range(options.rounds):
            for command in commands:
                if number < 3 or not command.imports_torch:
                    command.milliseconds.append(_timed(command, folder))
    finally:
        shutil.rmtree(folder)
    _print(commands)


def _commands(folder: Path) -> list[Command]:
    empty = [sys.executable, "-c", "pass"]
    (folder / ".outlast" / "journal" / "bench").mkdir(parents=True)
    order = Order(command=tuple(empty), home=folder)
    hooked = environment(order, "bench", 1, False, dict(os.environ))
    found = [
        Command("python -c pass", empty),
        Command("python -c pass, hooked", empty, variables=dict(hooked)),
        Command("outlast --help", [str(BIN / "outlast"), "--help"], 100),
        Command("outlast doctor", [str(BIN / "outlast"), "doctor"], 500),
        Command("outlast why --help", [str(BIN / "outlast"), "why", "--help"]),
        Command("outlast run -- python -c pass", [str(BIN / "outlast"), "run", "--", *empty]),
        Command("accelerate --help", [str(BIN / "accelerate"), "--help"]),
        Command("torchrun --help", [str(BIN / "torchrun"), "--help"]),
    ]
    return [command for command in found if Path(command.words[0]).exists()]


def _timed(command: Command, folder: Path) -> float:
    start = time.perf_counter()
    subprocess.run(
        command.words, cwd=folder, env=os.environ | command.variables,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    return 1e3 * (time.perf_counter() - start)


def _imports_torch(command: Command, folder: Path) -> bool:
    variables = os.environ | command.variables | {"PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run(command.words, cwd=folder, env=variables, capture_output=True, text=True, check=False)
    return any(line.rpartition("|")[2].strip() == "torch" for line in done.stderr.splitlines())


def _print(commands: list[Command]) -> None:
    print(f"outlast {outlast.__version__}, Python {sys.version.split()[0]}; milliseconds, median (quartiles) and least")
    print(f"{'command':<31}{'median':>8}  {'quartiles':<16}{'least':>7}  {'torch':<7}limit")
    for command in commands:
        values = command.milliseconds
        low, _, high = statistics.quantiles(values, n=4)
        limit = command.limit_ms
        is_met = limit is None or (statistics.median(values) < limit and not command.imports_torch)
        print(
            f"{command.name:<31}{statistics.median(values):>8.1f}  {f'{low:.1f} to {high:.1f}':<16}{min(values):>7.1f}"
            f"  {'yes' if command.imports_torch else 'no':<7}{'' if limit is None else f'{limit} ms, '}"
            f"{'' if limit is None else 'met' if is_met else 'MISSED'}"
        )
    plain, hooked = commands[0].milliseconds, commands[1].milliseconds
    added = statistics.median(b - a for a, b in zip(plain, hooked, strict=True))
    print(f"the hooks add {added:.1f} ms to the start of a Python process (median of paired differences)")


if __name__ == "__main__":
    main()
