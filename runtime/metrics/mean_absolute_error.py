"""How far scores lie from the rows' on average."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data.shapes import Row
from . import Context, NoConfig, Scores
from ._numbers import numbers

KINDS = ("score",)
SHARE = False
HIGHER_IS_BETTER = False
Config = NoConfig


def score(answers: Sequence[str], rows: Sequence[Row], context: Context) -> Scores:
    """|answer - the row's score| [rows]. DataError for an answer that is no number."""
    pairs = numbers(answers, rows)
    return np.abs(pairs[:, 0] - pairs[:, 1])
