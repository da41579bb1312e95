"""Promise of `outlast data fetch`: whatever interrupts it, the same command goes on and ends in the same bytes, nothing
half-written is ever readable, and what was not asked for neither travels nor stays in memory.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.subsets import content

from .conftest import child_environment, outlast, share
from .range_server import Ranges, Trouble, serving

Volume = Callable[..., Path]
_MB = 1_000_000
_MEASURED = """
import resource, sys
from outlast.cli import main
code = main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
sys.exit(code)
"""
_STREAMED = """
import sys, datasets
rows = datasets.load_dataset("parquet", data_files={"train": sys.argv[1:]}, split="train", streaming=True)
print(sum(1 for _ in rows.select_columns(["text"]).take(1000)))
"""


def letters(seed: int, rows: int, size: int) -> pa.Array:
    """Texts that do not compress much."""
    drawn = np.random.default_rng(seed).integers(97, 123, rows * size, dtype=np.uint8)
    offsets = np.arange(0, (rows + 1) * size, size, dtype=np.int32)
    return pa.StringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(drawn))


def write(path: Path, first: int, rows: int, size: int) -> None:
    """One Parquet file: a large text, a smaller one, a number and a label."""
    columns = {"text": letters(first, rows, size), "note": letters(first + 1, rows, size // 5)}
    columns |= {"n": pa.array(range(first, first + rows)), "label": pa.array(["a", "b"] * (rows // 2))}
    pq.write_table(pa.table(columns), path, row_group_size=1000, use_dictionary=["label"])


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """189 MB in six files, as in the measurements of research/storage.md section 7."""
    folder = tmp_path_factory.mktemp("large")
    for i in range(6):
        write(folder / f"train-{i:05d}.parquet", i * 10_000, 10_000, 2620)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """72 MB: three spans."""
    folder = tmp_path_factory.mktemp("small")
    for i in range(3):
        write(folder / f"train-{i:05d}.parquet", i * 3000, 3000, 6700)
    return folder


@pytest.fixture
def small_server(small: Path) -> Iterator[Ranges]:
    with serving(small) as server:
        yield server


@pytest.fixture(scope="module")
def good(small: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The shards of an undisturbed fetch."""
    out = tmp_path_factory.mktemp("good") / "o"
    with serving(small) as server:
        done = outlast("data", "fetch", f"{server.url}/", "-o", out, *_WANTED)
    assert done.returncode == 0, done.stderr
    return shards(out)


_WANTED = ("--rows", "8500", "--split", "hash:90/10")


def shards(out: Path) -> dict[str, bytes]:
    """What is readable; the manifest without the address, whose port is another one in each test."""
    found = content(out)
    if "manifest.json" in found:
        document = json.loads(found["manifest.json"])
        del document["source"], document["key"]
        found["manifest.json"] = json.dumps(document).encode()
    return found


def assert_nothing_half_written(out: Path) -> None:
    """All of a set is readable, or nothing."""
    if not out.exists():
        return
    found = content(out)
    parquet = [out / name for name in found if name != "manifest.json"]
    for path in parquet:
        pq.read_table(path)
    if "manifest.json" in found:
        named = {shard["path"] for shard in json.loads(found["manifest.json"])["shards"]}
        assert named == set(found) - {"manifest.json"}


@contextmanager
def started(url: str, out: Path) -> Iterator[subprocess.Popen[str]]:
    """A fetch under way; killed at the end if it is still there."""
    words = [sys.executable, "-m", "outlast", "data", "fetch", f"{url}/", "-o", str(out), *_WANTED]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=child_environment()
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def kill_after(seconds: float, url: str, out: Path) -> None:
    """A fetch that is killed in the middle."""
    with started(url, out):
        time.sleep(seconds)


def test_1000_rows_of_one_column_travel_in_under_3_mb_and_the_plan_knew(large: Path, tmp_path: Path) -> None:
    """Attacks: bytes counted at the server, beside the streaming of `datasets`; the plan is right within 5 %."""
    total = sum(path.stat().st_size for path in large.iterdir())
    assert 185 * _MB < total < 195 * _MB
    with serving(large) as server:
        planned = outlast("data", "plan", f"{server.url}/", "--rows", 1000, "--columns", "text", "--json")
        expected, server.sent = json.loads(planned.stdout)["wire_bytes"], 0
        done = outlast("data", "fetch", f"{server.url}/", "-o", tmp_path / "o", "--rows", 1000, "--columns", "text")
        assert done.returncode == 0, done.stderr
        travelled, server.sent = server.sent, 0
        names = [f"{server.url}/{path.name}" for path in sorted(large.iterdir())]
        streamed = subprocess.run([sys.executable, "-c", _STREAMED, *names], capture_output=True, text=True,
                                  env=child_environment(HF_HOME=str(tmp_path / "hf")))  # fmt: skip
        assert streamed.stdout.split() == ["1000"], streamed.stderr
        by_streaming = server.sent
    assert abs(travelled - expected) <= 0.05 * travelled
    assert travelled < 3 * _MB
    assert by_streaming > 3 * travelled


