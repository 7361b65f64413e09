"""How good one model is beside another, as a ratio of which higher is better whatever the metric."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .evaluate import aggregate_of, metric
from .intervals import Interval, Scores, bootstrap


def ratio(values: ArrayLike, others: ArrayLike, name: str) -> Interval | None:
    """How good the metric `name` of `values` is beside that of `others`; 1 is as good, above 1 better.

    Both are an evaluation's scores [rows, …] of the same rows, which are resampled together. Of a metric of which
    lower is better the ratio is others / values, else values / others; None where what is divided by is 0.
    """
    module = metric(name)[0]
    upper, lower = (values, others) if module.HIGHER_IS_BETTER else (others, values)
    both = np.stack([np.asarray(upper, np.float64), np.asarray(lower, np.float64)], axis=1)
    aggregate = aggregate_of(module)
    if aggregate(both[None, :, 1])[0] <= 0:
        return None
    # A resample in which the divisor has nothing right has no ratio; it counts as the largest finite one.
    least = 1 / len(both) if module.SHARE else np.finfo(np.float64).tiny

    def divided(rows: Scores) -> Scores:
        return np.asarray(aggregate(rows[:, :, 0]) / np.maximum(aggregate(rows[:, :, 1]), least))

    return bootstrap(both, aggregate=divided)
