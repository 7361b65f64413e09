"""`runtime.evaluation.labels` against scikit-learn, and at the edges."""

from __future__ import annotations

import random

import numpy as np
import pytest
from edgestill.runtime.data.row import Row
from edgestill.runtime.evaluation.intervals import share
from edgestill.runtime.evaluation.labels import Confusion, by_label, confusions


def rows(labels: list[str]) -> list[Row]:
    return [Row(text="x", label=label) for label in labels]


def test_they_are_scikit_learns() -> None:
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    pick = random.Random(0)
    names = ["a", "b", "c", "never given"]
    true = pick.choices(names, (5, 3, 1, 1), k=300)
    said = [label if pick.random() < 0.7 and label != names[3] else pick.choice("abcd") for label in true]
    found = {one.label: one for one in by_label(rows(true), [f" {answer}\n" for answer in said])}
    labels = sorted({*true, *said})
    assert set(found) == set(labels)
    theirs = precision_recall_fscore_support(true, said, labels=labels, zero_division=0)
    for label, precision, recall, f1, count in zip(labels, *theirs, strict=True):
        one = found[label]
        assert one.rows == count and one.f1 == pytest.approx(f1, abs=1e-12)
        assert (one.precision.value if one.precision else 0) == pytest.approx(precision, abs=1e-12)
        assert (one.recall.value if one.recall else 0) == pytest.approx(recall, abs=1e-12)
        assert one.recall is None or one.recall.low <= recall <= one.recall.high
    assert found["never given"].precision is None and found["d"].recall is None
    matrix = confusion_matrix(true, said, labels=labels)
    told = {(one.label, one.given): one.rows for one in confusions(rows(true), said)}
    assert told == {(a, b): matrix[i, j] for i, a in enumerate(labels) for j, b in enumerate(labels)
                    if i != j and matrix[i, j]}


def test_the_worst_stands_first_and_its_interval_holds() -> None:
    found = by_label(rows([*"aabbbcc"]), [*"aabbbca"])
    assert [one.label for one in found] == ["c", "a", "b"]
    assert found[2].recall == share(np.ones(3)) and found[2].recall.low < 0.4
    assert confusions(rows([*"aabbc"]), [*"bcaac"]) == [Confusion("b", "a", 2), Confusion("a", "b", 1),
                                                        Confusion("a", "c", 1)]
