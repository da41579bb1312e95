"""Scripts that load all of a data set, or map it to more than there is room for, run to their end unmodified."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from .conftest import SCRIPTS, child_environment
from .hub_server import Hub, serving
from .scripts import looks

NAME = "Skylion007/openwebtext"
FILES, ROWS = 4, 5_000
CARD = """---
dataset_info:
  config_name: plain_text
  features:
  - name: text
    dtype: string
  splits:
  - name: train
    num_bytes: 24000000
    num_examples: 20000
  download_size: 12000000
  dataset_size: 24000000
configs:
- config_name: plain_text
  data_files:
  - split: train
    path: plain_text/train-*
---
"""


def parquet(first: int, rows: int = ROWS) -> bytes:
    """Documents with numbers, about 1.1 kB each; half of that in the file."""
    dice = random.Random(first)
    texts = [f"document {number} {dice.randbytes(550).hex()}" for number in range(first, first + rows)]
    file = BytesIO()
    pq.write_table(pa.table({"text": texts}), file, row_group_size=500, compression="zstd")
    return file.getvalue()


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    """OpenWebText, small; a data set with a loading script that the hub has converted, and one that it has not."""
    shards = {f"train-{i:05d}-of-{FILES:05d}.parquet": parquet(i * ROWS) for i in range(FILES)}
    script = {"README.md": b"", "by_script.py": b"raise SystemExit", "lost.py": b"raise SystemExit"}
    repositories = {
        f"datasets/{NAME}": {"README.md": CARD.encode()}
        | {f"plain_text/{name}": data for name, data in shards.items()},
        "datasets/old/by_script": script,
        "datasets/old/by_script@refs/convert/parquet": {
            f"default/train/{i:04d}.parquet": parquet(i * ROWS, 1_000) for i in range(2)
        },
        "datasets/old/lost": script,
    }
    with serving(repositories, {"openwebtext": NAME}) as running:
        yield running


@pytest.fixture(autouse=True)
def counted_anew(hub: Hub) -> None:
    """Each test counts for itself."""
    hub.sent_bytes = 0
    hub.requests.clear()


def on(hub: Hub, place: Path, **more: str) -> dict[str, str]:
    """The environment of a machine whose caches are all on one volume."""
    return child_environment(
        HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="0", HF_HOME=str(place / "hf"), HF_HUB_DISABLE_TELEMETRY="1",
        HF_DATASETS_DISABLE_PROGRESS_BARS="1", HF_HUB_DISABLE_PROGRESS_BARS="1", **more,
    )  # fmt: skip


def guarded(home: Path, *words: object, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """``outlast run --dir HOME WORDS``."""
    return subprocess.run(
        [sys.executable, "-m", "outlast", "run", "--dir", str(home), *map(str, words)],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def script(name: str, *arguments: object) -> list[str]:
    return ["--", *looks.python(SCRIPTS / name, *arguments)]


def said(done: subprocess.CompletedProcess[str], words: str) -> list[str]:
    """Outlast's lines that hold these words."""
    return [line for line in done.stderr.splitlines() if line.startswith("outlast: ") and words in line]


