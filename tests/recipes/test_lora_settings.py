"""recipes/lora: knobs from presets, files and flags."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lora.settings import CONFIGS, KNOBS, changed, from_file, parse
from outlast.errors import BadInput

SEED_001 = {
    "max_steps": 28_000, "num_train_epochs": 3.0, "per_device_train_batch_size": 12, "gradient_accumulation_steps": 1,
    "logging_steps": 10, "eval_steps": 500, "lora_r": 64, "output_dir": "/data/Cogumi-LLM/checkpoints",
}  # fmt: skip


@pytest.mark.parametrize(("preset", "every", "limit"), [("vast_h100", 1000, 3), ("vast_h100_fixed", 2000, 2)])
def test_the_presets_of_seed_001_have_its_numbers(preset: str, every: int, limit: int) -> None:
    settings = parse(["--preset", preset])
    assert {name: getattr(settings, name) for name in SEED_001} == SEED_001
    assert (settings.save_steps, settings.save_total_limit) == (every, limit)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_preset_is_understood_and_says_nothing_in_vain(path: Path) -> None:
    told = {key: value for section in yaml.safe_load(path.read_text()).values() for key, value in section.items()}
    assert len(from_file(path)) == len(told)
    settings = parse(["--preset", path.stem])
    assert settings.others == {}
    assert settings.output_dir == told["output_dir"]


def test_a_flag_stands_above_the_file_and_the_file_above_the_default(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "training: {save_steps: 7, learning_rate: 2e-5, adam_beta2: 0.95}\nlora: {targets: [q_proj, v_proj]}\n"
    )
    settings = parse(["--config", str(file), "--save_steps=9", "--set", "max_grad_norm=0.3"])
    assert settings.save_steps == 9
    assert settings.learning_rate == 2e-5  # YAML 1.1 reads 2e-5 as text
    assert settings.lora_targets == "q_proj,v_proj"
    assert settings.others == {"adam_beta2": 0.95, "max_grad_norm": 0.3}
    assert settings.save_total_limit == 2
    assert set(changed(settings)) == {"save_steps", "learning_rate", "lora_targets"}


def test_no_limit_can_be_said_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("training: {save_total_limit: null}\n")
    assert parse(["--config", str(tmp_path / "a.yaml")]).save_total_limit is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lora: {rank: 4}", "unknown 'rank'"),
        ("trainer: {save_steps: 4}", "unknown 'trainer'"),
        ("training: {save_steps: often}", "save_steps: expected int, came 'often'"),
        ("training: {save_steps: 2.5}", "save_steps: expected int, came 2.5"),
        ("training: {gradient_checkpointing: 3}", "expected bool, came 3"),
        ("training: {save_steps: 0}", "expected 1 or more, came 0"),
        ("model: {quantization: int8}", "unknown 'int8'"),
        ("model: {dtype: null}", "dtype: expected str"),
        ("training", "expected sections, came str"),
        ("training: 3", "training is not a section of keys"),
        ("a: [", "cannot be read as YAML"),
    ],
)
def test_what_is_not_understood_is_said_with_what_was_expected(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(BadInput) as told:
        parse(["--config", str(tmp_path / "a.yaml")])
    assert said in told.value.message
    assert told.value.hint


def test_a_preset_that_is_not_there_is_told_what_there_is() -> None:
    with pytest.raises(BadInput, match="t4, toy, vast_h100, vast_h100_fixed"):
        parse(["--preset", "unknown"])


def test_a_file_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        parse(["--config", str(tmp_path / "none.yaml")])


def test_set_wants_a_key_and_a_value() -> None:
    with pytest.raises(BadInput, match="KEY=VALUE"):
        parse(["--set", "max_grad_norm"])


@pytest.mark.parametrize(
    ("word", "value"), [("true", True), ("none", None), ("3", 3), ("1e-8", 1e-8), ("adamw", "adamw")]
)
def test_a_word_after_set_is_the_value_that_it_looks_like(word: str, value: object) -> None:
    assert parse(["--set", f"x={word}"]).others == {"x": value}


def test_help_names_every_knob(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert [knob.name for knob in KNOBS if f"--{knob.name.replace('_', '-')}" not in said] == []
