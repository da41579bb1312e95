"""The program's parts: the device, the order of batches, the offline text, the tokenizer, the setup check, restarts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from duo import batches, corpus, machine, network, saving, setup_check, tokens
from duo.batches import Order, Stream
from duo.machine import Facts
from duo.settings import Trainer
from outlast.errors import BadInput

ASKED = Trainer(100, 1, 1, "gpu", "16", 1, 1.0, 10, 500, 100)
NO_GPU = Facts(0, "fp32", None)


def test_accelerator_gpu_without_one_is_said_and_trains_on_the_cpu() -> None:
    chosen = machine.decide(ASKED, NO_GPU)
    assert (chosen.accelerator, chosen.precision) == ("cpu", "32-true")
    assert "no GPU here" in chosen.notes[0]
    assert "precision 16 is for GPUs" in chosen.notes[1]


@pytest.mark.parametrize(
    ("asked", "facts", "accelerator", "precision"),
    [
        ({}, Facts(1, "fp16", None), "gpu", "16-mixed"),
        ({"precision": "auto"}, Facts(1, "fp16", None), "gpu", "16-mixed"),
        ({"precision": "bf16"}, Facts(1, "fp16", "a T4 emulates it"), "gpu", "bf16-mixed"),
        ({"precision": "bf16", "accelerator": "cpu"}, Facts(1, "bf16", None), "cpu", "bf16-mixed"),
        ({"precision": "32", "accelerator": "auto"}, NO_GPU, "cpu", "32-true"),
    ],
)
def test_device_and_precision(asked: dict[str, str], facts: Facts, accelerator: str, precision: str) -> None:
    chosen = machine.decide(replace(ASKED, **asked), facts)
    assert (chosen.accelerator, chosen.precision) == (accelerator, precision)
    assert not facts.doubt or facts.doubt in chosen.notes[0]


def test_more_gpus_than_there_are_is_an_error() -> None:
    with pytest.raises(BadInput, match="2 GPUs are here"):
        machine.decide(replace(ASKED, devices=4), Facts(2, "bf16", None))
    with pytest.raises(BadInput, match="trainer.precision is '8'"):
        machine.decide(replace(ASKED, precision="8"), NO_GPU)


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 3), st.integers(0, 9))
def test_each_epoch_shows_every_block_once_whatever_the_ranks(blocks: int, batch: int, world: int, seed: int) -> None:
    if blocks < batch * world:
        with pytest.raises(BadInput, match="less than one batch"):
            Order(blocks, batch, seed, 0, world)
        return
    orders = [Order(blocks, batch, seed, rank, world) for rank in range(world)]
    for epoch in range(2):
        numbers = range(epoch * orders[0].per_epoch, (epoch + 1) * orders[0].per_epoch)
        seen = [index for number in numbers for order in orders for index in order.batch(number)]
        assert len(seen) == len(set(seen)) == blocks // (batch * world) * batch * world


@given(st.integers(0, 30), st.integers(0, 5))
def test_the_order_is_a_function_of_the_seed_and_the_number_alone(number: int, seed: int) -> None:
    walked = Order(20, 2, seed)
    for earlier in range(number):
        walked.batch(earlier)
    assert walked.batch(number) == Order(20, 2, seed).batch(number)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_goes_on_behind_the_batches_that_were_given(workers: int) -> None:
    blocks = torch.utils.data.Subset(list(map(torch.tensor, range(20))), range(20))  # type: ignore[arg-type, var-annotated]
    straight = [batch.tolist() for batch in Stream(blocks, Order(20, 2, 1), 25)]
    first = Stream(blocks, Order(20, 2, 1), 25, workers)
    begun = iter(first)
    seen = [next(begun).tolist() for _ in range(13)]
    second = Stream(blocks, Order(20, 2, 1), 25, workers)
    second.load_state_dict(first.state_dict())
    del begun
    assert [*seen, *(batch.tolist() for batch in second)] == straight


def test_reading_batches_draws_nothing_from_the_global_generator() -> None:
    blocks = torch.utils.data.Subset(list(map(torch.tensor, range(8))), range(8))  # type: ignore[arg-type, var-annotated]
    before = torch.random.get_rng_state()
    list(Stream(blocks, Order(8, 2, 1), 4))
    assert torch.equal(before, torch.random.get_rng_state())


def test_seeds_of_near_numbers_are_unrelated_and_fit_torch() -> None:
    found = {batches.mixed(1, "train", index, rank) for index in range(50) for rank in range(4)}
    assert len(found) == 200
    assert all(0 <= seed < 2**63 for seed in found)


def test_the_offline_text_is_real_mixed_and_the_same_each_time(tmp_path: Path) -> None:
    documents = list(corpus.library())
    assert len(documents) > 300
    assert documents == list(corpus.library())
    assert any("def " in text for text in documents[:10])
    assert all(corpus.LEAST_BYTES <= len(text.encode()) <= corpus.MOST_BYTES for text in documents)
    first = corpus.write(tmp_path, "body")
    stamp = first.stat().st_mtime_ns
    assert corpus.write(tmp_path, "body") == first
    assert first.stat().st_mtime_ns == stamp


def test_a_library_with_files_that_cannot_be_read_is_still_a_text(tmp_path: Path) -> None:
    (tmp_path / "good.py").write_text("x = 1  # " + "words " * 200)
    (tmp_path / "latin.py").write_bytes(b"# \xe9\n" * 400)
    (tmp_path / "test").mkdir()
    (tmp_path / "test/skipped.py").write_text("y = 2  # " + "words " * 200)
    texts = list(corpus.library(tmp_path))
    assert any(text.startswith("x = 1") for text in texts)
    assert not any(text.startswith(("y = 2", "# ")) and "words" in text for text in texts if not text.startswith("x"))


TEXTS = ["def f(x):\n    return x + 1\n" * 20, "import os\nprint(os.getcwd())\n" * 20]


def tokenizer(saved: Path, wanted: str | None, said: list[str], **options: bool) -> object:
    return tokens.for_run(wanted, saved, lambda: TEXTS, 300, said.append, **options)


def test_a_bpe_is_trained_where_none_is_to_be_had_and_saved_with_the_run(tmp_path: Path) -> None:
    said: list[str] = []
    made = tokenizer(tmp_path / "a/tokenizer.json", "gpt2", said, is_online=False)
    assert "gpt2 is not to be had (no network)" in said[0]
    assert made.get_vocab_size() <= 300  # type: ignore[attr-defined]
    assert made.decode(made.encode(TEXTS[0]).ids) == TEXTS[0]  # type: ignore[attr-defined]
    again = tokens.for_run(None, tmp_path / "a/tokenizer.json", lambda: ["other text"], 500, said.append)
    assert again.to_str() == made.to_str()  # type: ignore[attr-defined]
    assert tokens.from_text(again.to_str()).get_vocab() == again.get_vocab()


def test_the_same_text_gives_the_same_bpe() -> None:
    assert tokens.train(TEXTS, 300).to_str() == tokens.train(TEXTS, 300).to_str()


def test_a_tokenizer_from_a_file_or_folder(tmp_path: Path) -> None:
    saved = tmp_path / "a/tokenizer.json"
    made = tokenizer(saved, None, [])
    for number, wanted in enumerate((saved, saved.parent)):
        found = tokenizer(tmp_path / f"{number}.json", str(wanted), [])
        assert found.to_str() == made.to_str()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("content", "message"), [("{}", "holds no tokenizer"), (None, "holds no tokenizer")])
def test_what_is_no_tokenizer_is_an_error(tmp_path: Path, content: str | None, message: str) -> None:
    place = tmp_path / "given"
    place.mkdir()
    if content is not None:
        (place / "tokenizer.json").write_text(content)
    with pytest.raises(BadInput, match=message):
        tokenizer(tmp_path / "saved.json", str(place), [])
    assert not (tmp_path / "saved.json").exists()


def test_a_tokenizer_without_an_end_of_text_is_an_error(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordLevel({"a": 0})).save(str(tmp_path / "plain.json"))
    with pytest.raises(BadInput, match="documents need an end"):
        tokenizer(tmp_path / "saved.json", str(tmp_path / "plain.json"), [])


GOOD = setup_check.Facts(
    (3, 12), dict.fromkeys(setup_check.NEEDED, "1.0"), None, (("Tesla T4", 15.8, "fp16"),), False, False, "/k",
    20_000_000_000, True, True, "11000",
)  # fmt: skip


def test_a_good_machine_has_nothing_to_mend() -> None:
    lines = setup_check.judge(GOOD)
    assert {line.mark for line in lines} == {setup_check.OK}
    assert any("9,900 documents to train on, 1,100 held out" in line.what for line in lines)


@pytest.mark.parametrize(
    ("change", "mark", "fix"),
    [
        ({"python": (3, 10)}, "✗", "3.11"),
        ({"versions": {**GOOD.versions, "lightning": None}, "lightning_as": "2.6"}, "✗", "'.[recipes]'"),
        ({"versions": {**GOOD.versions, "torch": None}, "gpus": None}, "✗", "pip install torch"),
        ({"gpus": ()}, "!", "Accelerator"),
        ({"gpus": (("K80", 5.0, "fp32"),)}, "!", "model=tiny"),
        ({"free_bytes": 6_000_000_000}, "!", "keep_last=1"),
        ({"free_bytes": 1_000_000_000}, "✗", "cleanup_kaggle_cache.sh"),
        ({"free_bytes": None}, "!", "outlast doctor"),
        ({"can_write": False}, "✗", "save_dir"),
        ({"hub": False}, "!", "Internet"),
        ({"subset": None}, "!", "OWT_SUBSET_NUM=11000"),
        ({"subset": "all"}, "✗", "OWT_SUBSET_NUM=11000"),
    ],
)
def test_each_fault_of_a_machine_has_its_line_and_fix(change: dict[str, object], mark: str, fix: str) -> None:
    lines = [line for line in setup_check.judge(replace(GOOD, **change)) if line.mark != setup_check.OK]  # type: ignore[arg-type]
    assert [line.mark for line in lines] == [mark]
    assert lines[0].fix is not None
    assert fix in lines[0].fix
    assert "fix: " in str(lines[0])


def test_this_machine_can_be_looked_at(tmp_path: Path) -> None:
    facts = setup_check.look(tmp_path, {"HF_HUB_OFFLINE": "1", "OWT_SUBSET_NUM": "50"})
    assert facts.versions["torch"] == torch.__version__
    assert (facts.hub, facts.subset, facts.can_write) == (False, "50", True)


def test_the_checkpoint_that_was_resumed_from_is_let_go_too(tmp_path: Path) -> None:
    """Lightning's own rule keeps it for ever: a file more with each restart."""

    class FromIt:
        ckpt_path = str(tmp_path / "step=40.ckpt")

    callback = saving.Kept(dirpath=tmp_path)
    assert callback._should_remove_checkpoint(FromIt(), str(tmp_path / "step=40.ckpt"), str(tmp_path / "step=60.ckpt"))
    assert not callback._should_remove_checkpoint(FromIt(), "a.ckpt", "a.ckpt")


