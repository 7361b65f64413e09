"""How well scores put texts into the rows' order: Spearman's rank correlation, -1 to 1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

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
    """[repeats, rows, 2] → [repeats]; equal numbers share the mean of their ranks."""
    return correlation(np.stack([np.stack([_ranks(column) for column in sample.T], axis=1) for sample in scores]))


def _ranks(values: Scores) -> Scores:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    result: Scores = (last - (counts - 1) / 2)[place]
    return result
