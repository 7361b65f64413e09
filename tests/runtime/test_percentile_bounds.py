"""Upper bounds of percentiles: they hold whatever the distribution, or there is none."""

from __future__ import annotations

import numpy as np
import pytest
from edgestill.runtime.profiling import percentile_bounds as bounds

EXPONENTIAL_P95 = 2.9957
NORMAL_P95 = 1.6449
GENERATOR = np.random.Generator


@pytest.mark.parametrize(("share", "count"), [(0.5, 5), (0.9, 29), (0.95, 59), (0.99, 299)])
def test_below_the_fewest_requests_there_is_no_number(share: float, count: int) -> None:
    times = np.random.default_rng(3).permutation(count).tolist()
    assert bounds.fewest(share) == count and bounds.rank(count, share) == count and not bounds.rank(count - 1, share)
    assert bounds.upper(times, share).value == count - 1
    short = bounds.upper(times[:-1], share)
    assert short.value is None and short.needed == count and short.reason == f"too few requests: {count - 1} of {count}"


@pytest.mark.parametrize(("count", "share", "place"), [(100, 0.95, 99), (10, 0.5, 9), (2000, 0.5, 1038)])
def test_the_place_is_that_of_the_binomial(count: int, share: float, place: int) -> None:
    assert bounds.rank(count, share) == place  # scipy.stats.binom.ppf(.95, count, share) + 1


def test_a_lower_bound_mirrors_the_upper_one() -> None:
    rates = np.random.default_rng(1).permutation(np.arange(1.0, 11)).tolist()
    found = bounds.lower(rates, 0.5)
    assert found.value == 2.0 and found.times == 10
    assert bounds.lower(rates[:4], 0.5).value is None


def test_a_request_counts_once_however_many_tokens_it_has() -> None:
    drawn = np.random.default_rng(5)
    tokens = [drawn.normal(10, 1, 50).tolist() for _ in range(58)]
    steady = [float(np.median(some)) for some in tokens]
    assert bounds.upper(steady, 0.95, tokens).value is None
    tokens.append([99.0] * 50)
    found = bounds.upper([*steady, 10.0], 0.95, tokens)
    assert found.value == 99.0 and found.times == 59


def test_rising_times_are_judged_by_their_later_half() -> None:
    noise = np.random.default_rng(2).normal(size=300)
    found = bounds.upper((np.linspace(0, 20, 300) + noise).tolist(), 0.95)
    assert bounds.rises(np.linspace(0, 20, 300) + noise)
    assert found.value is None and "rise over the run" in found.reason and found.needed > 118
    stepped = np.where(np.arange(300) < 100, 0.0, 20.0) + noise
    tokens = [[value] * 2 for value in stepped]
    for bound in (bounds.upper(stepped.tolist(), 0.5), bounds.upper(stepped.tolist(), 0.5, tokens)):
        assert bound.value is not None and bound.value > 19.8 and bound.times <= 150
    assert not bounds.rises(np.linspace(20, 0, 300) + noise) and not bounds.rises(np.ones(300))


def test_slow_spells_count_as_often_as_they_came() -> None:
    drawn = np.random.default_rng(4)
    spells = np.repeat(drawn.random(40) < 0.2, 15) * 10 + drawn.normal(size=600)
    found = bounds.upper(spells.tolist(), 0.95)
    assert bounds.repeated(spells) > 5 and found.times < 120 and "says something new" in found.reason
    assert bounds.repeated(np.ones(100)) == bounds.repeated(np.arange(7.0)) == 1
    assert bounds.repeated(drawn.permutation(spells)) == 1


def heavy(drawn: GENERATOR) -> tuple[np.ndarray, float]:
    return drawn.exponential(size=59), EXPONENTIAL_P95


def two_modes(drawn: GENERATOR) -> tuple[np.ndarray, float]:
    slow = drawn.random(120) < 0.1  # half of the slow ones lie above the middle of their mode
    return np.where(slow, 10 + drawn.normal(size=120), drawn.normal(size=120)), 10.0


def alike(drawn: GENERATOR) -> tuple[np.ndarray, float]:
    noise, times = drawn.normal(size=250), np.empty(250)
    times[0] = noise[0]
    for place in range(1, 250):
        times[place] = 0.8 * times[place - 1] + 0.6 * noise[place]
    return times, NORMAL_P95


def drifting(drawn: GENERATOR) -> tuple[np.ndarray, float]:
    rise = np.minimum(1.0, np.arange(250) / 100)  # from the later half on it is as slow as it gets
    return 2 * rise + drawn.normal(size=250), 2 + NORMAL_P95


@pytest.mark.parametrize(("kind", "answers"), [(heavy, 0.85), (two_modes, 0.85), (alike, 0.0), (drifting, 0.5)])
def test_promises_hold_or_are_not_made(kind: object, answers: float) -> None:
    drawn, made, broken = np.random.default_rng(11), 0, 0
    for _ in range(100):
        times, truth = kind(drawn)  # type: ignore[operator]
        found = bounds.upper(times.tolist(), 0.95).value
        made += found is not None
        broken += found is not None and found < truth
    assert made >= 100 * answers and broken <= 10
