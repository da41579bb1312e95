"""Token blocks are whole or not there: killed, or on a full volume, the next call ends in the same bytes."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from tests.data.parquets import make_rows, text_of
from tests.torture.conftest import SCRIPTS, child_environment, share

SHARD = 10_000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Rows and a tokenizer."""
    place = tmp_path_factory.mktemp("texts")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([text_of(number) for number in range(20)], trainer)
    tokenizer.save(str(place / "tokenizer.json"))
    return make_rows(place / "rows", 3000, per_file=500, per_group=100), place / "tokenizer.json"


def start(made: tuple[Path, Path], cache: Path) -> subprocess.Popen[str]:
    words = [SCRIPTS / "make_blocks.py", *made, cache, SHARD]
    return subprocess.Popen(
        [sys.executable, *map(str, words)], env=child_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def contents(cache: Path) -> dict[str, bytes]:
    found = {}
    for folder in cache.glob("blocks-*"):
        found |= {f"{folder.name}/{entry.name}": entry.read_bytes() for entry in folder.iterdir()}
    return found


@pytest.mark.parametrize("seed", range(share(20) - 1))
def test_killed_at_any_moment_no_set_is_readable_and_the_next_call_ends_in_the_same_bytes(
    volume: Callable[..., Path], made: tuple[Path, Path], seed: int
) -> None:
    place, chance = volume("64m"), random.Random(seed)
    whole = start(made, place / "whole")
    assert whole.wait(120) == 0 and whole.communicate()
    cache, wanted = place / "cut", chance.randint(0, 20)
    process = start(made, cache)
    while process.poll() is None and len(list(cache.glob(".outlast/blocks/*/part-*.bin"))) < wanted:
        time.sleep(0.0005)
    time.sleep(chance.random() * 0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert contents(cache) in ({}, contents(place / "whole"))
    again = start(made, cache)
    assert again.wait(120) == 0 and again.communicate()
    assert contents(cache) == contents(place / "whole")
    assert not list(cache.glob(".outlast/blocks/*"))


def test_a_volume_that_fills_up_is_said_and_what_is_done_is_kept(
    volume: Callable[..., Path], made: tuple[Path, Path]
) -> None:
    place = volume("1m")
    # What else fills the volume comes later than the look whether there is room.
    ballast = place / "ballast"
    process = start(made, place / "cache")
    while not list(place.glob("cache/.outlast/blocks/*/part-00002.bin")):
        assert process.poll() is None
        time.sleep(0.0005)
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 1 and "NoRoom" in said and "hint: " in said
    assert not list(place.glob("cache/.outlast/blocks/*/.part-*")) and contents(place / "cache") == {}
    ballast.unlink()
    again = start(made, place / "cache")
    assert again.wait(120) == 0 and again.communicate()
    assert len(contents(place / "cache")) > 5


def test_reading_an_epoch_of_a_set_eight_times_the_window_takes_no_more(tmp_path: Path) -> None:
    """Promise: RAM stays flat. 96 MB of text, 12 MB of window."""
    chance, window = random.Random(0), 12 << 20
    words = [chance.randbytes(6).hex() for _ in range(4000)]
    with parquet.ParquetWriter(tmp_path / "a.parquet", pa.schema({"text": pa.string()}), compression="zstd") as writer:
        for _ in range(96):
            texts = [" ".join(chance.choices(words, k=160)) for _ in range(490)]
            writer.write_table(pa.table({"text": texts}), row_group_size=490)
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "read_epoch.py"), str(tmp_path), str(window)],
        capture_output=True, text=True, timeout=300, env=child_environment(), check=True,
    )  # fmt: skip
    rows, seen, grew = map(int, done.stdout.split())
    assert rows == 96 * 490 and seen > 90e6
    # Two row groups above the window, the allocator's slack, and of the file (25 MB) what is mapped at a time.
    assert grew < 3 * window
