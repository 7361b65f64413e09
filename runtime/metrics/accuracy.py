"""The share of rows whose label is right."""

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
    """1 for an answer that is the row's label, surrounding blanks aside, else 0 [rows]."""
    right = [answer.strip() == row.label.strip() for answer, row in zip(answers, rows, strict=True)]
    return np.array(right, np.float64)
