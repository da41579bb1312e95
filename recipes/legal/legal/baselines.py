"""What a model has to beat: the commonest class, and TF-IDF with logistic regression, on the very same sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from legal.sentences import Example


def commonest(train: Sequence[Example], held_out: Sequence[Example], labels: Sequence[str]) -> list[int]:
    """The class that training has most of, whatever the sentence."""
    label = Counter(one.label for one in train).most_common(1)[0][0]
    return [list(labels).index(label)] * len(held_out)


def tf_idf(train: Sequence[Example], held_out: Sequence[Example], labels: Sequence[str]) -> list[int]:
    """Words and pairs of words, logistic regression; the context's words count like the sentence's.

    One class in training leaves nothing to learn: then it is that class.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    if len({one.label for one in train}) < 2:
        return commonest(train, held_out, labels)
    vectors = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\w+")
    known = vectors.fit_transform(_texts(train))
    model = LogisticRegression(C=10.0, max_iter=2000).fit(known, [one.label for one in train])
    number = {label: at for at, label in enumerate(labels)}
    return [number[str(label)] for label in model.predict(vectors.transform(_texts(held_out)))]


def _texts(made: Sequence[Example]) -> list[str]:
    return [f"{one.text} {one.before}" for one in made]
