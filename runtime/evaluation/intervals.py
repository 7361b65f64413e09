"""How sure a measured number is: bootstrap intervals, paired and matched differences, McNemar's exact test.

Rows are resampled, not tokens: what is measured on one row is correlated. Intervals are at 95 %: percentile
intervals (Efron 1979) of most numbers, and of shares those of `share`, for 20 right answers of 20 resampled are 20 of
20 again, and leave no doubt where there is much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import ceil, comb
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...models.errors import DataError

Scores = NDArray[np.float64]
Aggregate = Callable[[Scores], NDArray[np.float64]]
"""Scores [repeats, rows, ...] of resampled rows → the metric [repeats]."""
LEVEL = 0.95
Z = 1.959964
"""Standard deviations on either side of a normal distribution's middle that hold LEVEL of it."""
_CELLS = 1 << 21
"""Scores held at a time while resampling, to bound memory."""


@dataclass(frozen=True)
class Interval:
    """A metric's value over `n` rows, with the bounds of its 95 % interval."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}] (n={self.n})"


class McNemar(NamedTuple):
    """Rows that only the first got right (b), only the second (c), and the exact two-sided p-value."""

    b: int
    c: int
    p: float


def mean(scores: Scores) -> NDArray[np.float64]:
    """The usual aggregate: the mean over rows of scores [repeats, rows]."""
    result: NDArray[np.float64] = scores.mean(axis=1)
    return result


def bootstrap(values: ArrayLike, repeats: int = 1000, seed: int = 0, aggregate: Aggregate = mean) -> Interval:
    """The metric of `values` [rows] or [rows, k] with its interval. Raises DataError without rows."""
    scores = _rows(values)
    samples = np.concatenate([aggregate(scores[index]) for index in _resamples(scores, repeats, seed)])
    return percentile(float(aggregate(scores[None])[0]), samples, len(scores))


def share(values: ArrayLike) -> Interval:
    """The mean of scores from 0 to 1 [rows], with an interval that holds at the edges, too.

    Of rows that are right or wrong Clopper and Pearson's (1934), which never holds the true share less often than it
    says. Of scores in between either end is the farther one of resampled rows and of the rows with two of 0 and two of
    1 beside them (after Agresti and Coull 1998): the first leave too little doubt at the edges, the second away from
    them. Raises DataError without rows.
    """
    scores = _rows(values)
    n, whole = len(scores), float(scores.sum())
    if np.isin(scores, (0, 1)).all():
        return _clopper_pearson(round(whole), n)
    centre, size = (whole + 2) / (n + 4), n + 4
    spread = Z * ((float(np.square(scores).sum()) + 2) / size - centre**2) ** 0.5 / size**0.5
    resampled = bootstrap(scores)
    return Interval(resampled.value, max(0.0, min(centre - spread, resampled.low)),
                    min(1.0, max(centre + spread, resampled.high)), n)


def of_metric(values: ArrayLike, aggregate: Aggregate = mean, is_share: bool = False) -> Interval:
    """The metric of scores [rows] or [rows, k] with its interval: `share` of a mean of shares, else resampled.

    Where every resample of another share gives 1, or 0, it is as unsure as if each row had been right or wrong.
    """
    if is_share and aggregate is mean:
        return share(values)
    found = bootstrap(values, aggregate=aggregate)
    if is_share and found.low == found.high and found.value in (0, 1):
        return share(np.full(found.n, found.value))
    return found


def _clopper_pearson(right: int, n: int) -> Interval:
    counts = np.arange(n + 1)
    factorials = np.concatenate([[0.0], np.cumsum(np.log(counts[1:]))])
    ways = factorials[n] - factorials - factorials[::-1]

    def tail(chance: float, some: slice) -> float:
        """The probability of these counts of right rows."""
        logs = ways[some] + counts[some] * np.log(chance) + (n - counts[some]) * np.log1p(-chance)
        return float(np.exp(logs).sum())

    def border(some: slice, grows: bool) -> float:
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            if (tail(middle, some) > (1 - LEVEL) / 2) == grows:
                high = middle
            else:
                low = middle
        return (low + high) / 2

    return Interval(right / n, border(slice(right, None), True) if right else 0.0,
                    border(slice(right + 1), False) if right < n else 1.0, n)


def paired(values_a: ArrayLike, values_b: ArrayLike, repeats: int = 1000, seed: int = 0,
           aggregate: Aggregate = mean) -> Interval:
    """The difference a - b of a metric measured on the same rows, which are resampled together.

    Raises DataError when the two do not hold the same number of rows, or none.
    """
    a, b = _rows(values_a), _rows(values_b)
    if a.shape != b.shape:
        raise _unpaired(a, b)
    samples = np.concatenate([aggregate(a[index]) - aggregate(b[index]) for index in _resamples(a, repeats, seed)])
    return percentile(float(aggregate(a[None])[0] - aggregate(b[None])[0]), samples, len(a))


def matched(values_a: ArrayLike, values_b: ArrayLike) -> Interval:
    """The difference a - b of mean scores from 0 to 1 on the same rows, with an interval that few rows cannot narrow.

    Bonett and Price's (2012): a row is added to each of the two cells of differing answers, so that rows without one
    difference still leave the doubt that their number leaves. A bootstrap of equal rows would leave none; half a row
    for every cell (Agresti and Min 2005) leaves too little: 2 points of loss are above its bound in one set of 96 rows
    in seven.
    Raises DataError when the two do not hold the same number of rows, or none.
    """
    a, b = _rows(values_a), _rows(values_b)
    if a.shape != b.shape:
        raise _unpaired(a, b)
    difference, n = a - b, len(a) + 2
    centre = float(difference.sum()) / n
    spread = Z * ((float(np.square(difference).sum()) + 2) / n - centre**2) ** 0.5 / n**0.5
    return Interval(float(difference.mean()), centre - spread, centre + spread, len(a))


def of_difference(values_a: ArrayLike, values_b: ArrayLike, aggregate: Aggregate = mean,
                  is_share: bool = False) -> Interval:
    """The difference a - b of a metric on the same rows: `matched` of a mean of shares, else `paired`."""
    if is_share and aggregate is mean:
        return matched(values_a, values_b)
    return paired(values_a, values_b, aggregate=aggregate)


def rows_that_tell(difference: Interval) -> int | None:
    """About how many rows would show a difference that is as large as this one looks; None where it looks like none."""
    if not difference.value:
        return None
    return ceil(difference.n * ((difference.high - difference.low) / 2 / abs(difference.value)) ** 2)


def mcnemar(a: ArrayLike, b: ArrayLike) -> McNemar:
    """McNemar's exact test on right (1) and wrong (0) answers to the same rows (McNemar 1947; binomial form)."""
    right_a, right_b = _rows(a) > 0.5, _rows(b) > 0.5
    if right_a.shape != right_b.shape:
        raise _unpaired(right_a, right_b)
    only_a, only_b = int((right_a & ~right_b).sum()), int((~right_a & right_b).sum())
    n, fewer = only_a + only_b, min(only_a, only_b)
    tail = sum(comb(n, k) for k in range(fewer + 1))
    return McNemar(only_a, only_b, min(1.0, 2 * tail / 2**n))


def _rows(values: ArrayLike) -> Scores:
    scores = np.asarray(values, dtype=np.float64)
    if scores.ndim == 0 or len(scores) == 0:
        raise DataError("there are no rows to measure on", "give at least one row")
    return scores


def _unpaired(a: NDArray[Any], b: NDArray[Any]) -> DataError:
    return DataError(f"a paired comparison of {len(a)} with {len(b)} rows", "measure both on the same rows")


def _resamples(scores: Scores, repeats: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Row indices [some repeats, rows], chunk by chunk."""
    generator = np.random.default_rng(seed)
    size = max(1, _CELLS // scores.size)
    for start in range(0, repeats, size):
        yield generator.integers(0, len(scores), (min(size, repeats - start), len(scores)))


def percentile(value: float, samples: NDArray[np.float64], n: int) -> Interval:
    """`value`, with the percentile interval of its resampled `samples` [repeats]."""
    low, high = np.quantile(samples, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high), n)
