"""Promises: an audit's figures are exact, and what it writes is whole, whoever writes too and whenever it is killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from hypothesis import given, settings
from safetensors.torch import save_file

from outlast.audit import audit_lora_peft_dir
from tests.audit.adapters import config, write_adapter
from tests.audit.against_dense import adapters, compare
from tests.torture.conftest import child_environment, outlast, share
from tests.torture.hub_server import serving

_SHAPE = (900, 700)
_AUDIT = "import sys; from outlast.audit import audit_lora_peft_dir; audit_lora_peft_dir(*sys.argv[1:])"


@settings(max_examples=share(1000))
@given(adapters)
def test_a_thousand_adapters_have_the_figures_of_dense_svds(case: dict[str, object]) -> None:
    compare(case)


def _model(folder: Path, layers: int, shape: tuple[int, int] = _SHAPE) -> tuple[Path, Path]:
    """An adapter, and a base in a shard for each layer."""
    values = np.random.default_rng(0)
    names = [f"model.layers.{i}.q_proj" for i in range(layers)]
    pairs = {name: (values.standard_normal((shape[0], 4)), values.standard_normal((4, shape[1]))) for name in names}
    adapter = write_adapter(folder / "adapter", pairs)
    base = folder / "base"
    base.mkdir()
    table = {}
    for number, name in enumerate(names):
        table[f"{name}.weight"] = f"model-{number}.safetensors"
        weight = torch.tensor(values.standard_normal(shape)).to(torch.bfloat16)
        save_file({f"{name}.weight": weight}, base / table[f"{name}.weight"])
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    return adapter, base


def _start(*words: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", _AUDIT, *map(str, words)], env=child_environment())


def test_two_processes_at_once_make_one_whole_file(tmp_path: Path) -> None:
    adapter, base = _model(tmp_path, 8)
    both = [_start(adapter, base, tmp_path / "cache") for _ in range(2)]
    assert [one.wait(timeout=300) for one in both] == [0, 0]
    alone = audit_lora_peft_dir(adapter, str(base), tmp_path / "alone")
    (file,) = (tmp_path / "cache").glob("*.json")
    (other,) = (tmp_path / "alone").glob("*.json")
    assert file.read_bytes() == other.read_bytes()
    assert all(layer.udr is not None for layer in alone.layers)


def test_killed_anywhere_the_norms_are_those_of_an_undisturbed_call(tmp_path: Path) -> None:
    adapter, base = _model(tmp_path, 12)
    expected = audit_lora_peft_dir(adapter, str(base), tmp_path / "alone").layers
    order = random.Random(7)
    for _ in range(share(30)):
        child = _start(adapter, base, tmp_path / "cache")
        time.sleep(order.uniform(0.2, 1.5))
        child.send_signal(signal.SIGKILL)
        child.wait(timeout=60)
        for file in (tmp_path / "cache").glob("*.json"):
            json.loads(file.read_bytes())
    assert audit_lora_peft_dir(adapter, str(base), tmp_path / "cache").layers == expected


def test_the_norms_of_a_large_base_take_two_matrices_of_memory(tmp_path: Path) -> None:
    rows, columns = 14336, 4096
    matrix_bytes = rows * columns * 2
    # 8 GB in the full count. Holes in the shards: the disk is not filled, zeros are read, one part has numbers.
    shards = share(68)
    names = [f"model.layers.{i}.up_proj" for i in range(shards)]
    values = np.random.default_rng(0)
    pair = (values.standard_normal((rows, 1)), values.standard_normal((1, columns)))
    adapter = write_adapter(tmp_path / "adapter", dict.fromkeys(names, pair), dtype="F16", settings=config(r=1))
    base = tmp_path / "base"
    base.mkdir()
    table = {}
    for number, name in enumerate(names):
        table[f"{name}.weight"] = f"model-{number:05}.safetensors"
        entry = {"dtype": "BF16", "shape": [rows, columns], "data_offsets": [0, matrix_bytes]}
        header = json.dumps({f"{name}.weight": entry}).encode()
        with (base / table[f"{name}.weight"]).open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            part = torch.tensor(values.standard_normal(columns * 64)).to(torch.bfloat16).view(torch.int16)
            file.write(part.numpy().tobytes())
            file.truncate(8 + len(header) + matrix_bytes)
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    script = f"{_AUDIT}; import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    done = subprocess.run(
        [sys.executable, "-c", script, adapter, base, tmp_path / "cache"],
        env=child_environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=570,
    )
    assert int(done.stdout) * 1024 < 2 * matrix_bytes + 300e6
    cache = json.loads(next((tmp_path / "cache").glob("*.json")).read_bytes())
    assert all(norm["sigma_max"] > 0 for norm in cache["norms"].values()) and len(cache["norms"]) == shards


def test_a_truncated_adapter_on_a_full_volume_is_not_there_at_all(tmp_path: Path, volume: Callable[..., Path]) -> None:
    values = np.random.default_rng(0)
    pairs = {f"l{i}.q_proj": (values.standard_normal((4000, 8)), values.standard_normal((8, 4000))) for i in range(4)}
    adapter = write_adapter(tmp_path / "adapter", pairs, settings=config(r=8))
    place = volume("1m")
    done = outlast("audit", adapter, "--truncate", 7, "-o", place / "out", "--json")
    assert done.returncode == 1, done.stderr
    assert "hint: -o on a volume with more room" in done.stderr
    assert os.listdir(place) == []
    roomy = volume("4m")
    done = outlast("audit", adapter, "--truncate", 2, "-o", roomy / "out", "--json")
    assert done.returncode == 0, done.stderr
    assert {layer.r for layer in audit_lora_peft_dir(roomy / "out").layers} == {2}


def test_a_killed_call_keeps_the_norms_that_are_done(tmp_path: Path) -> None:
    adapter, base = _model(tmp_path, 100)
    child = _start(adapter, base, tmp_path / "cache")
    while child.poll() is None and not list((tmp_path / "cache").glob("*.json")):
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait(timeout=60)
    (file,) = (tmp_path / "cache").glob("*.json")
    kept = set(json.loads(file.read_bytes())["norms"])
    again: list[str] = []
    audit_lora_peft_dir(adapter, str(base), tmp_path / "cache", tell=lambda done, total, what: again.append(what))
    assert kept and not kept & set(again)


def test_a_base_on_the_hub_is_downloaded_once_and_only_its_weights(tmp_path: Path) -> None:
    adapter, base = _model(tmp_path, 3, (60, 50))
    files = {path.name: path.read_bytes() for path in base.iterdir()}
    environment = child_environment(HF_HUB_CACHE=str(tmp_path / "hub"), HF_HUB_DISABLE_XET="1")
    del environment["HF_HUB_OFFLINE"]
    command = [sys.executable, "-m", "outlast", "audit", adapter, "--base", "org/model", "--json"]
    with serving({"models/org/model": {**files, "pytorch_model.bin": b"not this one"}}) as hub:
        environment |= {"HF_ENDPOINT": hub.url, "GRADIENCE_CACHE_DIR": str(tmp_path / "gradience")}
        first = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert first.returncode == 0, first.stderr
        assert not any("pytorch_model.bin" in asked for asked in hub.requests if "resolve" in asked)
        hub.requests.clear()
        second = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert hub.requests == []
    figures = json.loads(first.stdout)["layers"]
    assert figures == json.loads(second.stdout)["layers"]
    alone = audit_lora_peft_dir(adapter, str(base), tmp_path / "alone")
    assert [one["udr"] for one in figures] == [layer.udr for layer in alone.layers]
    assert list((tmp_path / "gradience/base_norms").glob("*.json"))
