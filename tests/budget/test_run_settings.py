"""What a configuration says, wherever in it that stands; and what a run is made of."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlast.budget import SaveBytes, Thing, Volume
from outlast.budget.documents import load
from outlast.budget.inputs import resolve, size_of, with_defaults
from outlast.budget.settings import KEYS, Said, first, from_document, told
from outlast.checkpoints import Keep
from outlast.errors import BadInput
from outlast.host.numbers import Number, shown

GB = 10**9
SIZE = SaveBytes(GB, 2 * GB, 0, 0, "a test")
HERE = Volume("/data", 100 * GB, (Thing("used before", 0),))


def run_of(said: dict[str, Any], **more: Any):
    return resolve(with_defaults({name: Said(value, "a test") for name, value in said.items()}), HERE, SIZE, **more)


def test_sections_are_looked_through_and_each_value_says_where_it_stood() -> None:
    found = from_document(
        {"model": {"name": "x"}, "training": {"args": {"save_steps": "1000"}, "max_steps": 28000}}, "t.yaml"
    )
    assert found == {
        "every": Said(1000.0, "t.yaml: training.args.save_steps"),
        "steps": Said(28000, "t.yaml: training.max_steps"),
    }


def test_what_stands_higher_counts() -> None:
    found = from_document({"save_steps": 100, "eval": {"save_steps": 5}}, "t.yaml")
    assert found["every"] == Said(100.0, "t.yaml: save_steps")


def test_two_places_of_one_depth_that_disagree_are_bad_input() -> None:
    with pytest.raises(BadInput, match=r"a.save_steps is 100.0 and b.save_steps is 5.0"):
        from_document({"a": {"save_steps": 100}, "b": {"save_steps": 5}}, "t.yaml")
    assert from_document({"a": {"save_steps": 5}, "b": {"save_steps": 5}}, "t.yaml")["every"].value == 5


def test_lightnings_callbacks_are_found_in_their_list() -> None:
    trainer = {
        "max_epochs": 3,
        "callbacks": [{"init_args": {"save_top_k": 2, "save_last": True, "every_n_train_steps": 50}}],
    }
    found = from_document({"trainer": trainer}, "t.yaml")
    assert {name: said.value for name, said in found.items()} == {
        "epochs": 3.0, "limit": 2, "copies_last": True, "every": 50.0, "framework": "lightning"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"), [("save_steps", "often"), ("max_steps", 1.5), ("save_only_model", "maybe"), ("output_dir", 7)]
)
def test_a_value_of_the_wrong_form_is_named_with_what_was_expected(key: str, value: object) -> None:
    with pytest.raises(BadInput, match=f"t.json: a.{key} is") as error:
        from_document({"a": {key: value}}, "t.json")
    assert error.value.hint.startswith("expected")


@pytest.mark.parametrize("document", [[], "text", None, 5])
def test_what_is_no_mapping_holds_no_settings(document: object) -> None:
    with pytest.raises(BadInput, match="holds no settings"):
        from_document(document, "t.yaml")


@pytest.mark.parametrize("key", [key for key, (_, kind) in KEYS.items() if isinstance(kind, Number)])
@pytest.mark.parametrize(
    "value", [True, math.nan, math.inf, -math.inf, 10**400, -(16**5000), {"a": 1}, [4], "many"], ids=shown
)
def test_a_number_is_finite_and_no_truth_mapping_or_list(key: str, value: object) -> None:
    with pytest.raises(BadInput, match=f"t.json: a.{key} is") as error:
        from_document({"a": {key: value}}, "t.json")
    assert error.value.hint.startswith("expected") and len(error.value.message) < 300


@pytest.mark.parametrize(
    ("key", "value"),
    [("per_device_train_batch_size", -4), ("per_device_train_batch_size", 0), ("gradient_accumulation_steps", 0),
     ("save_steps", 0), ("save_steps", -5), ("logging_steps", -1), ("save_strategy", "fortnightly"),
     ("hub_strategy", "often"), ("output_dir", "a\0b"), ("output_dir", "a\ud800b"), ("max_steps", -7)],
)  # fmt: skip
def test_a_value_that_makes_no_sense_is_named(key: str, value: object) -> None:
    with pytest.raises(BadInput, match=f"t.json: {key} is"):
        from_document({key: value}, "t.json")


@pytest.mark.parametrize(
    ("key", "value", "read"),
    [("save_top_k", -1, 0), ("save_total_limit", -5, 0), ("save_strategy", "SaveStrategy.EPOCH", "epoch"),
     ("checkpointing_steps", "epoch", "1epoch"), ("checkpointing_steps", "500", 500.0), ("save_steps", 0.1, 0.1)],
)  # fmt: skip
def test_what_frameworks_take_is_taken(key: str, value: object, read: object) -> None:
    (said,) = [one.value for name, one in from_document({key: value}, "t.json").items() if name != "framework"]
    assert said == read


def test_lightnings_endless_epochs_say_nothing_beside_steps() -> None:
    document = from_document({"max_epochs": -1, "max_steps": 1000, "save_steps": 500}, "t.yaml")
    run, _ = resolve(with_defaults(document), HERE, SIZE)
    assert run.last_step == 1000
    with pytest.raises(BadInput, match="how many steps"):
        resolve(with_defaults(from_document({"max_epochs": -1, "save_steps": 5}, "t.yaml")), HERE, SIZE)


def test_a_section_may_be_called_as_a_setting_that_is_a_word() -> None:
    found = from_document({"optim": {"lr": 0.1, "save_steps": 5}}, "t.yaml")
    assert found["every"] == Said(5.0, "t.yaml: optim.save_steps")


@pytest.mark.parametrize("anchor", ["x: &x\n  y: *x", "x: &x [*x]", "x: &x\n  - {z: *x}"])
def test_a_section_that_holds_itself_is_read_once(tmp_path: Path, anchor: str) -> None:
    (tmp_path / "r.yaml").write_text(f"max_steps: 100\n{anchor}\n  \n")
    assert from_document(load(tmp_path / "r.yaml"), "r.yaml")["steps"].value == 100


def test_nine_levels_of_nine_aliases_are_read_at_once(tmp_path: Path) -> None:
    laugh = ["l0: &l0 {save_steps: 7}"]
    laugh += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 10)]
    (tmp_path / "r.yaml").write_text("\n".join(laugh))
    assert from_document(load(tmp_path / "r.yaml"), "r.yaml")["every"] == Said(7.0, "r.yaml: l0.save_steps")
    with pytest.raises(BadInput, match="max_steps is a list"):
        from_document({"max_steps": load(tmp_path / "r.yaml")["l9"]}, "r.yaml")


@given(st.data())
def test_any_graph_of_sections_is_walked_to_its_end(data: st.DataObject) -> None:
    nodes: list[dict[str, Any]] = [{} for _ in range(data.draw(st.integers(1, 12)))]
    for node in nodes:
        for name in data.draw(st.lists(st.sampled_from("abcdefghi"), unique=True)):
            node[name] = data.draw(st.sampled_from(nodes))
    nodes[0]["max_steps"] = 5
    assert from_document(nodes[0], "t.yaml")["steps"].value == 5


def test_what_a_script_tells_is_read_as_strictly() -> None:
    assert told({"steps": -1, "every": 0.1, "log_every": 10}, "train.py")["steps"] == Said(-1, "train.py")
    with pytest.raises(BadInput, match="train.py: accumulation is 0"):
        told({"accumulation": 0}, "train.py")


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*KEYS, "a", "b"]), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from([*KEYS, "training"]), TREES, max_size=5))
def test_any_document_is_read_or_is_bad_input(document: dict[str, Any]) -> None:
    try:
        from_document(document, "t.yaml")
    except BadInput as error:
        assert "t.yaml" in error.message


def test_the_first_layer_that_says_it_counts() -> None:
    flag, file = {"every": Said(1, "--save-every")}, {"every": Said(2, "f"), "steps": Said(3, "f")}
    assert first(flag, file) == {"every": Said(1, "--save-every"), "steps": Said(3, "f")}


def test_a_trainers_json_dump_is_read_whole(tmp_path: Path) -> None:
    """The keys as `TrainingArguments.to_json_string` writes them, null and -1 for what is not set."""
    path = tmp_path / "training_args.json"
    dump = {"output_dir": "out", "save_strategy": "steps", "save_steps": 500, "save_total_limit": None, "max_steps": -1,
            "num_train_epochs": 3.0, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2,
            "optim": "adamw_torch_fused", "load_best_model_at_end": False, "logging_steps": 500}  # fmt: skip
    path.write_text(json.dumps(dump))
    said = with_defaults({**from_document(load(path), path.name), "samples": Said(16_000, "--samples")})
    run, shown = resolve(said, HERE, SIZE)
    assert (run.last_step, run.every, run.saves.keep) == (3000, 500, Keep())
    assert shown["steps"].source == "3 epochs of 1000 steps (training_args.json: num_train_epochs)"
    assert shown["limit"].source == "the default of transformers"


@pytest.mark.parametrize("name", ["training_args.bin", "a.pt", "b.pkl"])
def test_a_pickle_is_refused_before_it_is_opened(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match="is a pickle: to read it is to run what it holds"):
        load(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "text"), [("a.json", "{"), ("a.yaml", "a: [1"), ("a.yaml", "!!python/object/apply:os.system ['true']"),
                       ("a.json", "[" * 100_000), ("a.yml", "\x00"),
                       ("a.yaml", '!!int ""'), ("a.yaml", "!!timestamp x"), ("a.yaml", "!!bool x")],
)  # fmt: skip
def test_what_does_not_parse_is_bad_input(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match=f"{name} is not"):
        load(tmp_path / name)


def test_a_file_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        load(tmp_path / "none.yaml")


def test_without_pyyaml_yaml_says_what_to_do_and_json_is_still_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    (tmp_path / "a.yaml").write_text("save_steps: 5")
    (tmp_path / "b.yaml").write_text('{"save_steps": 5}')
    with pytest.raises(BadInput, match="there is no PyYAML") as error:
        load(tmp_path / "a.yaml")
    assert "pip install pyyaml" in error.value.hint
    assert load(tmp_path / "b.yaml") == {"save_steps": 5}


def test_the_trainers_defaults_stand_where_nothing_is_said() -> None:
    run, said = run_of({"steps": 2000})
    assert (run.every, run.saves.steps, run.saves.habit.name) == (500, (500, 1000, 1500, 2000), "transformers")
    assert said["every"].source == "the default of transformers"


def test_epochs_are_counted_from_samples() -> None:
    run, _ = run_of({"samples": 1001, "batch": 4, "accumulation": 4, "epochs": 2.0, "strategy": "epoch"})
    assert (run.last_step, run.every) == (126, 63)


def test_lightning_saves_each_epoch_and_keeps_one_unless_told() -> None:
    run, _ = run_of({"framework": "lightning", "epochs": 3.0, "steps_per_epoch": 100})
    assert (run.saves.steps, run.saves.keep) == ((100, 200, 300), Keep(last=1))


def test_saving_with_the_best_of_each_evaluation_may_save_at_every_one() -> None:
    run, _ = run_of({"steps": 1000, "strategy": "best", "eval_every": 100.0})
    assert len(run.saves.steps) == 10


def test_a_push_to_the_hub_copies_the_weights_once() -> None:
    run, _ = run_of({"steps": 2000, "pushes": True})
    assert [(thing.bytes, thing.from_step) for thing in run.volume.things[1:]] == [(GB, 500)]
    run, _ = run_of({"steps": 2000, "pushes": True, "push_strategy": "end"})
    assert len(run.volume.things) == 1


@pytest.mark.parametrize(
    ("said", "words"),
    [({}, "how many steps"), ({"steps": 100, "strategy": "no"}, "no save lies ahead"),
     ({"steps": 10**9, "every": 1.0}, "1,000,000,000 saves are too many"),
     ({"steps": 100}, None), ({"framework": "accelerate", "steps": 100}, "how often it saves"),
     ({"steps": 100, "strategy": "epoch"}, "by epochs"), ({"framework": "keras", "steps": 1}, "no framework called")],
)  # fmt: skip
def test_what_is_missing_is_named(said: dict[str, Any], words: str | None) -> None:
    if words is None:
        assert run_of(said)[0].saves.steps == (100,), "a Trainer saves its last step"
        return
    with pytest.raises(BadInput, match=words):
        run_of(said)


def test_the_size_is_said_then_measured_then_counted() -> None:
    counts = {"params": Said(10**6, "--params")}
    inside = {
        "weights_bytes": Said(400, "train.py"),
        "trained_bytes": Said(400, "train.py"),
        "trained": Said(100, "train.py"),
    }
    assert size_of({**counts, **inside, "save_bytes": Said(3 * GB, "--save-bytes")}, SIZE).full == 3 * GB
    assert size_of({**counts, **inside}, SIZE) is SIZE
    assert size_of({**counts, **inside}, None).full > 12 * 10**6
    assert size_of(inside, None).source == "counted, train.py: 100 numbers trained, adamw"
    with pytest.raises(BadInput, match="how large a save is"):
        size_of({}, None)


def test_an_optimizer_that_nobody_knows_is_taken_for_adamw_and_said_to_be() -> None:
    inside = {"weights_bytes": 400, "trained_bytes": 400, "trained": 100, "optimizer": "Shampoo", "tensors": 2}
    size = size_of({name: Said(value, "train.py") for name, value in inside.items()}, None)
    assert size.moments == 800 + 2 * 800
    assert size.source.endswith("Shampoo (Shampoo is not known: taken for AdamW)")
