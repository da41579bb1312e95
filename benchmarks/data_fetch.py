"""How long does a fetch take beside plain sequential HTTP of the same bytes? And what does it take of the machine?

A server in a process of its own serves 150 MB of Parquet (six files, row groups of 1,000 rows) on loopback, as fast as
it goes and on links of 100 and 30 MB/s. Each round, in an order that is drawn anew:

    plain        each file in one GET, one after the other, its bytes written to one file, fsync: what curl would do
    outlast      outlast.data.fetch of all rows and columns: read, unpacked, written as zstd shards, fsync, digests
    one column   outlast.data.fetch of the large text column of all rows

The ratio is the median over rounds of (seconds / plain's seconds in the same round), with quartiles. Fetching unpacks
and packs every value, so on a link that is faster than the cores pack, the cores are what counts.

    python benchmarks/data_fetch.py                    # 150 MB, 5 rounds
    python benchmarks/data_fetch.py --rounds 3 --links 0 30
"""

from __future__ import annotations

import argparse
import http.client
import multiprocessing
import multiprocessing.connection
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from outlast import data

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.torture.range_server import serving  # noqa: E402 - of the working tree, which is no package


def main() -> None:
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="outlast-fetch-", dir=options.dir))
    try:
        source = folder / "source"
        source.mkdir()
        _write(source)
        size = sum(path.stat().st_size for path in source.iterdir())
        print(f"{size / 1e6:.0f} MB in 6 files, {options.rounds} rounds; load {os.getloadavg()[0]:.1f}")
        print(f"{'link':>10}  {'way':<11}  {'median s':>8}  {'least s':>7}  {'CPU s':>6}  of plain (quartiles)")
        for link in options.links:
            _compare(source, folder, link, options.rounds)
    finally:
        shutil.rmtree(folder)


def _compare(source: Path, folder: Path, link: float, rounds: int) -> None:
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(there, source, link), daemon=True)
    server.start()
    url = here.recv()
    names = sorted(path.name for path in source.iterdir())
    ways: dict[str, Callable[[Path], object]] = {
        "plain": lambda out: _plain(url, names, out),
        "outlast": lambda out: data.fetch(f"{url}/", out),
        "one column": lambda out: data.fetch(f"{url}/", out, columns="text"),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    cpu: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(-1, rounds):
        for way in random.Random(number).sample(list(ways), len(ways)):
            out = folder / "out"
            shutil.rmtree(out, ignore_errors=True)
            os.sync()
            began, used = time.perf_counter(), time.process_time()
            ways[way](out)
            if number >= 0:
                seconds[way].append(time.perf_counter() - began)
                cpu[way].append(time.process_time() - used)
    here.send(None)
    server.join()
    for way in ways:
        ratios = sorted(a / b for a, b in zip(seconds[way], seconds["plain"], strict=True))
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        name = f"{link:.0f} MB/s" if link else "loopback"
        print(
            f"{name:>10}  {way:<11}  {statistics.median(seconds[way]):8.2f}  {min(seconds[way]):7.2f}  "
            f"{statistics.median(cpu[way]):6.2f}  {middle:.2f} ({low:.2f} to {high:.2f})",
            flush=True,
        )


def _serve(pipe: multiprocessing.connection.Connection, source: Path, link: float) -> None:
    with serving(source, bytes_per_second=link * 1e6 or None) as server:
        pipe.send(server.url)
        pipe.recv()


def _plain(url: str, names: list[str], out: Path) -> None:
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    out.mkdir()
    with open(out / "bytes", "wb") as file:
        for name in names:
            connection.request("GET", f"/{name}")
            answer = connection.getresponse()
            while piece := answer.read(1 << 20):
                file.write(piece)
        file.flush()
        os.fsync(file.fileno())
    connection.close()


def _write(folder: Path) -> None:
    """Texts of words, as texts compress; a number and a label beside."""
    draw = np.random.default_rng(0)
    letters = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz", np.uint8)
    words = [bytes(draw.choice(letters, draw.integers(2, 10))).decode() for _ in range(20_000)]
    for i in range(6):
        text = [" ".join(words[j] for j in draw.zipf(1.3, 900) % 20_000) for _ in range(10_000)]
        table = pa.table({"text": text, "n": range(i * 10_000, (i + 1) * 10_000), "label": ["a", "b"] * 5000})
        pq.write_table(table, folder / f"train-{i:05d}.parquet", row_group_size=1000)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--links", type=float, nargs="+", default=[0, 100, 30], metavar="MB/S", help="0: no bound")
    parser.add_argument("--dir", type=Path, default=None, help="where to work; default: the folder for temporary files")
    return parser.parse_args()


if __name__ == "__main__":
    main()