class Door:
    """What `socket.create_connection` gives, or fails with."""

    def __init__(self, error: OSError | None = None) -> None:
        self.error, self.asked = error, []

    def __call__(self, address: tuple[str, int], timeout: float) -> Door:
        self.asked.append(address)
        if self.error:
            raise self.error
        return self

    def close(self) -> None:
        return


@pytest.mark.parametrize(
    ("source", "environment", "asked"),
    [
        ("hf://datasets/a/b", {}, [("huggingface.co", 443)]),
        ("hf://datasets/a/b", {"HF_ENDPOINT": "http://mirror:8080"}, [("mirror", 8080)]),
        ("hf://datasets/a/b", {"HTTPS_PROXY": "http://p:1"}, []),
        ("https://host/x.parquet", {}, [("host", 443)]),
        ("s3://bucket/x", {}, []),
        ("/data/x.parquet", {}, []),
    ],
)
def test_a_way_to_a_source_is_asked_for_at_its_own_door(
    source: str, environment: dict[str, str], asked: list[tuple[str, int]]
) -> None:
    door = Door()
    assert network.unreachable(source, environment, door) is None  # type: ignore[arg-type]
    assert door.asked == asked
    closed = Door(OSError(101, "Network is unreachable"))
    assert (network.unreachable(source, environment, closed) is None) == (not asked)  # type: ignore[arg-type]


def test_an_offline_hub_is_believed_without_asking() -> None:
    assert network.unreachable("hf://datasets/a/b", {"HF_HUB_OFFLINE": "true"}, Door()) == "HF_HUB_OFFLINE is set"  # type: ignore[arg-type]
