"""Whether one profile is faster than another: a ratio with an interval, or that nobody can tell from these requests.

The ratio is Hodges and Lehmann's: of the same requests asked twice the middle of the ratios of pairs, of others that of
all times of one to all of the other. Its 95 % interval is by ranks (signed-rank and Mann-Whitney), whatever the
distribution; requests that say the same thing count as one, as in percentile_bounds. What a process gets by chance,
such as where its memory lies, all its requests share: RUNS is added for it, or two runs of one model would differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import percentile_bounds
from .measures import NUMBERS
from .views import first_token, gaps

Series = NDArray[np.float64]
Requests = Sequence[Mapping[str, Any]]
RUNS = 0.015
"""Standard deviation of a run's median, as a share of it, between runs of one model on one idle machine: assumed, and
measured by `benchmarks/profiler.py compare`."""
FEWEST = 8
"""Requests, undisturbed ones where there are as many, below which nothing is told."""
UNKNOWN = "cannot tell"
_Z = 1.959964
_MOST = 1500
"""Times of a run whose ratios to all of the other's are taken; of more, as many evenly spaced ones."""
_TOLD_APART = ("kind", "threads", "prompt_tokens", "new_tokens", "context")
"""What two profiles must have in common for their ratio to be one of models."""

TIMES: dict[str, Callable[[Mapping[str, Any]], float]] = {
    "ttft_ms": lambda request: first_token(request) / 1e6,
    "token_ms": lambda request: float(np.mean(gaps(request))) if len(request["token_ns"]) > 1 else math.nan,
    "prefill_tokens_per_s": lambda request: 1e9 * request["prompt_tokens"] / request["prefill_ns"],
    "decode_tokens_per_s": lambda request: 1000 / TIMES["token_ms"](request),
    "request_ms": lambda request: request["end_ns"] / 1e6,
    "latency_ms": lambda request: request["end_ns"] / 1e6,
}
"""By the name of a number, its value for one request."""


@dataclass(frozen=True)
class Ratio:
    """Of one number of two profiles."""

    number: str
    value: float
    """The second over the first."""
    low: float | None
    high: float | None
    """Bounds of its 95 % interval; None where there are too few requests for one."""
    told: str
    """faster, slower, or cannot tell."""
    requests: int
    """Of each, the fewer."""
    needed: int = 0
    """About how many would tell a difference of this size, where it cannot be told; 0 where no number would."""
    paired: bool = False


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Ratio]:
    """Every number that the requests of both give; none for files without single requests, as the apps write them."""
    both = [_requests(profile) for profile in (first, second)]
    if not all(both):
        return []
    paired = _alike(*both)
    if paired:
        kept = [index for index, pair in enumerate(zip(*both, strict=True)) if not any(_disturbed(one) for one in pair)]
        both = [[side[index] for index in kept] for side in both] if len(kept) >= FEWEST else both
    else:
        clean = [[one for one in side if not _disturbed(one)] for side in both]
        both = [some if len(some) >= FEWEST else side for some, side in zip(clean, both, strict=True)]
    names = [name for name, number in NUMBERS.items() if name in TIMES and first["kind"] in number.tasks]
    return [found for name in names if (found := _ratio(name, both[0], both[1], paired)) is not None]


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """In words, what makes two profiles no comparison of models."""
    found = [f"{name.replace('_', ' ')}: {first.get(name)} and {second.get(name)}" for name in _TOLD_APART
             if first.get(name) != second.get(name)]
    machines = [(side.get("machine") or {}).get("cpu") for side in (first, second)]
    if machines[0] != machines[1]:
        found.append(f"processors: {machines[0]} and {machines[1]}")
    shares = [sum(map(_disturbed, requests)) for side in (first, second) if (requests := _requests(side))]
    if any(shares):
        found.append(f"disturbed requests: {' and '.join(map(str, shares))}, left out where enough others are there")
    return found


def interval(first: Series, second: Series, paired: bool) -> tuple[float, float, float, float]:
    """(middle, low, high, half the width that is the requests' own) of log(second / first); the bounds are infinite
    where the times are too few."""
    a, b = np.log(first), np.log(second)
    if paired:
        apart = _thinned(b - a)
        count = len(b) / percentile_bounds.repeated(b - a)
        ratios = ((apart[:, None] + apart[None, :]) / 2)[np.triu_indices(len(apart))]
        spread = (2 * count + 1) / (6 * count * (count + 1))
    else:
        counts = [len(side) / percentile_bounds.repeated(side) for side in (a, b)]
        ratios = (_thinned(b)[:, None] - _thinned(a)[None, :]).ravel()
        spread = (sum(counts) + 1) / (12 * counts[0] * counts[1])
    share = 0.5 - _Z * math.sqrt(spread)
    if share <= 0:
        return float(np.median(ratios)), -math.inf, math.inf, math.inf
    low, middle, high = np.quantile(ratios, (share, 0.5, 1 - share))
    runs = _Z * math.sqrt(2) * RUNS
    return (float(middle), float(middle - math.hypot(middle - low, runs)),
            float(middle + math.hypot(high - middle, runs)), float(high - low) / 2)


def _ratio(name: str, first: Requests, second: Requests, paired: bool) -> Ratio | None:
    series = [np.array([TIMES[name](one) for one in side]) for side in (first, second)]
    known = [np.isfinite(side) & (side > 0) for side in series]
    if paired:
        known = [known[0] & known[1]] * 2
    series = [side[which] for side, which in zip(series, known, strict=True)]
    count = min(map(len, series))
    if not count:
        return None
    middle, low, high, own = interval(series[0], series[1], paired)
    if count < FEWEST or not math.isfinite(own):
        return Ratio(name, math.exp(middle), None, None, UNKNOWN, count, 4 * FEWEST, paired)
    if low > 0 or high < 0:
        told = "faster" if (low > 0) is NUMBERS[name].higher_is_better else "slower"
        return Ratio(name, math.exp(middle), math.exp(low), math.exp(high), told, count, paired=paired)
    left = middle**2 - 2 * (_Z * RUNS)**2
    needed = math.ceil(count * own**2 / left) if left > 0 else 0
    return Ratio(name, math.exp(middle), math.exp(low), math.exp(high), UNKNOWN, count, needed, paired)


def _requests(profile: Mapping[str, Any]) -> Requests:
    found = (profile.get("raw") or {}).get("requests") or []
    return [one for one in found if isinstance(one, Mapping) and "end_ns" in one]


def _alike(first: Requests, second: Requests) -> bool:
    """Whether both were asked the same, one after the other, as far as lengths say it."""
    return [one.get("prompt_tokens") for one in first] == [one.get("prompt_tokens") for one in second]


def _disturbed(request: Mapping[str, Any]) -> bool:
    return bool(request.get("disturbed"))


def _thinned(series: Series) -> Series:
    kept: Series = series[np.linspace(0, len(series) - 1, min(len(series), _MOST)).round().astype(int)]
    return kept
