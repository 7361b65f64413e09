"""Bits per character: comparable between models whose tokenizers differ."""

from __future__ import annotations

import numpy as np

from . import Scores
from ._likelihood import HIGHER_IS_BETTER, KINDS, SHARE, Config, check, score

__all__ = ["HIGHER_IS_BETTER", "KINDS", "SHARE", "Config", "aggregate", "check", "score"]


def aggregate(scores: Scores) -> Scores:
    """nats / ln 2 / characters; [repeats, rows, 3] → [repeats]."""
    totals = scores.sum(axis=1)
    result: Scores = totals[:, 0] / np.log(2) / totals[:, 2]
    return result
