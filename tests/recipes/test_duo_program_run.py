"""The seeds' command at toy width on real text: it learns; its perplexity, its text; restarts, accumulation, memory."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from duo import checkpoint, evaluate, saving, settings, text, train
from duo.dit import DiT
from duo.settings import Settings
from outlast.errors import BadInput

# Lightning's own: torch functions that it should no longer use, advice about workers.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*:DeprecationWarning", "ignore:.*:UserWarning", "ignore:.*:FutureWarning"
)

RECIPE = Path(__file__).resolve().parents[2] / "recipes/duo"
SEEDS = (
    "mode=train data=openwebtext-split algo=duo_base algo.backbone=hf_dit strategy=single loader.batch_size=2 "
    "loader.global_batch_size=2 loader.eval_batch_size=2 loader.eval_global_batch_size=2 trainer.max_steps=100 "
    "trainer.devices=1 trainer.num_nodes=1 trainer.accelerator=gpu trainer.precision=16 "
    "trainer.accumulate_grad_batches=1 trainer.log_every_n_steps=10 wandb.offline=true"
)
TOY = ["model=toy", "model.length=32", "data.vocab_size=512", "data.rows=30", "optim.lr=3e-3"]


def asked(place: Path, *words: str) -> Settings:
    given = [*SEEDS.split(), *TOY, f"data.cache_dir={_CACHE[-1]}", f"checkpointing.save_dir={place / 'run'}", *words]
    with initialize_config_dir(str(RECIPE / "configs"), version_base=None):
        values = OmegaConf.to_container(compose("config", given), resolve=True)
    return settings.read(values)  # type: ignore[arg-type]


def figures(run: Path, key: str) -> list[float]:
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [line[key] for line in lines if key in line]


@pytest.fixture(autouse=True)
def without_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(1)


_CACHE: list[Path] = []


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The text is fetched and tokenised once for all of them."""
    _CACHE.append(tmp_path_factory.mktemp("cache"))
    yield
    _CACHE.clear()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The place of a run of the seeds' command that has come to its end."""
    place = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        torch.set_num_threads(1)
        train.run(asked(place, "trainer.val_check_interval=50", "checkpointing.every_n_train_steps=40"))
    yield place


def test_the_seeds_command_learns(trained: Path) -> None:
    held_out = figures(trained / "run", "val/nll")
    assert held_out[-1] < held_out[0] < math.log(512) + 1
    assert len(figures(trained / "run", "loss")) == 10


def test_it_keeps_two_newest_and_the_best_and_a_link_not_all(trained: Path) -> None:
    files = sorted(path.name for path in (trained / "run/checkpoints").glob("*.ckpt"))
    assert files == ["best-step=100.ckpt", "last.ckpt", "step=100.ckpt", "step=80.ckpt"]
    assert (trained / "run/checkpoints/last.ckpt").is_symlink()
    newest = saving.newest(asked(trained))
    assert newest is not None
    assert newest.name in ("best-step=100.ckpt", "step=100.ckpt")


def test_perplexity_of_the_trained_is_well_below_that_of_the_untrained(trained: Path, tmp_path: Path) -> None:
    evaluate.perplexity(asked(trained, "trainer.limit_val_batches=null"))
    of_trained = json.loads((trained / "run/perplexity.json").read_text())
    tokenizer = f"data.tokenizer={trained / 'run/tokenizer.json'}"
    evaluate.perplexity(asked(tmp_path, tokenizer, "trainer.limit_val_batches=null"))
    of_untrained = json.loads((tmp_path / "run/perplexity.json").read_text())
    assert of_trained["perplexity"] < 0.6 * of_untrained["perplexity"]
    assert (of_trained["step"], of_untrained["step"]) == (100, None)
    assert of_trained["blocks"] == of_trained["blocks_in_all"]
    assert of_trained["perplexity"] == pytest.approx(math.exp(of_trained["nats_per_token"]))


