from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.audit.adapters import config, write_adapter

from outlast.checkpoints import Seal
from outlast.checkpoints import seal as seals
from outlast.cli import main

LAYERS = [f"model.layers.{i}.{name}" for i in range(2) for name in ("self_attn.q_proj", "mlp.up_proj")]


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    pairs = {
        name: (random.standard_normal((40, 2)) @ random.standard_normal((2, 16)), random.standard_normal((16, 30)))
        for name in LAYERS
    }
    return write_adapter(tmp_path / "adapter", pairs, dtype="F32", settings=config(r=16, lora_alpha=32))


def test_a_page_says_how_much_is_used_and_what_a_smaller_rank_saves(
    adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", str(adapter)]) == 0
    page = capsys.readouterr().out
    assert "4 layers of rank 16, 4,480 parameters, 17.9 kB" in page
    assert "rank 16, 90 % of the energy in 2: a rank of 2 would cut the adapter from 17.9 kB to 2.2 kB" in page
    assert "block 1" not in page
    assert main(["audit", str(adapter), "--layers"]) == 0
    page = capsys.readouterr().out
    assert "block 1" in page and all(name in page for name in LAYERS)


def test_json_has_every_figure_with_plain_units(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", str(adapter), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {one["name"] for one in found["layers"]} == set(LAYERS)
    assert found["bytes"] == 4 * 4480
    assert found["totals"]["energy_rank_90_p50"] == 2
    assert found["layers"][0]["udr"] is None
    assert set(found["by_kind"]) == {"attention", "mlp"} and set(found["by_depth"]) == {"0", "1"}


def test_a_configuration_is_written_as_peft_takes_it(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from peft import LoraConfig

    file = tmp_path / "smaller/adapter_config.json"
    file.parent.mkdir()
    assert main(["audit", str(adapter), "--write-config", str(file), "--ranks", "uniform-p90"]) == 0
    made = LoraConfig.from_pretrained(str(file.parent))
    assert (made.r, made.lora_alpha, made.target_modules) == (2, 4, {"q_proj"})


def test_a_truncated_adapter_is_written_and_its_error_told(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", str(adapter), "--truncate", "per-layer", "-o", str(tmp_path / "out"), "--layers"]) == 0
    assert "17.9 kB before" in (page := capsys.readouterr().out) and "error of the update: 0.00% in the mean" in page
    assert main(["audit", str(tmp_path / "out"), "--json"]) == 0
    assert {one["r"] for one in json.loads(capsys.readouterr().out)["layers"]} <= {2, 4}
    assert main(["audit", str(adapter), "--truncate", "1", "-o", str(tmp_path / "one"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["truncation"]["cuts"][0]["rank"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--truncate", "4"], "without -o OUT"),
        (["-o", "x"], "without --truncate"),
        (["--revision", "main"], "without --base"),
        (["--write-config", "c.json", "--ranks", "best"], "no suggestion 'best'"),
        (["--truncate", "-3", "-o", "x"], "the rank is -3"),
        (["--adapter", "other"], "no adapter 'other'"),
        (["--base", "/nowhere"], "no folder /nowhere"),
    ],
)
def test_what_cannot_be_done_is_said_with_what_to_do(
    adapter: Path,
    words: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["audit", str(adapter), *words]) == 2
    found = capsys.readouterr().err
    assert said in found and "hint:" in found
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter"]


def test_without_numpy_it_says_what_to_install(adapter: Path) -> None:
    script = (
        "import sys; sys.modules['numpy'] = None; from outlast.cli import main; sys.exit(main(['audit', sys.argv[1]]))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(adapter)], capture_output=True, text=True)
    assert done.returncode == 2
    assert "outlast audit needs numpy" in done.stderr and "pip install '.[audit]'" in done.stderr


def test_a_run_is_shown_what_its_checkpoints_would_save(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (1, 2, 3):
        folder = shutil.copytree(adapter, tmp_path / f"run/checkpoint-{step}")
        files = seals.measure(folder)
        seals.write(folder, Seal(step, "transformers", files, {"weights": tuple(files)}, created=float(step)))
    assert main(["audit", str(tmp_path / "run")]) == 0
    page = capsys.readouterr().out
    assert "checkpoint-3, step 3" in page and "the 3 here" in page
    (folder / "adapter_model.safetensors").write_bytes(b"x" * 20)
    assert main(["audit", str(folder)]) == 1
    assert "is not what checkpoint-3 was sealed with" in capsys.readouterr().err
