from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from legal import baselines, model
from legal.documents import Document, Sentence
from legal.scores import score
from legal.sentences import Encoded, Example, examples

LABELS = ["a", "b", "c", "d"]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=50))
def test_scores_are_those_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    truth, said = [one for one, _ in pairs], [one for _, one in pairs]
    found = score(truth, said, LABELS)
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, said, labels=range(4), average=None, zero_division=0.0
    )
    for name, values in {"precision": precision, "recall": recall, "f1": f1, "support": support}.items():
        assert [getattr(one, name) for one in found.classes] == pytest.approx(list(values))
    assert np.array_equal(found.confusion, confusion_matrix(truth, said, labels=range(4)))
    assert found.macro_f1 == pytest.approx(np.mean(f1[support > 0]))
    assert found.accuracy == pytest.approx(np.mean(np.equal(truth, said)))


def test_nothing_to_score_is_an_error() -> None:
    for truth, said in (([], []), ([1], [])):
        with pytest.raises(ValueError):
            score(truth, said, LABELS)


def test_context_is_what_stood_before_in_the_same_document() -> None:
    documents = [Document(name, tuple(Sentence(f"{name}{n}", "x") for n in range(3))) for name in ("p", "q")]
    assert [(one.text, one.before) for one in examples(documents, 2)] == [
        ("p0", ""), ("p1", "p0"), ("p2", "p0 p1"), ("q0", ""), ("q1", "q0"), ("q2", "q0 q1"),
    ]  # fmt: skip
    assert {one.before for one in examples(documents, 0)} == {""}


def test_the_baselines_learn_what_words_tell_and_the_commonest_class() -> None:
    train = [Example(f"the {word} of it", "", label) for word, label in (("cat", "a"), ("dog", "b"), ("cow", "b"))]
    held_out = [Example("a cat", "", "a"), Example("some dog", "", "b")]
    assert baselines.tf_idf(train, held_out, LABELS) == [0, 1]
    assert baselines.commonest(train, held_out, LABELS) == [1, 1]
    assert baselines.tf_idf(train[1:], held_out, LABELS) == [1, 1]


TEXTS = ["the law is the law", "a ruling of the court was given in the matter of rulings", "held"]


@pytest.mark.parametrize("context", ["", "before it stood this"])
def test_a_batch_is_what_the_tokenizer_says_padded_to_its_longest(context: str) -> None:
    tokenizer = model._small_tokenizer(TEXTS)
    made = [Example(text, context, "a") for text in TEXTS]
    rows = Encoded(made, ["a"], tokenizer, 16)
    batch = rows.together([rows[at] for at in range(3)])
    expected = tokenizer(
        TEXTS, [context] * 3 if context else None, truncation=True, max_length=16, padding=True, pad_to_multiple_of=8,
        return_tensors="pt",
    )  # fmt: skip
    assert set(batch) == {*expected, "labels"}
    assert all(batch[name].equal(expected[name]) for name in expected)
    short = Encoded(made, ["a"], tokenizer, 9)
    assert short.together([short[1]])["input_ids"].shape[1] == 9, "a model takes no more"
    assert sorted(int(at) for few in rows.by_length(2) for at in few) == [0, 1, 2]


def test_the_small_vocabulary_knows_its_texts_and_nothing_more() -> None:
    tokenizer = model._small_tokenizer(TEXTS)
    assert tokenizer.unk_token_id not in tokenizer("Ruling of the law!"[:-1])["input_ids"]
    assert tokenizer.unk_token_id in tokenizer("z")["input_ids"]