def last(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_script_for_all_of_openwebtext_ends_on_a_volume_that_the_whole_fills(
    hub: Hub, volume: Callable[..., Path], tmp_path: Path
) -> None:
    """Attacks: 12 MB to download and 24 MB to build on 16 MB; then the same again without a network."""
    place = volume("16m")
    plain = subprocess.run(
        looks.python(SCRIPTS / "owt_script.py", NAME), env=on(hub, place), capture_output=True, text=True, timeout=120
    )
    assert plain.returncode != 0 and "No space left" in plain.stderr, plain.stderr[-2000:]
    subprocess.run(["rm", "-rf", place / "hf"], check=True)
    hub.sent_bytes = 0

    done = guarded(tmp_path, *script("owt_script.py", NAME), environment=on(hub, place, OWT_SUBSET_NUM="1100"))
    expected = {
        "types": ["datasets.arrow_dataset.Dataset", "Dataset"],
        "columns": [["text"], ["text"], ["input_ids"]],
        "features": "{'text': Value('string')}",
        "rows": [990, 110, 990],
        "ends": ["0", "989", "990", "1099"],
    }
    assert last(done) == expected
    lines = said(done, "is a subset here")
    assert [("train[:-100000] is its rows 0 to 990" in lines[0]), ("990 to 1,100" in lines[1])] == [True, True], lines
    assert hub.sent_bytes < 0.15 * 12_000_000, "1,100 of 20,000 rows"
    told = looks.named(tmp_path, "subset_given")
    assert [event["because"] for event in told] == ["OWT_SUBSET_NUM"] * 2 and told[0]["rows"] == {"train": 1100}

    away = on(hub, place, OWT_SUBSET_NUM="1100") | {"HF_ENDPOINT": "http://127.0.0.1:9"}
    again = guarded(tmp_path, *script("owt_script.py", NAME), environment=away)
    assert last(again) == expected
    assert len(said(again, "is a subset here, of 1,100 rows (OWT_SUBSET_NUM, commit ")) == 2


def test_every_way_of_asking_gets_its_part_of_the_subset(hub: Hub, tmp_path: Path) -> None:
    """Attacks: a name without an owner, slices, percents, ReadInstruction, nested splits, streams, wrong splits."""
    options = ["--subset", "openwebtext=1000"]
    done = guarded(tmp_path / "run", *options, *script("owt_ways.py", "openwebtext"), environment=on(hub, tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, object] = {}
    for line in done.stdout.splitlines():
        found |= json.loads(line)
    assert found.pop("train[:5").startswith("Unrecognized instruction format")
    assert found.pop("nothing").startswith('Unknown split "nothing"')
    assert "ask for a subset of 60,000 rows" in found.pop("train[50000:60000]")
    assert found == {
        "head": [["0", "899"]],
        "rest": [["900", "999"]],
        "percent": [["0", "899"], ["900", "999"]],
        "instruction": [["0", "499"]],
        "named": [["0", "999"]],
        "sum": [["0", "999"]],
        "dict": [["0", "899"], ["900", "999"]],
        "all splits: DatasetDict of ['train']": [["0", "999"]],
        "stream: IterableDataset": [["0", "949"], ["950", "999"]],
        "streams": [["0", "999"]],
    }
    assert len(list((tmp_path / "hf/datasets/outlast-subsets").glob("*/train-1000-*/manifest.json"))) == 1
    assert len(said(done, "share")) == 0


def test_a_data_set_with_a_loading_script_is_taken_from_the_hubs_conversion_of_it(hub: Hub, tmp_path: Path) -> None:
    """Attacks: scripts that `datasets` runs no more; the conversion lies on a branch with slashes in its name."""
    load = "import datasets; d = datasets.load_dataset('old/by_script', split='train[-500:]'); print(len(d), d[0])"
    done = guarded(
        tmp_path / "run", "--subset", "by_script=1500", "--", sys.executable, "-c", load, environment=on(hub, tmp_path)
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("150 {'text': 'document 5350 "), done.stdout


@pytest.mark.parametrize(
    ("name", "network", "reason"),
    [("old/lost", True, "RuntimeError: Dataset scripts are no longer supported"), (NAME, False, "Couldn't reach")],
    ids=["no Parquet", "no network"],
)
def test_what_no_subset_can_be_had_of_is_left_to_datasets_and_that_is_said(
    hub: Hub, tmp_path: Path, name: str, network: bool, reason: str
) -> None:
    """Attacks: a script alone, a network that is away: the user sees why, and the error that they would have seen."""
    environment = on(hub, tmp_path) | ({} if network else {"HF_HUB_OFFLINE": "1"})
    command = ["--", sys.executable, "-c", f"import datasets; datasets.load_dataset({name!r}, split='train')"]
    done = guarded(tmp_path / "run", "--subset", f"{name}=50", *command, environment=environment)
    assert done.returncode == 1
    (line,) = said(done, "no subset of it can be had")
    assert reason in line
    errors = [line for line in done.stderr.splitlines() if line.startswith(("RuntimeError: ", "ConnectionError: "))]
    assert reason.removeprefix("RuntimeError: ") in errors[-1], "what datasets itself says"
    assert looks.named(tmp_path / "run", "subset_left_alone")[0]["rows"] == 50


def test_nothing_changes_for_who_asked_for_nothing_and_what_will_not_fit_is_told_before(
    hub: Hub, volume: Callable[..., Path], tmp_path: Path
) -> None:
    """Attacks: the same fingerprint and cache with and without Outlast; a warning where the build will not fit."""
    load = (
        f"import datasets; d = datasets.load_dataset({NAME!r}, split='train[:99%]');"
        "print(len(d), d._fingerprint, d.map(lambda row: {'n': 1})._fingerprint, sorted(map(len, d.info.splits)))"
    )
    command = ["--", sys.executable, "-c", load]
    there = on(hub, tmp_path)
    plain = subprocess.run(command[1:], env=there, capture_output=True, text=True, timeout=120)
    done = guarded(tmp_path / "run", "--subset", "wikitext=50", *command, environment=there)
    assert (done.returncode, done.stdout) == (0, plain.stdout), done.stderr[-3000:]
    assert said(done, "built whole") == [] and looks.named(tmp_path / "run", "subset_given") == []

    done = guarded(tmp_path / "small", *command, environment=on(hub, volume("16m")))
    assert done.returncode != 0
    (line,) = said(done, "built whole")
    assert "12.0 MB downloaded + 24.0 MB built" in line and "OWT_SUBSET_NUM=11000" in line


def test_the_processes_of_a_distributed_run_fetch_a_subset_once(hub: Hub, tmp_path: Path) -> None:
    """Attacks: three processes that load the same at the same moment."""
    load = f"import datasets; print(len(datasets.load_dataset({NAME!r}, split='train')))"
    environment = looks.hooked(tmp_path / "run", OUTLAST_SUBSET=f"{NAME}=1000") | {
        name: value for name, value in on(hub, tmp_path).items() if name.startswith("HF_")
    }
    children = [
        subprocess.Popen(
            [sys.executable, "-c", load], env=environment | {"LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(3)
    ]  # fmt: skip
    ends = [(*child.communicate(timeout=120), child.returncode) for child in children]
    assert [end[::2] for end in ends] == [("1000\n", 0)] * 3, ends
    assert ["is a subset here" in end[1] for end in ends] == [True, False, False], "one process says it"
    assert hub.sent_bytes < 0.15 * 12_000_000


@pytest.mark.parametrize("processes", [0, 2])
def test_a_map_that_would_fill_the_volume_is_stopped_before_it_has_written_anything(
    volume: Callable[..., Path], tmp_path: Path, processes: int
) -> None:
    """Attacks: 6,000 rows of 1,000 numbers (48 MB) on 20 MB; the contrast first: it fills the volume."""
    place = volume("20m")
    calls = tmp_path / "calls"
    wide = looks.python(SCRIPTS / "map_script.py", place, 1_000, processes, calls)
    environment = child_environment(HF_DATASETS_DISABLE_PROGRESS_BARS="1", HF_DATASETS_CACHE=str(place))
    plain = subprocess.run(wide, env=environment, capture_output=True, text=True, timeout=120)
    assert plain.returncode != 0 and "No space left" in plain.stderr
    left = [path for path in place.rglob("*") if path.name.startswith("tmp")]
    assert left, "datasets removes what it could not finish by itself now?"
    for path in left:
        path.unlink()
    calls.unlink()

    done = guarded(tmp_path, "--", *wide, environment=environment)
    assert done.returncode == 1
    line = [line for line in done.stderr.splitlines() if line.startswith("outlast.errors.NoRoom")][-1]
    assert "48." in line and "remove_columns" in done.stderr
    told = looks.named(tmp_path, "map_refused")
    assert told[0]["predicted_bytes"] == pytest.approx(6_000 * 1_000 * 8, rel=0.02), line
    assert [path for path in place.rglob("*") if path.name.startswith("tmp")] == []
    assert place.stat().st_dev != tmp_path.stat().st_dev and _used(place) < 1_000_000
    seen = calls.read_text().splitlines()
    assert len(seen) == len(set(seen)) <= 1_000 * max(1, processes), "one piece a process, each row once"


def test_a_map_that_fits_is_what_it_was_and_calls_the_function_once_a_row(tmp_path: Path) -> None:
    """Attacks: fingerprints, so that a cache made without Outlast is found with it, and the other way round."""
    calls = tmp_path / "calls"
    command = looks.python(SCRIPTS / "map_script.py", tmp_path / "data", 50, 2, calls)
    environment = child_environment(HF_DATASETS_DISABLE_PROGRESS_BARS="1")
    done = guarded(tmp_path / "run", "--", *command, environment=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = calls.read_text().splitlines()
    assert len(seen) == len(set(seen)) == 6_000
    plain = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert plain.stdout == done.stdout and "mapped 6000 600" in plain.stdout
    assert len(calls.read_text().splitlines()) == 6_000, "found in the cache"


def test_a_save_to_disk_that_does_not_fit_is_refused_and_one_that_takes_the_place_of_another_is_not(
    volume: Callable[..., Path], tmp_path: Path
) -> None:
    """Attacks: 8 MB to 10 MB twice: beside itself there is no room, in its own place there is."""
    place = volume("10m")
    save = (
        "import datasets, sys; d = datasets.Dataset.from_dict({'text': ['x' * 1000] * 8000});"
        "[d.save_to_disk(folder) for folder in sys.argv[1:]]"
    )
    command = ["--", sys.executable, "-c", save]
    environment = child_environment(HF_DATASETS_DISABLE_PROGRESS_BARS="1")
    done = guarded(tmp_path, *command, place / "a", place / "a", place / "b", environment=environment)
    assert done.returncode == 1 and f"save_to_disk needs about 8.0 MB in {place}/b" in done.stderr, done.stderr[-2000:]
    assert (place / "a" / "state.json").exists() and not (place / "b").exists()


def _used(place: Path) -> int:
    figures = os.statvfs(place)
    return (figures.f_blocks - figures.f_bfree) * figures.f_frsize
