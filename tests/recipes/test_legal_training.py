from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import outlast
from legal import report, settings, training
from outlast import journal
from outlast.errors import BadInput

FACTS = ("The {} met the {} on a day of May.", "A {} was seen beside the {}.")
RULINGS = ("It is held that the {} owes the {}.", "The appeal of the {} against the {} fails.")
PARTIES = ("seller", "buyer", "tenant", "landlord", "carrier", "bank")


def _make_documents(folder: Path, count: int = 20) -> Path:
    folder.mkdir()
    for number in range(count):
        one, other = PARTIES[number % 6], PARTIES[(number + 1 + number // 6) % 6]
        said = [*(text.format(one, other) for text in FACTS), *(text.format(one, other) for text in RULINGS)]
        document = {"sentences": said, "labels": ["facts", "facts", "ruling", "ruling"]}
        (folder / f"case-{number:02}.json").write_text(json.dumps(document))
    return folder


@pytest.fixture
def settle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., settings.Settings]:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("outlast.check_memory", lambda: None)
    torch.set_num_threads(1)
    data = _make_documents(tmp_path / "data")

    def make(preset: str | None = None, **more: object) -> settings.Settings:
        few = {"data": str(data), "out": str(tmp_path / "run"), "model": "small", "max_length": 32, "num_epochs": 2,
               "learning_rate": 3e-3, "validation": 0.3, "log_every": 1}  # fmt: skip
        return settings.settle(preset_name=preset, flags={**few, **more})

    return make


def _run(settled: settings.Settings) -> dict[str, object]:
    return report.write(training.train(settled))


def test_a_run_leaves_a_report_and_the_best_model_for_from_pretrained(settle, tmp_path: Path) -> None:
    found = _run(settle("optimized", keep_n_checkpoints=1, context=1))
    out = tmp_path / "run"
    assert json.loads(json.dumps(found)) == json.loads((out / "report.json").read_text())
    own, _, commonest = found["scores"].values()
    assert own["macro_f1"] > commonest["macro_f1"]
    assert sum(map(sum, own["confusion"])) == found["data"]["held_out_sentences"]
    epochs = [one["val_f1"] for one in found["epochs"]]
    assert found["chosen"]["val_f1"] == max(epochs) == own["macro_f1"]
    text = (out / "report.md").read_text()
    assert "| ruling |" in text and "TF-IDF + logistic regression" in text and "Rows: what it is" in text
    model = AutoModelForSequenceClassification.from_pretrained(out / "best")
    tokenizer = AutoTokenizer.from_pretrained(out / "best")
    inputs = tokenizer(["It is held that the bank owes the buyer."], return_tensors="pt")
    assert model.config.id2label[int(model(**inputs).logits.argmax())] in ("facts", "ruling")
    weights = out / "best" / "model.safetensors"
    assert weights.samefile(out / "checkpoints" / found["chosen"]["name"] / "model.safetensors"), "no byte twice"
    again = _run(settle("optimized", keep_n_checkpoints=1, context=1))
    assert again["scores"] == found["scores"], "what has come to its end is reported again, not trained again"


@pytest.mark.parametrize("preset", settings.presets())
def test_every_preset_trains(settle, tmp_path: Path, preset: str) -> None:
    settled = settle(preset, num_epochs=1, use_mixed_precision=False, clear_cache_every=2)
    found = _run(settled)
    assert found["steps"] == -(-found["data"]["train_sentences"] // 16), "the batch is 16 whatever is done at once"
    kinds = {one.kind for one in outlast_checkpoints(tmp_path)}
    assert kinds == {settled["save"]}


def outlast_checkpoints(tmp_path: Path):
    from outlast.checkpoints import Vault

    return Vault(tmp_path / "run" / "checkpoints").checkpoints()


def test_pieces_of_any_size_make_the_same_steps(settle, tmp_path: Path) -> None:
    """No dropout here, so that nothing but the size of the pieces differs."""

    def losses(name: str, **more: object) -> list[float]:
        settled = settle(out=str(tmp_path / name), num_epochs=1, **more)
        done = training.train(settled)
        return [one["loss"] for one in done.log.entries("loss")]

    from legal import model

    sizes = {**model.SMALL_SIZES, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "SMALL_SIZES", sizes)
        whole = losses("whole")
        assert losses("pieces", reduced_batch_size=4) == pytest.approx(whole, rel=1e-4)
        assert losses("again", use_gradient_checkpointing=True) == pytest.approx(whole, rel=1e-5)


def test_how_often_it_is_saved(settle, tmp_path: Path) -> None:
    def steps(name: str, **more: object) -> list[int]:
        training.train(settle(out=str(tmp_path / name), num_epochs=2, batch_size=8, **more))
        events = journal.runs(tmp_path / name / "checkpoints")
        return [event.get("step") for run in events for event in journal.read(tmp_path / name / "checkpoints", run)
                if event.name == "sealed"]  # fmt: skip

    each = steps("epoch")
    assert len(each) == 2 and each[1] == 2 * each[0]
    assert steps("none", save_frequency="none") == each[1:]
    assert steps("steps", save_frequency=3) == sorted({*range(3, each[1] + 1, 3), *each}) or each[0] % 3


def test_a_run_of_other_settings_or_data_is_not_gone_on_with(settle, tmp_path: Path) -> None:
    training.train(settle(num_epochs=1))
    with pytest.raises(BadInput, match="learning_rate: 0.003 -> 0.001"):
        training.train(settle(num_epochs=1, learning_rate=1e-3))
    (tmp_path / "data" / "case-99.json").write_text('{"sentences": ["New."], "labels": ["facts"]}')
    with pytest.raises(BadInput, match="data: "):
        training.train(settle(num_epochs=1))


def test_a_start_that_failed_does_not_hold_its_folder(settle, tmp_path: Path) -> None:
    """Attacks: a wrong word, then the right one, in the same folder; the vocabulary is not that of the other data."""
    with pytest.raises(BadInput, match="cannot start from"):
        training.train(settle(model="no such/name/at all"))
    fresh = _run(settle(num_epochs=1, out=str(tmp_path / "fresh")))
    again = _run(settle(num_epochs=1))
    assert again["scores"] == fresh["scores"]
    ours, theirs = (tmp_path / name / "start/tokenizer.json" for name in ("run", "fresh"))
    assert ours.read_bytes() == theirs.read_bytes()


def test_without_network_a_small_bert_stands_in_and_says_so(settle, capsys: pytest.CaptureFixture[str]) -> None:
    found = _run(settle(model="law-ai/InLegalBERT", num_epochs=1))
    said = "a small BERT from random weights, its vocabulary from the training data (law-ai/InLegalBERT is not on"
    assert said in capsys.readouterr().out and str(found["model"]).startswith(said)


def test_a_folder_with_a_model_is_trained_on_and_the_start_is_kept(settle, tmp_path: Path) -> None:
    _run(settle(num_epochs=4))
    folder = tmp_path / "given"
    (tmp_path / "run" / "best").rename(folder)
    found = _run(settle(model=str(folder), num_epochs=1, out=str(tmp_path / "second")))
    assert found["model"] == str(folder)
    first = [json.loads(line) for line in (tmp_path / "second" / "log.jsonl").read_text().splitlines()][0]
    assert first["loss"] < 0.5, "it starts from what was learned"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"model": "no such/name/at all"}, "cannot start from no such/name/at all"),
        ({"max_length": 64, "model": "GIVEN"}, "max_length is 64, the model takes 32 tokens"),
        ({"model": "EMPTY"}, "cannot start from"),
        ({"data": "NOWHERE"}, "there is no"),
        ({"validation": 0.001}, "expected some on both sides"),
    ],
)
def test_what_cannot_be_trained_is_said_before_anything_is_left(settle, tmp_path: Path, more, expected: str) -> None:
    places = {"GIVEN": tmp_path / "run" / "best", "EMPTY": tmp_path / "empty", "NOWHERE": tmp_path / "nowhere"}
    places["EMPTY"].mkdir()
    if "GIVEN" in more.values():
        _run(settle(num_epochs=1))
    changed = {name: str(places.get(value, value)) if isinstance(value, str) else value for name, value in more.items()}
    with pytest.raises(BadInput) as caught:
        training.train(settle(**{"out": str(tmp_path / "bad"), **changed}))
    assert expected in str(caught.value)
    assert not (tmp_path / "bad" / "checkpoints").exists()


