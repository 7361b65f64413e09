"""Upper bounds of percentiles that hold whatever the distribution, and how many requests they take.

The k-th smallest of n independent times lies above the true percentile p with the probability that a binomial of n and
p stays below k (Hahn and Meeker, Statistical Intervals, 5.3); for times that are independent and not alike, such as
those of prompts of many lengths, that probability is only larger (Hoeffding 1956). Below 59 times not even the largest
bounds p95 with 95 % certainty, and below 299 not p99: then there is no number.

Times that follow each other are often alike: a hot processor, a slow spell. n is then divided by how many of them say
the same thing (the integrated autocorrelation time, by Geyer's initial positive sequence, 1992), and where the times
rise over the run the later half is judged alone, as the state that they lead to. `benchmarks/profiler.py` tries it on
simulated series. What no series can show is a slow state that did not occur while it was measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Series = NDArray[np.float64]
CERTAINTY = 0.95
_SIGNIFICANT = 2.33
"""Standard deviations, 1 %, from which on a correlation is taken for more than chance."""
_LEVELS = (0.5, 0.75, 0.9)
"""Shares above which a time counts as slow, where slow spells are looked for."""
_SLOW = 5
"""Slow times that it takes to see whether they come in spells."""


@dataclass(frozen=True)
class Bound:
    """An upper bound of a percentile at CERTAINTY, or why there is none."""

    value: float | None
    """In the unit of the times; None where they are too few."""
    times: int
    """Independent times that the series is worth."""
    reason: str = ""
    """What widened the bound, or why there is none; empty where neither."""
    needed: int = 0
    """About how many requests a bound takes, where there is none."""


def fewest(share: float) -> int:
    """Independent times that an upper bound of this percentile takes: 59 of 0.95, 299 of 0.99."""
    return math.ceil(round(math.log(1 - CERTAINTY) / math.log(share), 9))


@cache
def rank(count: int, share: float) -> int:
    """The place k, from 1, of the smallest of `count` sorted times that bounds the percentile; 0 where none does."""
    slower, place = 0.0, 0  # the probability that no more than so many times lie above the percentile
    for above in range(count):
        slower += math.exp(math.lgamma(count + 1) - math.lgamma(above + 1) - math.lgamma(count - above + 1)
                           + above * math.log1p(-share) + (count - above) * math.log(share))
        if slower > 1 - CERTAINTY:
            break
        place = count - above
    return place


def upper(times: Sequence[float], share: float, pooled: Sequence[ArrayLike] = ()) -> Bound:
    """The bound of the percentile `share` of `times` [requests], in the order in which they were measured.

    With `pooled`, several values of each request, of all these values, such as the times of tokens: a request counts
    once however many values it has, and `times` says how alike the requests are.
    """
    series = np.asarray(times, np.float64)
    rising, start = rises(series), 0
    if rising:
        start = len(series) // 2
        series = series[start:]
    alike = repeated(series)
    reasons = ["the times rise over the run, so its later half alone counts"] * rising
    reasons += [f"one request in {alike:.1f} says something new"] * (alike > 1)
    count = int(len(series) / alike)
    place = rank(count, share)
    if not place:
        needed = math.ceil(fewest(share) * alike) * (1 + rising)
        return Bound(None, count, "; ".join([f"too few requests: {len(times)} of {needed}", *reasons]), needed)
    values = np.sort(np.concatenate([np.asarray(some, np.float64) for some in pooled[start:]]) if pooled else series)
    wanted = math.ceil(round(place / count * len(values), 9))
    return Bound(float(values[min(wanted, len(values)) - 1]), count, "; ".join(reasons))


def lower(times: Sequence[float], share: float) -> Bound:
    """The lower bound of the percentile `share`, of numbers of which more is better."""
    found = upper([-time for time in times], 1 - share)
    return Bound(None if found.value is None else -found.value, found.times, found.reason, found.needed)


def rises(series: Series) -> bool:
    """Whether the times grow over the run (Spearman's rank correlation with their order)."""
    count = len(series)
    if count < 8:
        return False
    ranks = _ranks(series) - 0.5
    order = (np.arange(count) + 0.5) / count - 0.5
    spread = math.sqrt(float(np.square(ranks).sum() * np.square(order).sum()))
    return spread > 0 and float(ranks @ order) / spread * math.sqrt(count - 1) > _SIGNIFICANT


def repeated(series: Series) -> float:
    """How many times that follow each other say what one independent time would; 1 where they seem independent.

    Looked for in their ranks, and in which of them are slow.
    """
    if len(series) < 8:
        return 1.0
    ranks = _ranks(series)
    levels = [level for level in _LEVELS if (1 - level) * len(series) >= _SLOW]
    slow: list[Series] = [np.where(ranks >= level, 1.0, 0.0) for level in levels]
    return max(map(_correlation_time, [ranks, *slow]))


def _correlation_time(signal: Series) -> float:
    """1 + twice the sum of the autocorrelations, where they are significant; else 1."""
    count = len(signal)
    centred = signal - signal.mean()
    power = float(centred @ centred)
    if power <= 0:
        return 1.0
    most = min(count // 3, int(4 * math.sqrt(count)))
    length = 1 << (count + most).bit_length()  # by Fourier transform: sustained runs are long
    spectrum = np.abs(np.fft.rfft(centred, length)) ** 2
    found: Series = np.fft.irfft(spectrum, length)[1:most + 1] / power
    window = int(math.sqrt(count))
    weights = 1 - np.arange(1, window + 1) / (window + 1)
    # Of independent times each autocorrelation is -1 / count on average, and 1 / sqrt(count) wide.
    next_one = (found[0] + 1 / count) * math.sqrt(count)
    slow = float(found[:window] @ weights + weights.sum() / count) * math.sqrt(count / float(np.square(weights).sum()))
    if max(next_one, slow) <= _SIGNIFICANT:
        return 1.0
    pairs = found[:most // 2 * 2].reshape(-1, 2).sum(axis=1)
    positive = np.cumprod(pairs > 0)
    return max(1.0, 1 + 2 * float(pairs @ positive))


def _ranks(series: Series) -> Series:
    """Where each time stands among all, 0 to 1; equal ones stand together."""
    ordered = np.sort(series)
    places = np.searchsorted(ordered, series, "left") + np.searchsorted(ordered, series, "right")
    result: Series = places / (2 * len(series))
    return result
