"""F1 over all decisions about labels together: of texts that may have any number of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data.json_answers import names
from ..data.shapes import Row
from . import Context, NoConfig, Scores

KINDS = ("labels",)
SHARE = True
"""A share from 0 to 1."""
HIGHER_IS_BETTER = True
Config = NoConfig


def score(answers: Sequence[str], rows: Sequence[Row], context: Context) -> Scores:
    """How many labels each answer has right, how many it gives and how many the row has [rows, 3]; an answer that is no
    list of labels gives none."""
    given = [names(answer) or set() for answer in answers]
    return np.array([[len(found & {*row.named}), len(found), len(row.named)]
                     for found, row in zip(given, rows, strict=True)], np.float64)


def aggregate(scores: Scores) -> Scores:
    """2 right / (given + wanted); 1 where no label is wanted and none is given; [repeats, rows, 3] → [repeats]."""
    right, given, wanted = np.moveaxis(scores.sum(axis=1), -1, 0)
    both = given + wanted
    result: Scores = np.where(both > 0, 2 * right / np.maximum(both, 1), 1.0)
    return result
