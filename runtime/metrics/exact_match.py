"""The share of answers that are wholly right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data.json_answers import names, same_answer
from ..data.shapes import Row
from . import Context, NoConfig, Scores

KINDS = ("chat", "label", "labels")
SHARE = True
HIGHER_IS_BETTER = True
Config = NoConfig


def score(answers: Sequence[str], rows: Sequence[Row], context: Context) -> Scores:
    """1 for an answer equal to the row's, else 0 [rows].

    Nothing is normalised but surrounding blanks. Where both answers are JSON, their values are compared: the
    order of keys and the blanks between them do not count, types do. Lists of labels are compared as sets.
    """
    if rows and rows[0].kind == "labels":
        return np.array([names(answer) == {*row.named} for answer, row in zip(answers, rows, strict=True)], np.float64)
    return np.array([same_answer(answer, row.answer) for answer, row in zip(answers, rows, strict=True)], np.float64)
