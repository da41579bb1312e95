"""How long does it take to measure what a tree takes, beside `du -s` and huggingface_hub's scan_cache_dir?

Two trees of ``--files`` entries, made in a folder below ``--dir`` and removed at the end: plain folders of 100 small
files, one in fifty of them a hard link; and a hub cache, half blobs and half links to them, in repositories of 1,000.
Warm: everything was just read. Cold: the kernel's caches are dropped before each reading, which takes root. Rounds
alternate; figures are medians in milliseconds. `du` is a process of its own, which costs it a millisecond or two.

    python benchmarks/usage.py
    python benchmarks/usage.py --files 20000 --rounds 3
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import scan_cache_dir

from outlast.host import largest, tree

DROP = Path("/proc/sys/vm/drop_caches")
PER_FOLDER = 100
PER_REPOSITORY = 1000
DU, OURS, ONE, FOUR, TOP = "du -s", "Outlast tree", "  one thread", "  four threads", "Outlast largest, 20"
HUB, OURS_HUB = "scan_cache_dir, hub cache", "Outlast tree, hub cache"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=200_000, help="entries of each tree (default: 200000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default: 5)")
    parser.add_argument("--dir", type=Path, default=Path(), help="where to make the trees (default: here)")
    options = parser.parse_args()
    top = Path(tempfile.mkdtemp(prefix="outlast-usage-", dir=options.dir))
    try:
        plain, hub = top / "plain", top / "hub"
        _make_plain(plain, options.files)
        _make_hub(hub, options.files)
        calls = _calls(plain, hub)
        _compare(calls)
        taken = {"warm": _measure(calls, options.rounds, lambda: None)}
        why = _why_not_cold()
        if why is None:
            taken["cold"] = _measure(calls, options.rounds, _drop)
        _print(taken, options.files, options.rounds, why)
    finally:
        shutil.rmtree(top)


def _make_plain(top: Path, files: int) -> None:
    for number in range(files):
        folder = top / f"{number // PER_FOLDER // 20}" / f"{number // PER_FOLDER}"
        if number % PER_FOLDER == 0:
            folder.mkdir(parents=True)
        if number % 50 == 49:
            os.link(folder / f"file-{number - 1:07d}.bin", folder / f"file-{number:07d}.bin")
        else:
            (folder / f"file-{number:07d}.bin").write_bytes(b"x" * (5000 if number % 3 == 0 else 100))


def _make_hub(top: Path, files: int) -> None:
    revision = "0" * 40
    for start in range(0, files // 2, PER_REPOSITORY):
        repository = top / f"models--outlast--benchmark-{start // PER_REPOSITORY}"
        for part in ("blobs", "refs", f"snapshots/{revision}"):
            (repository / part).mkdir(parents=True)
        (repository / "refs" / "main").write_text(revision)
        for number in range(start, min(start + PER_REPOSITORY, files // 2)):
            (repository / "blobs" / f"{number:064x}").write_bytes(b"x" * 100)
            (repository / "snapshots" / revision / f"{number}.bin").symlink_to(f"../../blobs/{number:064x}")


def _calls(plain: Path, hub: Path) -> dict[str, Callable[[], int]]:
    def du() -> int:
        done = subprocess.run(["du", "-s", "--block-size=1", plain], capture_output=True, text=True, check=True)
        return int(done.stdout.split()[0])

    return {
        DU: du,
        OURS: lambda: tree(plain).allocated_bytes,
        ONE: lambda: tree(plain, threads=1).allocated_bytes,
        FOUR: lambda: tree(plain, threads=4).allocated_bytes,
        TOP: lambda: largest(plain, 20).usage.allocated_bytes,
        HUB: lambda: scan_cache_dir(hub).size_on_disk,
        OURS_HUB: lambda: tree(hub).allocated_bytes,
    }


def _compare(calls: dict[str, Callable[[], int]]) -> None:
    """All must find the same, before how fast they do means anything; it also warms the caches."""
    found = {name: call() for name, call in calls.items()}
    if len({found[name] for name in (DU, OURS, ONE, FOUR, TOP)}) != 1:
        raise SystemExit(f"they do not agree: {found}")


def _why_not_cold() -> str | None:
    if os.geteuid() != 0:
        return "not root"
    return None if os.access(DROP, os.W_OK) else f"{DROP} cannot be written"


def _drop() -> None:
    os.sync()
    DROP.write_text("3")


def _measure(calls: dict[str, Callable[[], int]], rounds: int, before: Callable[[], None]) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            before()
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _print(taken: dict[str, dict[str, float]], files: int, rounds: int, why: str | None) -> None:
    print(f"{files:,} entries, median ms of {rounds} rounds")
    print(f"{'':<28}" + "".join(f"{state:>10}{'k/s':>8}" for state in taken))
    for name in taken["warm"]:
        row = "".join(f"{1e3 * found[name]:>10.1f}{files / found[name] / 1e3:>8.0f}" for found in taken.values())
        print(f"{name:<28}{row}")
    if why:
        print(f"cold: not measured, {why}")
    for state, found in taken.items():
        aim = {"warm": "at most 1.3", "cold": "below 1"}[state]
        print(f"{state}: Outlast / du {found[OURS] / found[DU]:.2f} (aim: {aim})")
        aim = "at least 5" if state == "warm" else "no aim"
        print(f"{state}: scan_cache_dir / Outlast {found[HUB] / found[OURS_HUB]:.1f} ({aim})")


if __name__ == "__main__":
    main()
