"""The mean negative log-likelihood of a token, in nats."""

from __future__ import annotations

from . import Scores
from ._likelihood import HIGHER_IS_BETTER, KINDS, SHARE, Config, check, score

__all__ = ["HIGHER_IS_BETTER", "KINDS", "SHARE", "Config", "aggregate", "check", "score"]


def aggregate(scores: Scores) -> Scores:
    """nats / tokens; [repeats, rows, 3] → [repeats]."""
    totals = scores.sum(axis=1)
    result: Scores = totals[:, 0] / totals[:, 1]
    return result
