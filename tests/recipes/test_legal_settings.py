from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from legal import settings
from legal.keys import KEYS
from legal.training import keep
from outlast import Keep
from outlast.errors import BadInput

SEED = {
    "reduced_batch_size": 8,
    "gradient_accumulation_steps": 2,
    "use_mixed_precision": True,
    "save_optimizer_state": False,
    "clear_cache_every": 100,
}
"""The seed's memory_config, word for word."""


@pytest.mark.parametrize(
    ("name", "micro", "expected"),
    [
        ("default", 16, {"use_mixed_precision": False, "save": "full"}),
        ("optimized", 8, {"use_mixed_precision": True, "save": "light", "keep_n_checkpoints": 2}),
        ("ultra-low", 4, {"save": "light", "save_frequency": "epoch", "num_workers": 0, "keep_only_best": True}),
        ("prototype", 16, {"use_subset": True, "subset_ratio": 0.1, "num_epochs": 2, "save_frequency": "none"}),
        ("quality", 16, {"use_mixed_precision": True, "save": "full"}),
        ("memory-safe", 8, {"max_length": 256, "num_epochs": 5, "learning_rate": 2e-5, "keep_only_best": True}),
    ],
)
def test_a_preset_never_changes_the_effective_batch(name: str, micro: int, expected: dict[str, object]) -> None:
    settled = settings.settle({"data": "d"}, preset_name=name)
    assert (settled.batch, settled.micro_batch) == (16, micro)
    assert {key: settled[key] for key in expected} == expected
    assert name in settings.presets()


def test_the_seeds_memory_config_does_what_it_says_and_shows_before_and_after() -> None:
    settled = settings.settle({"batch_size": 16, "memory_config": SEED})
    assert (settled.batch, settled.micro_batch, settled["save"]) == (16, 8, "light")
    assert settled["use_mixed_precision"] is True and settled["clear_cache_every"] == 100
    shown = settled.shown()
    for part in ("batch_size: 16 -> 8", "gradient_accumulation_steps: - -> 2", "save: 'full' -> 'light'",
                 "clear_cache_every: 100", "effective batch: 16, as before (8 x 2)"):  # fmt: skip
        assert part in shown


def test_not_applied_nothing_of_it_holds() -> None:
    settled = settings.settle({"memory_config": SEED, "apply_memory_optimizations": False})
    assert (settled.batch, settled.micro_batch, settled["save"]) == (16, 16, "full")
    assert settled["clear_cache_every"] == 0 and "none applied" in settled.shown()


def test_the_seeds_template_of_a_plain_configuration_means_the_product() -> None:
    settled = settings.settle(
        {"batch_size": 8, "gradient_accumulation_steps": 2, "max_length": 256, "save_optimizer_state": False}
    )
    assert (settled.batch, settled.micro_batch, settled["save"]) == (16, 8, "light")


def test_what_is_said_later_stands_above() -> None:
    config = {"preset": "optimized", "num_epochs": 7, "memory_config": {"keep_n_checkpoints": 3}}
    assert settings.settle(config)["keep_n_checkpoints"] == 3
    flags = {"keep_n_checkpoints": "4", "num_epochs": "2", "use_mixed_precision": False}
    settled = settings.settle(config, flags=flags)
    assert [settled[key] for key in flags] == [4, 2, False]
    assert settings.settle(config, preset_name="ultra-low").micro_batch == 4
    assert settings.settle({}, flags={"subset_ratio": "0.05"})["use_subset"] is True


def test_the_configuration_beside_the_program_is_one(tmp_path: Path) -> None:
    place = settings.PRESETS.parent / "config.yaml"
    settled = settings.settle(settings.load(place))
    assert (settled.batch, settled.micro_batch, settled["deadline"]) == (16, 8, "9h")
    again = tmp_path / "config.json"
    again.write_text(settings.json.dumps(yaml.safe_load(place.read_text())))
    assert settings.settle(settings.load(again)) == settled


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"bach_size": 8}, "did you mean batch_size?"),
        ({"batch_size": 0}, "expected a whole number from 1 up"),
        ({"batch_size": True}, "expected a whole number from 1 up"),
        ({"subset_ratio": 1.5}, "expected a number above 0 and up to 1"),
        ({"learning_rate": "fast"}, "expected a number above 0"),
        ({"learning_rate": float("nan")}, "expected a number above 0"),
        ({"use_subset": "maybe"}, "expected true or false"),
        ({"save_frequency": "hourly"}, "expected epoch, none, or a number of steps"),
        ({"data": 5}, "expected a text"),
        ({"preset": "turbo"}, "one of default, memory-safe"),
        ({"memory_config": [1]}, "expected keys and values"),
        ({"memory_config": {"reduced_batch_size": 5}}, "one of: 1, 2, 4, 8, 16"),
        ({"memory_config": {"reduced_batch_size": 8, "gradient_accumulation_steps": 4}}, "say batch_size 32"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(config: dict[str, object], expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        settings.settle(config)
    assert expected in str(caught.value)


def test_a_file_that_is_no_configuration_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("- 1\n")
    (tmp_path / "b.yaml").write_text("a: [\n")
    for name, expected in (("a.yaml", "holds a list"), ("b.yaml", "cannot read"), ("c.yaml", "cannot read")):
        with pytest.raises(BadInput, match=expected):
            settings.load(tmp_path / name)


@pytest.mark.parametrize(
    ("count", "only_best", "expected"),
    [
        (None, False, None),
        (2, False, Keep(last=2, best=1, metric="val_f1", mode="max")),
        (None, True, Keep(best=1, metric="val_f1", mode="max")),
        (3, True, Keep(best=3, metric="val_f1", mode="max")),
    ],
)
def test_what_is_kept(count: int | None, only_best: bool, expected: Keep | None) -> None:
    assert keep({"keep_n_checkpoints": count, "keep_only_best": only_best}) == expected


def test_every_key_is_a_flag_and_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location("legal_train", settings.PRESETS.parent / "train.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    with pytest.raises(SystemExit) as ended:
        program.main(["--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert all("--" + key.name.replace("_", "-") in shown for key in KEYS)
    assert program.main(["--batch-size", "x"]) == 2
    assert "expected a whole number" in capsys.readouterr().err
    assert program.main([]) == 2 and "--data FOLDER" in capsys.readouterr().err
