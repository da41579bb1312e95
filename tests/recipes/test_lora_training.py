"""recipes/lora: whole trainings at toy size, in this process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from tests.builders import flip_bit

from lora import adapter, base, training
from lora.settings import Settings, parse
from outlast.checkpoints import Vault
from outlast.errors import BadInput, NoWayBack

# PEFT asks Transformers by the old name.
pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
WORDS = (
    "--preset toy --limit 60 --max-steps 6 --save-steps 2 --per-device-train-batch-size 2 --max-length 48 "
    "--lora-r 4 --logging-steps 1 --eval-steps 3"
)


def told(folder: Path, *more: str) -> Settings:
    return parse([*WORDS.split(), "--output-dir", str(folder), *more])


def losses(folder: Path, step: int) -> list[tuple[int, float]]:
    log = json.loads((folder / f"checkpoint-{step}" / "trainer_state.json").read_text())["log_history"]
    return [(entry["step"], entry["loss"]) for entry in log if "loss" in entry]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that came to its end."""
    folder = tmp_path_factory.mktemp("lora") / "run"
    training.run(told(folder, "--lora-dropout", "0.1"))
    return folder


@pytest.fixture
def changeable(finished: Path) -> Iterator[Path]:
    """The same folder, to be changed: put back afterwards. A copy elsewhere would have another base by its path."""
    kept = finished.with_name("kept")
    shutil.copytree(finished, kept)
    yield finished
    shutil.rmtree(finished)
    kept.rename(finished)


IDS = torch.arange(5, 40)[None]


def test_peft_loads_the_final_adapter_and_its_logits_are_those_of_the_training(finished: Path) -> None:
    again = transformers.AutoModelForCausalLM.from_pretrained(finished / "base")
    plain = again(IDS).logits
    loaded = peft.PeftModel.from_pretrained(again, finished / "final").eval()
    newest = peft.PeftModel.from_pretrained(
        transformers.AutoModelForCausalLM.from_pretrained(finished / "base"), finished / "checkpoint-6"
    ).eval()
    assert torch.equal(loaded(IDS).logits, newest(IDS).logits)
    assert not torch.allclose(loaded(IDS).logits, plain, atol=1e-3)
    assert isinstance(peft.AutoPeftModelForCausalLM.from_pretrained(finished / "final"), peft.PeftModel)


def test_the_final_adapters_configuration_can_be_audited(finished: Path) -> None:
    found = json.loads((finished / "final/adapter_config.json").read_text())
    assert found["base_model_name_or_path"] == str(finished / "base")
    assert (found["r"], found["lora_alpha"], found["revision"], found["peft_type"]) == (4, 64, None, "LORA")
    assert found["target_modules"] == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert list(found) == sorted(found)


def test_the_final_tokenizer_asks_as_the_training_did(finished: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(finished / "final")
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "x"}], tokenize=False, add_generation_prompt=True
    )
    assert asked == "<s>### User:\nx\n\n### Assistant:\n"


