"""Sampling against transformers' own logits processors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from edgestill.models.errors import EdgestillError
from edgestill.runtime.generation.sampling import Sampler, Sampling, greedy, kept
from hypothesis import given, settings
from hypothesis import strategies as st

CASES: list[dict[str, Any]] = [
    {"temperature": 1.0}, {"temperature": 0.7}, {"temperature": 3.0}, {"temperature": 1.0, "top_k": 5},
    {"temperature": 0.8, "top_p": 0.9}, {"temperature": 1.5, "min_p": 0.1},
    {"temperature": 1.3, "top_k": 40, "top_p": 0.8},
    {"temperature": 2.0, "top_k": 30, "top_p": 0.95, "min_p": 0.05}, {"temperature": 1.0, "top_k": 1000},
    {"temperature": 2.0, "top_p": 0.6, "min_p": 0.4}, {"temperature": 1.0, "top_p": 0.0},
]


def transformers_probabilities(logits: np.ndarray, case: dict[str, Any]) -> np.ndarray:
    import torch
    from transformers import (
        LogitsProcessorList,
        MinPLogitsWarper,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    warpers = LogitsProcessorList([TemperatureLogitsWarper(case["temperature"])])
    if case.get("top_k"):
        warpers.append(TopKLogitsWarper(case["top_k"]))
    if "top_p" in case:
        warpers.append(TopPLogitsWarper(case["top_p"]))
    if "min_p" in case:
        warpers.append(MinPLogitsWarper(case["min_p"]))
    return torch.softmax(warpers(None, torch.tensor(logits, dtype=torch.float64)[None])[0], -1).numpy()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", range(3))
def test_what_is_kept_is_what_transformers_keeps(case: dict[str, Any], seed: int) -> None:
    logits = (np.random.default_rng(seed).normal(size=200) * 3).astype(np.float32)
    ids, probabilities = kept(logits, Sampling(**case))
    found = np.zeros(200)
    found[ids] = probabilities / probabilities.sum()
    np.testing.assert_allclose(found, transformers_probabilities(logits, case), atol=1e-6)


def test_draws_follow_the_probabilities() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    sampler = Sampler(Sampling(temperature=1.0, seed=1))
    counts = np.bincount([sampler(logits) for _ in range(20000)], minlength=4) / 20000
    np.testing.assert_allclose(counts, [0.5, 0.3, 0.15, 0.05], atol=0.012)


def test_the_seed_decides_the_draws() -> None:
    logits = np.random.default_rng(0).normal(size=100).astype(np.float32)

    def draws(seed: int) -> list[int]:
        sampler = Sampler(Sampling(temperature=1.0, seed=seed))
        return [sampler(logits) for _ in range(20)]

    assert draws(5) == draws(5) != draws(6)


@settings(max_examples=100, deadline=None)
@given(values=st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=40), top_k=st.integers(0, 50),
       top_p=st.floats(0, 1), min_p=st.floats(0, 1), temperature=st.floats(0.05, 10))
def test_something_is_always_left_and_the_likeliest_is_in_it(
        values: list[float], top_k: int, top_p: float, min_p: float, temperature: float) -> None:
    logits = np.array(values, np.float32)
    sampling = Sampling(temperature, top_k, top_p, min_p)
    ids, probabilities = kept(logits, sampling)
    assert len(ids) >= 1 and logits.argmax() in ids and probabilities.max() == 1.0 and (np.diff(ids) > 0).all()
    assert Sampler(sampling)(logits) in ids


def test_masked_tokens_are_never_drawn() -> None:
    logits = np.full(50, -np.inf, np.float32)
    logits[[3, 7]] = 1.0
    sampler = Sampler(Sampling(temperature=5.0, top_k=10))
    assert {sampler(logits) for _ in range(100)} == {3, 7}
    assert greedy(logits) == 3


@pytest.mark.parametrize("logits", [[1.0, np.nan], [np.nan, np.nan], [-np.inf, -np.inf]])
def test_logits_that_are_not_finite_stop_generation(logits: list[float]) -> None:
    for choose in (greedy, Sampler(Sampling(temperature=1.0))):
        with pytest.raises(EdgestillError, match="not finite"):
            choose(np.array(logits, np.float32))


@pytest.mark.parametrize("case", [{}, {"top_k": 2}, {"top_p": 0.5}, {"min_p": 0.5}])
def test_a_temperature_next_to_nothing_draws_the_likeliest(case: dict[str, Any]) -> None:
    with np.errstate(all="raise", under="ignore"):
        ids, _ = kept(np.array([-30.0, 1.0, 2.0, 1.99], np.float32), Sampling(temperature=1e-50, **case))
        assert Sampler(Sampling(temperature=1e-50, **case))(np.array([-30.0, 1.0, 2.0, 1.99], np.float32)) == 2
    assert 2 in ids
