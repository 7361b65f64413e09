"""Bits per character: comparable between models whose tokenizers differ."""

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
    return context.require_likelihoods("bits_per_character")


def aggregate(scores: Scores) -> Scores:
    """nats / ln 2 / characters; [repeats, rows, 3] → [repeats]."""
    totals = scores.sum(axis=1)
    result: Scores = totals[:, 0] / np.log(2) / totals[:, 2]
    return result
