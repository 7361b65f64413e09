"""The mean over labels of F1, the harmonic mean of precision and recall: every label counts the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data.shapes import Row
from . import Context, NoConfig, Scores

KINDS = ("label",)
SHARE = True
HIGHER_IS_BETTER = True
Config = NoConfig


def score(answers: Sequence[str], rows: Sequence[Row], context: Context) -> Scores:
    """The numbers of the true and the predicted label [rows, 2], which `aggregate` counts."""
    true, predicted = [row.label.strip() for row in rows], [answer.strip() for answer in answers]
    number = {label: index for index, label in enumerate(sorted({*true, *predicted}))}
    return np.array([[number[a], number[b]] for a, b in zip(true, predicted, strict=True)], np.float64)


def aggregate(scores: Scores) -> Scores:
    """F1 averaged over the labels that occur in a sample, true or predicted; [repeats, rows, 2] → [repeats]."""
    repeats, classes = len(scores), int(scores.max()) + 1
    cells = scores.astype(np.int64) + classes * np.arange(repeats)[:, None, None]
    true, predicted = cells[..., 0], cells[..., 1]

    def counts(values: np.ndarray) -> np.ndarray:
        return np.bincount(values.ravel(), minlength=repeats * classes).reshape(repeats, classes)

    occurrences = counts(true) + counts(predicted)
    f1 = 2 * counts(true[true == predicted]) / np.maximum(occurrences, 1)
    result: Scores = f1.sum(axis=1) / (occurrences > 0).sum(axis=1)
    return result
