"""Perplexity: the exponential of the mean nats per token, over all tokens of all rows."""

from __future__ import annotations

import numpy as np

from . import Scores
from ._likelihood import HIGHER_IS_BETTER, KINDS, SHARE, Config, check, score

__all__ = ["HIGHER_IS_BETTER", "KINDS", "SHARE", "Config", "aggregate", "check", "score"]


def aggregate(scores: Scores) -> Scores:
    """exp(nats / tokens); [repeats, rows, 3] → [repeats]."""
    totals = scores.sum(axis=1)
    result: Scores = np.exp(totals[:, 0] / totals[:, 1])
    return result
