"""Trivial baselines: what any trained model must beat on the same rows.

Each takes training and test rows and returns one answer a test row, to be scored by `evaluate_answers` and
compared, paired, with a model's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from ...models.errors import DataError, MissingExtra
from ...runtime.data.shapes import Row


def majority(train: Sequence[Row], test: Sequence[Row]) -> list[str]:
    """The most frequent answer of the training rows, for every test row; ties go to the first in the alphabet."""
    counts = Counter(row.answer for row in _answered(train))
    best = min(counts, key=lambda answer: (-counts[answer], answer))
    return [best] * len(test)


def nearest_tfidf(train: Sequence[Row], test: Sequence[Row]) -> list[str]:
    """The answer of the training row whose question is nearest, by the cosine of their TF-IDF vectors.

    Ties go to the row that comes first. Raises MissingExtra without scikit-learn.
    """
    answers = [row.answer for row in _answered(train)]
    vectorizer = _vectorizer()
    known = _vectors(vectorizer.fit_transform, train)
    asked = _vectors(vectorizer.transform, test)
    nearest: list[int] = []
    for start in range(0, asked.shape[0], 256):  # the dense block of similarities stays small
        nearest += (asked[start:start + 256] @ known.T).toarray().argmax(axis=1).tolist()
    return [answers[index] for index in nearest]


def linear_svm(train: Sequence[Row], test: Sequence[Row]) -> list[str]:
    """Labels from a linear support vector machine on TF-IDF vectors.

    Raises DataError for training rows with a single label, MissingExtra without scikit-learn.
    """
    labels = [row.answer for row in _answered(train)]
    if len(set(labels)) < 2:
        raise DataError(f"every training row has the same label, {labels[0]!r}",
                        "a classifier needs rows of at least two labels")
    vectorizer = _vectorizer()
    from sklearn.svm import LinearSVC

    machine = LinearSVC(random_state=0).fit(_vectors(vectorizer.fit_transform, train), labels)
    return [str(label) for label in machine.predict(_vectors(vectorizer.transform, test))]


def trivial_answers(train: Sequence[Row], test: Sequence[Row]) -> dict[str, list[str]]:
    """All baselines that suit the rows, strongest last: {name: one answer a test row}; none for plain text."""
    if not train or train[0].kind == "text":
        return {}
    strongest = linear_svm if train[0].kind == "label" else nearest_tfidf
    return {"majority": majority(train, test), strongest.__name__: strongest(train, test)}


def _answered(train: Sequence[Row]) -> Sequence[Row]:
    if not train or not all(row.answer for row in train):
        raise DataError("a baseline needs training rows, each with an answer", "give rows of questions with answers")
    return train


def _vectorizer() -> Any:
    """TF-IDF over words, pairs of words, and 2 to 5 characters within words: each half has length 1."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.pipeline import make_union
    except ImportError:
        raise MissingExtra("scikit-learn", "train") from None
    return make_union(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
                      TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True))


def _vectors(transform: Any, rows: Sequence[Row]) -> Any:
    try:
        return transform([row.question for row in rows])
    except ValueError as error:  # raised for questions without a single word
        raise DataError(f"TF-IDF found no words in {len(rows)} questions: {error}",
                        "check the rows' questions") from None