def test_samples_are_text_and_there_are_as_many_as_asked_for(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate.sample(
        asked(trained, "sampling.steps=8", "sampling.num_sample_batches=2", "sampling.predictor=greedy_tail")
    )
    held = json.loads((trained / "run/samples.json").read_text())
    assert len(held["samples"]) == 4
    assert (held["step"], held["steps"], held["noise_removal"]) == (100, 8, "greedy")
    assert all(isinstance(sample["text"], str) and sample["text"] for sample in held["samples"])
    assert "sampling" in capsys.readouterr().err


def test_a_checkpoint_that_was_copied_away_is_enough_to_evaluate(trained: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere.ckpt"
    copy.write_bytes((trained / "run/checkpoints/last.ckpt").read_bytes())
    loaded = checkpoint.load(copy)
    assert (loaded.step, loaded.length, loaded.network.vocab) == (100, 32, loaded.tokenizer.get_vocab_size())
    assert loaded.text == {"asked": "hf://datasets/Skylion007/openwebtext", "used": text.OFFLINE}


def test_what_is_evaluated_are_the_mean_weights(trained: Path) -> None:
    path = trained / "run/checkpoints/last.ckpt"
    raw = torch.load(path, weights_only=True)
    means, loaded = raw["duo"]["ema"]["means"], checkpoint.load(path).network
    assert all(torch.equal(mean, now) for mean, now in zip(means, loaded.parameters(), strict=True))
    assert not torch.equal(raw["state_dict"]["network.embedding.weight"], loaded.embedding.weight)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut short"])
def test_what_is_no_checkpoint_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.ckpt"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="is not a whole checkpoint"):
        checkpoint.load(path)


def test_a_checkpoint_of_another_program_is_an_error(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "a.ckpt")
    with pytest.raises(BadInput, match="not a checkpoint of this program"):
        checkpoint.load(tmp_path / "a.ckpt")


def test_nothing_to_evaluate_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no checkpoint in"):
        evaluate.subject(asked(tmp_path, "algo.backbone=dit"))
    with pytest.raises(BadInput, match="no checkpoint .*gone.ckpt"):
        evaluate.subject(asked(tmp_path, f"eval.checkpoint_path={tmp_path}/gone.ckpt", "algo.backbone=dit"))


def test_a_folder_of_another_run_is_refused_with_what_differs(trained: Path) -> None:
    with pytest.raises(BadInput, match="model.length=32, now 64") as caught:
        train.run(asked(trained, "model.length=64"))
    assert "save_dir=ANOTHER" in caught.value.hint


@pytest.mark.parametrize(
    ("word", "differs"),
    [
        ("optim.lr=1e-4", "optim.lr=0.003, now 0.0001"),
        ("training.ema=0", "training.ema=0.9999, now 0.0"),
        ("optim.warmup_steps=3", "optim.warmup_steps=10, now 3"),
        (
            "trainer.devices=2 strategy=ddp loader.global_batch_size=4 loader.eval_global_batch_size=4",
            "trainer.devices=1",
        ),
    ],
)
def test_what_a_resume_would_leave_out_or_mix_without_a_word_is_refused(trained: Path, word: str, differs: str) -> None:
    with pytest.raises(BadInput, match=differs):
        train.run(asked(trained, *word.split()))


def test_a_run_that_is_made_longer_keeps_its_warm_up(tmp_path: Path) -> None:
    """Attacks: ten times the steps are ten times the warm-up: the rate would fall back in the middle."""
    begun = ("trainer.max_steps=20", "trainer.val_check_interval=20", "trainer.log_every_n_steps=1")
    train.run(asked(tmp_path, *begun))
    train.run(asked(tmp_path, *begun, "trainer.max_steps=60"))
    rates = [line["lr"] for line in map(json.loads, (tmp_path / "run/log.jsonl").open()) if "lr" in line]
    assert len(rates) == 60
    assert rates[2:] == [3e-3] * 58


def test_another_text_in_the_place_of_the_runs_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "text.jsonl"
    words = (f"data.source={source}", f"data.cache_dir={tmp_path / 'cache'}", "data.tokenizer=null", *FEW)
    source.write_text("".join(json.dumps({"text": f"some words of number {n} " * 30}) + "\n" for n in range(30)))
    train.run(asked(tmp_path, *words))
    shutil.rmtree(tmp_path / "cache")
    source.write_text("".join(json.dumps({"text": f"other words, of number {n} " * 30}) + "\n" for n in range(30)))
    with pytest.raises(BadInput, match="begun with another text"):
        train.run(asked(tmp_path, *words, "trainer.max_steps=8"))


def test_last_of_another_run_is_gone_on_from_where_it_is_named(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Attacks: it was taken for the last of this run, of which there is none: a training from the start."""
    last = trained / "run/checkpoints/last.ckpt"
    words = (f"checkpointing.resume_ckpt_path={last}", "trainer.max_steps=102", "trainer.val_check_interval=102")
    train.run(asked(tmp_path, *words))
    assert "goes on from step 100" in capsys.readouterr().out
    with pytest.raises(BadInput, match=r"optim.lr=0.003, now 0.1"):
        train.run(asked(tmp_path / "other", *words, "optim.lr=0.1"))


def test_a_flipped_bit_is_found_before_it_is_measured(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "run/checkpoints", tmp_path / "checkpoints", symlinks=True)
    path = tmp_path / "checkpoints/last.ckpt"
    assert checkpoint.load(path).step == 100
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.resolve().write_bytes(data)
    with pytest.raises(BadInput, match="is not a whole checkpoint"):
        checkpoint.load(path)


def test_a_checkpoint_to_resume_from_that_is_not_there_is_an_error(trained: Path) -> None:
    with pytest.raises(BadInput, match="no checkpoint /gone.ckpt"):
        train.run(asked(trained, "checkpointing.resume_ckpt_path=/gone.ckpt"))


def network_of(run: Path) -> DiT:
    return checkpoint.load(run / "checkpoints/last.ckpt").network


FEW = ("trainer.max_steps=6", "trainer.val_check_interval=6", "trainer.log_every_n_steps=1", "optim.warmup_steps=1")


def test_accumulating_half_batches_is_the_whole_batch(tmp_path: Path) -> None:
    """Times and noise are drawn a batch, so they differ; the count of steps, and the size of a step, do not."""
    words = ("loader.global_batch_size=4", "trainer.accumulate_grad_batches=2", *FEW)
    train.run(asked(tmp_path, *words))
    assert [line["step"] for line in map(json.loads, (tmp_path / "run/log.jsonl").open())] == [1, 2, 3, 4, 5, 6, 6]
    saved = torch.load(tmp_path / "run/checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] == 6
    assert saved["loops"]["fit_loop"]["state_dict"]["combined_loader"][0]["given"] == 12


class LittleMemory:
    """Stands before the network's forward: more than so many samples at once do not fit."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
        self.most, self.failed, original = most, 0, DiT.hidden

        def hidden(network: DiT, z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            if network.training and len(z) > self.most:
                self.failed += 1
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return original(network, z, sigma)

        monkeypatch.setattr(DiT, "hidden", hidden)


def test_steps_that_run_out_of_memory_end_in_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("loader.batch_size=4", "loader.global_batch_size=8", "model.dropout=0.0", *FEW,
             "trainer.accumulate_grad_batches=2")  # fmt: skip
    train.run(asked(tmp_path / "whole", *words))
    memory = LittleMemory(monkeypatch, most=2)
    train.run(asked(tmp_path / "pieces", *words))
    assert memory.failed >= 1
    assert "batch split: 2 samples at once, the batch stays as it is" in capsys.readouterr().out
    whole, pieces = (figures(tmp_path / name / "run", "loss") for name in ("whole", "pieces"))
    assert pieces == pytest.approx(whole, rel=1e-4)
    for one, other in zip(
        network_of(tmp_path / "whole/run").parameters(), network_of(tmp_path / "pieces/run").parameters(), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-4)


def test_samples_while_training_are_written_at_each_validation(tmp_path: Path) -> None:
    train.run(asked(tmp_path, *FEW, "eval.generate_samples=true", "sampling.steps=2"))
    assert len(json.loads((tmp_path / "run/samples-step=6.json").read_text())["samples"]) == 2


def test_a_log_on_a_full_disk_does_not_end_the_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/log.jsonl").symlink_to("/dev/full")
    train.run(asked(tmp_path, *FEW))
    assert "the disk is full; the training goes on" in capsys.readouterr().out


def test_settings_without_mean_weights_train_and_evaluate(tmp_path: Path) -> None:
    train.run(asked(tmp_path, *FEW, "training.ema=0.0", "checkpointing.keep_best=0"))
    evaluate.perplexity(replace_mode(asked(tmp_path, "training.ema=0.0")))
    assert (tmp_path / "run/perplexity.json").exists()


def replace_mode(given: Settings) -> Settings:
    return replace(given, mode="ppl_eval")
