"""In which direction a number is better, and which model is the best by it."""

from __future__ import annotations

import math

from ...runtime.profiling import measures
from .summary import ModelSummary

RATIO = "ratio_to_teacher"
"""The main metric of a student over its teacher's."""


def higher_is_better(name: str) -> bool:
    """The direction of anything that a gate may name. UsageError for an unknown metric."""
    number = measures.NUMBERS.get(measures.split(name)[0])
    if number is not None:
        return number.higher_is_better
    if name == RATIO:
        return True
    from ...runtime.evaluation.evaluate import higher_is_better as of_metric

    return of_metric(name)


def rank(model: ModelSummary, metric: str) -> float:
    """By which the best file is found: more is better whatever the metric, and no number is worst."""
    value = model.metrics[metric].value if metric in model.metrics else math.nan
    if math.isnan(value):
        return -math.inf
    return value if higher_is_better(metric) else -value