def test_nothing_half_written_is_left_beside_it(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names == {".outlast", "run.json", "base", "final", "checkpoint-2", "checkpoint-4", "checkpoint-6"}


def test_a_training_that_is_done_is_done_again_at_once_and_ends_in_the_same_adapter(changeable: Path) -> None:
    before = (changeable / "final/adapter_model.safetensors").read_bytes()
    (changeable / ".final-part").mkdir()  # of a run that was killed while it wrote it
    training.run(told(changeable, "--lora-dropout", "0.1"))
    assert (changeable / "final/adapter_model.safetensors").read_bytes() == before
    assert not (changeable / ".final-part").exists()


def test_a_damaged_newest_checkpoint_is_passed_over_and_the_losses_stay_the_same(changeable: Path) -> None:
    expected = losses(changeable, 6)
    flip_bit(changeable / "checkpoint-6/adapter_model.safetensors")
    training.run(told(changeable, "--lora-dropout", "0.1"))
    assert losses(changeable, 6) == expected
    assert [c.step for c in Vault(changeable).checkpoints() if Vault(changeable).check(c).is_whole] == [2, 4, 6]


def test_when_no_checkpoint_is_whole_it_says_so_and_does_not_begin_afresh(changeable: Path) -> None:
    for path in changeable.glob("checkpoint-*/adapter_model.safetensors"):
        flip_bit(path)
    with pytest.raises(NoWayBack, match="none of 3 sealed checkpoints"):
        training.run(told(changeable, "--lora-dropout", "0.1"))


@pytest.mark.parametrize(("flag", "value", "said"), [("--lora-r", "8", "r: 4 there, 8 now"),
                                                     ("--lora-targets", "q_proj", "target_modules: ")])  # fmt: skip
def test_going_on_with_another_adapter_is_refused(finished: Path, flag: str, value: str, said: str) -> None:
    with pytest.raises(BadInput, match="is of another training") as error:
        training.run(told(finished, flag, value))
    assert said in error.value.message


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--per-device-train-batch-size 4", "batch: 2 there, 4 now"),
        ("--gradient-accumulation-steps 2", "batch: 2 there, 4 now"),
        ("--limit 50", "data: "),
        ("--max-length 40", "data: "),
        ("--learning-rate 0.1", "learning_rate: "),
        ("--seed 7", "seed: 42 there, 7 now"),
    ],
)
def test_going_on_with_another_batch_data_rate_or_seed_is_refused(finished: Path, words: str, said: str) -> None:
    """Attacks: the Trainer would go on at the wrong place of the data, or leave the new rate out, without a word."""
    with pytest.raises(BadInput) as caught:
        training.run(told(finished, "--lora-dropout", "0.1", *words.split()))
    assert said in str(caught.value)


def test_the_same_batch_in_other_pieces_and_more_steps_go_on(changeable: Path) -> None:
    pieces = ("--per-device-train-batch-size", "1", "--gradient-accumulation-steps", "2")
    training.run(told(changeable, "--lora-dropout", "0.1", "--max-steps", "8", *pieces))
    assert [step for step, _ in losses(changeable, 8)] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_fresh_start_among_checkpoints_is_refused(finished: Path) -> None:
    with pytest.raises(BadInput, match="--resume never, and .*checkpoint-6 is there"):
        training.run(told(finished, "--lora-dropout", "0.1", "--resume", "never"))


def test_checkpoints_are_ordered_by_number_not_by_name(tmp_path: Path) -> None:
    for name in ("checkpoint-9000", "checkpoint-10000", "checkpoint-10001-part", "checkpoint-best"):
        (tmp_path / name).mkdir()
    assert adapter.newest(tmp_path) == tmp_path / "checkpoint-10000"
    assert max(tmp_path.glob("checkpoint-*[0-9]")).name == "checkpoint-9000", "what sorted(glob(...)) takes for newest"


def test_a_folder_that_is_not_there_has_no_newest(tmp_path: Path) -> None:
    assert adapter.newest(tmp_path / "none") is None


def _no_saves(folder: Path, *more: str) -> Settings:
    return told(folder, "--max-steps", "3", "--save-steps", "3", "--validation", "0", *more)


def test_gradient_checkpointing_and_eager_attention_end_in_the_same_losses(tmp_path: Path) -> None:
    training.run(_no_saves(tmp_path / "a"))
    training.run(_no_saves(tmp_path / "b", "--gradient-checkpointing"))
    training.run(_no_saves(tmp_path / "c", "--attention", "eager"))
    first = [loss for _, loss in losses(tmp_path / "a", 3)]
    for name in "bc":
        assert [loss for _, loss in losses(tmp_path / name, 3)] == pytest.approx(first, rel=1e-4)


