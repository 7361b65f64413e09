"""How well scores follow the rows' along a straight line: Pearson's correlation, -1 to 1."""

from __future__ import annotations

from collections.abc import Sequence

from ..data.shapes import Row
from . import Context, NoConfig, Scores
from ._numbers import correlation, numbers

KINDS = ("score",)
SHARE = False
HIGHER_IS_BETTER = True
Config = NoConfig


def score(answers: Sequence[str], rows: Sequence[Row], context: Context) -> Scores:
    """Answer and the row's score [rows, 2]. DataError for an answer that is no number."""
    return numbers(answers, rows)


def aggregate(scores: Scores) -> Scores:
    """[repeats, rows, 2] → [repeats]; 0 where all answers, or all rows' scores, are the same."""
    return correlation(scores)
