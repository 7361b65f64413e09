"""Perplexity: the exponential of the mean nats per token, over all tokens of all rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..row_shapes import Row
from ._common import Context, NoConfig, Scores

KINDS = ("text", "chat")
SHARE = False
"""No share: lower is better."""
Config = NoConfig


def score(answers: Sequence[str], rows: Sequence[Row], context: Context) -> Scores:
    """Nats, tokens and characters of every row's scored text [rows, 3]; the answers are not looked at."""
    return check(rows, context)()


def check(rows: Sequence[Row], context: Context) -> Callable[[], Scores]:
    """What computes the likelihoods; UsageError where there is no model that gives logits."""
    return context.require_likelihoods("perplexity")


def aggregate(scores: Scores) -> Scores:
    """exp(nats / tokens); [repeats, rows, 3] → [repeats]."""
    totals = scores.sum(axis=1)
    result: Scores = np.exp(totals[:, 0] / totals[:, 1])
    return result