@pytest.mark.parametrize("preset", ["vast_h100", "vast_h100_fixed", "t4"])
def test_the_large_presets_run_as_they_are_on_a_small_model(
    finished: Path, tmp_path: Path, preset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--model", str(finished / "base"), "--data", "offline", "--limit", "40", "--max-steps", "2"]
    training.run(parse(["--preset", preset, *small, "--validation", "0.2", "--output-dir", str(tmp_path)]))
    said = capsys.readouterr().out
    assert ("4-bit (nf4) needs" in said) == (preset == "t4")
    config = json.loads((tmp_path / "final/adapter_config.json").read_text())
    assert config["r"] == {"t4": 16}.get(preset, 64)
    assert json.loads((tmp_path / "checkpoint-2/trainer_state.json").read_text())["max_steps"] == 2


def test_a_batch_that_runs_out_of_memory_is_split_and_the_losses_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training.run(_no_saves(tmp_path / "a", "--per-device-train-batch-size", "4"))
    whole, sizes = transformers.LlamaForCausalLM.forward, []

    def forward(self: Any, input_ids: torch.Tensor, **more: Any) -> Any:
        sizes.append(len(input_ids))
        if len(input_ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return whole(self, input_ids=input_ids, **more)

    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", forward)
    training.run(_no_saves(tmp_path / "b", "--per-device-train-batch-size", "4"))
    assert 4 in sizes
    assert sizes.count(2) >= 6
    first, split = ([loss for _, loss in losses(tmp_path / name, 3)] for name in "ab")
    assert split == pytest.approx(first, rel=1e-4)


def test_the_best_adapter_by_validation_is_the_final_one_where_that_is_asked_for(tmp_path: Path) -> None:
    best = ["--set", "load_best_model_at_end=true", "--set", "metric_for_best_model=loss", "--eval-steps", "2"]
    # The learning rate explodes at the end, so the best is not the last.
    root = tmp_path / "run"
    training.run(told(root, "--validation", "0.1", "--learning-rate", "3", "--lr-scheduler-type", "constant", *best))
    state = json.loads((root / "checkpoint-6/trainer_state.json").read_text())
    named = Path(state["best_model_checkpoint"])
    assert named.parent == root
    assert named.name != "checkpoint-6", "then this would show nothing"
    assert (named / "adapter_model.safetensors").read_bytes() == (root / "final/adapter_model.safetensors").read_bytes()


def test_a_model_and_its_tokenizer_are_taken_from_a_folder(finished: Path, tmp_path: Path) -> None:
    training.run(_no_saves(tmp_path / "run", "--model", str(finished / "base"), "--dtype", "bfloat16"))
    assert not (tmp_path / "run/base").exists()
    found = json.loads((tmp_path / "run/final/adapter_config.json").read_text())
    assert found["base_model_name_or_path"] == str(finished / "base")


def test_a_tokenizer_without_template_and_padding_gets_both_and_it_is_said(finished: Path, tmp_path: Path) -> None:
    made = transformers.AutoTokenizer.from_pretrained(finished / "base")
    made.chat_template = made.pad_token = None
    made.save_pretrained(tmp_path)
    source = base.Source(str(tmp_path), is_ours=False, is_there=True)
    tokenizer, said = base.tokenizer_of(source, parse([]), [])
    assert tokenizer.chat_template
    assert tokenizer.pad_token == "</s>"
    assert [line.partition(":")[0] for line in said] == [
        "the tokenizer has no chat template", "the tokenizer has no padding token",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "/no/such/folder"], "no model could be loaded from /no/such/folder"),
        (["--lora-targets", "query"], "--lora-targets query"),
        (["--set", "max_grad_nrm=1"], "training.max_grad_nrm is not a knob"),
        (["--lr-scheduler-type", "saw"], "Transformers refuses these settings"),
        (["--validation", "2"], "expected a share of 0 to 1"),
        (["--limit", "3", "--validation", "0.01"], "leaves 3 conversations to train on and 0 to validate"),
        (["--deadline", "soon"], "cannot read the deadline 'soon'"),
    ],
)
def test_what_cannot_be_had_is_said_before_anything_is_written(tmp_path: Path, words: list[str], said: str) -> None:
    with pytest.raises(BadInput) as error:
        training.run(told(tmp_path / "run", *words))
    assert said in error.value.message
    assert not (tmp_path / "run").exists()


def test_the_tiny_base_is_the_same_for_the_same_seed_whatever_was_drawn_before(tmp_path: Path) -> None:
    tokenizer = base._trained(training.conversations(parse(["--limit", "20"]))[0])

    def weights(seed: int) -> dict[str, Any]:
        torch.rand(1)
        return base.tiny(parse(["--seed", str(seed)]), tokenizer, "x").state_dict()

    one, two, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["model.embed_tokens.weight"], other["model.embed_tokens.weight"])
