"""What metrics of likelihood share: they read a model's log-probabilities and differ in how they sum them up."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..data.shapes import Row
from . import Context, NoConfig, Scores

KINDS = ("text", "chat")
SHARE = False
HIGHER_IS_BETTER = False
Config = NoConfig


def score(answers: Sequence[str], rows: Sequence[Row], context: Context) -> Scores:
    """Nats, tokens and characters of every row's scored text [rows, 3]; the answers are not looked at."""
    return check(rows, context)()


def check(rows: Sequence[Row], context: Context) -> Callable[[], Scores]:
    """What computes the likelihoods; UsageError where there is no model that gives logits."""
    return context.require_likelihoods()
