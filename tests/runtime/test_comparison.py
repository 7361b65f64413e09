"""Faster, slower or cannot tell: on simulated runs with the noise of real ones, and on what profiles hold."""

from __future__ import annotations

import numpy as np
import pytest
from edgestill.runtime.profiling import comparison, frontier
from numpy.random import Generator

from ..simulated_runs import run

PAIRS = 200
REQUESTS = 60


def told(drawn: Generator, kind: str, same: bool, slowdown: float = 1.0) -> str:
    """What is said of the times of two runs of the `same` prompts, or of others like them."""
    prompts = np.exp(drawn.normal(0, 0.5 if same else 0.05, (2, REQUESTS)))
    profiles = run(drawn, prompts[0], kind), run(drawn, prompts[0 if same else 1], kind, slowdown)
    first, second = (np.array([one["end_ns"] for one in profile["raw"]["requests"]]) / 1e6 for profile in profiles)
    _, low, high, _ = comparison.interval(first, second, same)
    return "slower" if low > 0 else "faster" if high < 0 else comparison.UNKNOWN


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize(("kind", "share"), [("plain", 0.9), ("drift", 0.9), ("spells", 0.6)])
def test_of_two_hundred_pairs_few_are_called_falsely_and_most_slowdowns_are_seen(kind: str, share: float,
                                                                                 same: bool) -> None:
    """In spells of slow requests, sixty are few: there it is the false calls that must not be more."""
    drawn = np.random.default_rng(7)
    false = sum(told(drawn, kind, same) != comparison.UNKNOWN for _ in range(PAIRS))
    seen = sum(told(drawn, kind, same, 1.1) == "slower" for _ in range(PAIRS))
    assert false <= 0.05 * PAIRS and seen >= share * PAIRS, (false / PAIRS, seen / PAIRS)


def test_a_ratio_has_its_direction_and_its_interval() -> None:
    drawn, prompts = np.random.default_rng(1), np.ones(REQUESTS)
    found = {one.number: one for one in comparison.compare(run(drawn, prompts, "plain"),
                                                           run(drawn, prompts, "plain", 1.3))}
    assert set(found) == {"request_ms", "ttft_ms", "prefill_tokens_per_s", "decode_tokens_per_s", "token_ms"}
    slow, rate = found["ttft_ms"], found["decode_tokens_per_s"]
    assert slow.low and slow.high and 1.2 < slow.low < slow.value < slow.high < 1.4 and slow.told == "slower"
    assert rate.value == pytest.approx(1 / slow.value, rel=0.05) and rate.told == "slower"
    # Even without any noise of requests two runs may differ.
    calm = comparison.interval(np.full(50, 2.0), np.full(50, 2.0), True)
    assert calm[1] == pytest.approx(-0.0416, abs=1e-3) and calm[2] == -calm[1]


def test_the_requests_that_would_tell_are_named() -> None:
    drawn = np.random.default_rng(3)
    prompts = np.exp(drawn.normal(0, 0.3, (2, 12)))
    (few,) = (one for one in comparison.compare(run(drawn, prompts[0], "plain"), run(drawn, prompts[1], "plain", 1.15))
              if one.number == "ttft_ms")
    assert few.told == comparison.UNKNOWN and few.requests == 12 < few.needed
    prompts = np.exp(drawn.normal(0, 0.3, (2, 2 * few.needed)))
    enough = comparison.compare(run(drawn, prompts[0], "plain"), run(drawn, prompts[1], "plain", few.value))
    assert next(one for one in enough if one.number == "ttft_ms").told == "slower"
    five = comparison.compare(run(drawn, np.ones(5), "plain"), run(drawn, np.ones(5), "plain", 3.0))
    assert {(one.told, one.low, one.needed) for one in five} == {(comparison.UNKNOWN, None, 32)}
    same = comparison.compare(run(drawn, np.ones(200), "plain"), run(drawn, np.ones(200), "plain", 1.001))
    assert {(one.told, one.needed) for one in same} == {(comparison.UNKNOWN, 0)}, "no number of requests tells that"


def test_disturbed_requests_do_not_count_where_others_are_there() -> None:
    drawn, prompts = np.random.default_rng(5), np.ones(REQUESTS)
    calm, hit = run(drawn, prompts, "plain"), run(drawn, prompts, "plain")
    for one in hit["raw"]["requests"][::2]:
        one |= {"end_ns": one["end_ns"] * 9, "disturbed": ["others"]}
    found = {one.number: one for one in comparison.compare(calm, hit)}
    assert found["request_ms"].requests == REQUESTS // 2 and found["request_ms"].value == pytest.approx(1, abs=0.1)
    assert "disturbed requests: 0 and 30, left out where enough others are there" in comparison.differences(calm, hit)
    hit["raw"]["requests"] = hit["raw"]["requests"][:10]  # five are calm: too few to do without the others
    for one in hit["raw"]["requests"]:
        one["prompt_tokens"] = 7
    found = {one.number: one for one in comparison.compare(calm, hit)}
    assert found["request_ms"].requests == 10 and not found["request_ms"].paired


def test_what_is_no_comparison_of_models_is_said() -> None:
    first = {"kind": "generate", "threads": 1, "machine": {"cpu": "Cortex-A76"}}
    second = {"kind": "generate", "threads": 4, "machine": {"cpu": "i5"}}
    assert comparison.differences(first, second) == ["threads: 1 and 4", "processors: Cortex-A76 and i5"]
    assert comparison.compare(first, second) == [], "files of the apps hold no single requests"


@pytest.mark.parametrize(("points", "expected"), [
    ([], []),
    ([{"ms": 1.0, "quality": 0.9}, {"ms": 2.0, "quality": 0.95}, {"ms": 2.0, "quality": 0.9}], [True, True, False]),
    ([{"ms": 1.0, "quality": 0.9}, {"ms": 1.0, "quality": 0.9}], [True, True]),
    ([{"ms": 1.0, "quality": None}, {"ms": 2.0, "quality": 0.95}], [True, False]),
])
def test_the_front_is_what_nobody_beats(points: list[dict[str, float | None]], expected: list[bool]) -> None:
    assert frontier.front(points, ("quality",)) == expected