def test_all_of_189_mb_is_fetched_in_under_400_mb_of_memory(large: Path, tmp_path: Path) -> None:
    with serving(large) as server:
        words = [sys.executable, "-c", _MEASURED, "data", "fetch", f"{server.url}/", "-o", str(tmp_path / "o")]
        done = subprocess.run(words, capture_output=True, text=True, env=child_environment())
    assert done.returncode == 0, done.stderr
    assert int(done.stderr.split()[-1]) * 1024 < 400 * _MB


def test_a_fetch_killed_anywhere_ends_in_the_same_bytes(
    small_server: Ranges, good: dict[str, bytes], tmp_path: Path
) -> None:
    """Attacks: kill -9 at random points of a fetch, again and again; 50 in full."""
    rng = random.Random(6)
    left = share(50)
    number = 0
    while left:
        out = tmp_path / str(number)
        number += 1
        for _ in range(3):
            kill_after(rng.uniform(0.3, 2.0), small_server.url, out)
            left -= 1
            assert_nothing_half_written(out)
            if not left:
                break
        done = outlast("data", "fetch", f"{small_server.url}/", "-o", out, *_WANTED)
        assert done.returncode == 0, done.stderr
        assert shards(out) == good
        assert sorted(path.name for path in (out / ".outlast").iterdir()) == ["lock"]


def test_a_growing_subset_killed_anywhere_stays_readable_and_ends_in_the_same_bytes(
    small_server: Ranges, good: dict[str, bytes], tmp_path: Path
) -> None:
    """Attacks: the old set must be readable, whole, until the new one stands; 20 kills in full."""
    rng = random.Random(7)
    assert outlast("data", "fetch", f"{small_server.url}/", "-o", tmp_path / "old", "--rows", 4000).returncode == 0
    old = content(tmp_path / "old")
    for number in range(share(20)):
        out = tmp_path / str(number)
        shutil.copytree(tmp_path / "old", out)
        kill_after(rng.uniform(0.5, 1.5), small_server.url, out)
        assert content(out) == old or shards(out) == good or (out / ".outlast/next/manifest.json").exists()
        done = outlast("data", "fetch", f"{small_server.url}/", "-o", out, *_WANTED, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["reused_rows"] >= 4000
        assert shards(out) == good


def test_a_network_that_is_cut_again_and_again_changes_nothing(
    small_server: Ranges, good: dict[str, bytes], tmp_path: Path
) -> None:
    """Attacks: connections cut after random numbers of bytes; 20 in full."""
    rng = random.Random(8)
    cuts = share(20)
    for _ in range(cuts):
        small_server.trouble.extend([None] * rng.randrange(3))
        small_server.trouble.append(Trouble(cut_after=rng.randrange(500_000)))
    done = outlast("data", "fetch", f"{small_server.url}/", "-o", tmp_path / "o", *_WANTED)
    assert done.returncode == 0, done.stderr
    assert not small_server.trouble
    assert shards(tmp_path / "o") == good


def test_a_volume_that_fills_meanwhile_keeps_what_is_done_and_the_same_command_goes_on(
    small: Path, good: dict[str, bytes], volume: Volume
) -> None:
    """Attacks: another program takes the room while shards are written; 10 in full."""
    rng = random.Random(9)
    with serving(small, bytes_per_second=40e6) as server:
        for _ in range(share(10)):
            place = volume("150m")
            with started(server.url, place / "o") as child:
                while not any((place / "o").rglob("part-train")):
                    assert child.poll() is None
                    time.sleep(0.01)
                time.sleep(rng.uniform(0.0, 0.5))
                free = os.statvfs(place).f_bavail * os.statvfs(place).f_frsize
                with open(place / "filler", "wb") as filler:
                    os.posix_fallocate(filler.fileno(), 0, max(4096, free - rng.randrange(8 * _MB)))
                said = child.communicate()[1]
            assert child.returncode == 1, said
            assert "no room" in said and "the same command goes on" in said
            assert_nothing_half_written(place / "o")
            (place / "filler").unlink()
            done = outlast("data", "fetch", f"{server.url}/", "-o", place / "o", *_WANTED)
            assert done.returncode == 0, done.stderr
            assert shards(place / "o") == good


def test_a_volume_that_is_too_small_is_said_to_be_before_anything_travels(small_server: Ranges, volume: Volume) -> None:
    place = volume("20m")
    done = outlast("data", "fetch", f"{small_server.url}/", "-o", place / "o", *_WANTED)
    assert done.returncode == 1
    assert "rows fit (--rows)" in done.stderr
    assert small_server.sent < _MB
    rows = int(done.stderr.split("about ")[1].split()[0].replace(",", ""))
    assert 1000 < rows < 2700
    done = outlast("data", "fetch", f"{small_server.url}/", "-o", place / "o", "--rows", rows)
    assert done.returncode == 0, done.stderr