def test_prediction_goes_in_halves_when_memory_runs_out(settle) -> None:
    done = training.train(settle(num_epochs=1))
    model = done.start.model
    rows = training.Encoded(done.held_out, done.split.labels, done.start.tokenizer, 32)
    real, sizes = model.forward, []

    def short(**batch: torch.Tensor) -> object:
        sizes.append(len(batch["input_ids"]))
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return real(**batch)

    model.forward = short
    assert training.predict(done.run, model, rows, 16) == done.predicted and max(sizes) > 3
    model.forward = lambda **batch: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(torch.OutOfMemoryError):
        training.predict(done.run, model, rows, 1)


def test_a_log_that_was_cut_is_mended_and_holds_no_step_that_was_lost(tmp_path: Path) -> None:
    from legal.books import Log

    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.0}\n{"step": 3, "lo')
    log = Log(path, 1)
    log.add(step=2, loss=2.5)
    assert [json.loads(line) for line in path.read_text().splitlines()] == log.entries("loss")
    assert [one["loss"] for one in log.entries("loss")] == [3.0, 2.5]


def test_a_session_that_ends_is_gone_on_with_by_the_same_call(settle) -> None:
    settled = settle(deadline="1s", num_epochs=1, batch_size=4)
    with pytest.raises(outlast.Stopped) as stopped:
        training.train(settled)
    assert stopped.value.code == 0 and stopped.value.step == 1
    done = training.train(settle(num_epochs=1, batch_size=4))
    assert done.run.resumed is not None and [one["step"] for one in done.log.entries("loss")] == list(
        range(1, done.run.steps_done + 1)
    )
