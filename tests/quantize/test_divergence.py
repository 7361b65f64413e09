"""KL divergences against their definition, and the bound that a stored top of a distribution gives."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from edgestill.quantize.proof import divergence, reference
from hypothesis import given, settings
from hypothesis import strategies as st


def logits_of(seed: int, rows: int, columns: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    p = (generator.standard_normal((rows, columns)) * spread).astype(np.float32)
    return p, p + generator.standard_normal((rows, columns)).astype(np.float32)


def test_kl_is_its_definition() -> None:
    p, q = np.log([[0.5, 0.25, 0.25]]), np.log([[0.25, 0.5, 0.25]])
    assert divergence.kl(p, q)[0] == pytest.approx(0.25 * np.log(2))
    assert divergence.kl(p, p + 7.0)[0] == pytest.approx(0, abs=1e-12)


def test_vocabularies_of_different_padding_are_compared_where_both_have_columns() -> None:
    p, q = logits_of(0, 4, 20, 2.0)
    padded = np.concatenate([q, np.full((4, 12), -50, np.float32)], axis=1)
    np.testing.assert_allclose(divergence.kl(p, padded), divergence.kl(p, q), rtol=1e-6)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), columns=st.integers(3, 300), spread=st.floats(0.0, 8.0))
def test_the_stored_top_gives_a_lower_bound(seed: int, columns: int, spread: float) -> None:
    p, q = logits_of(seed, 5, columns, spread)
    ids, logprobs, tails = reference.top(p)
    bound, full = divergence.kl_of_top(ids, logprobs, tails, q), divergence.kl(p, q)
    rounding = 2e-3 * np.abs(logprobs.astype(np.float32)).max() * (1 + np.abs(full))  # float16 keeps eleven bits
    assert (bound <= full + rounding).all()
    if columns <= reference.TOP:
        np.testing.assert_allclose(bound, full, atol=float(rounding.max()))


def test_a_large_tail_is_kept_and_a_tiny_one_is_no_noise() -> None:
    p = np.zeros((1, 1000), np.float32)
    ids, logprobs, tails = reference.top(p)
    assert tails[0] == pytest.approx(1 - 64 / 1000, rel=1e-5)
    p[0, 3] = 30.0
    ids, logprobs, tails = reference.top(p)
    assert ids[0, 0] == 3 and tails[0] < 1e-9
    assert divergence.kl_of_top(ids, logprobs, tails, p)[0] < 1e-9


def test_rounding_of_what_is_stored_is_no_divergence() -> None:
    p, _ = logits_of(5, 200, 300, 2.0)
    assert divergence.kl_of_top(*reference.top(p), p).max() < 1e-6


def test_a_choice_twice_as_likely_as_the_next_is_decisive() -> None:
    chances = [[0.67, 0.33, 0.0], [0.33, 0.0, 0.67], [0.66, 0.34, 0.0], [0.4, 0.25, 0.35], [0.5, 0.24, 0.26]]
    with np.errstate(divide="ignore"):
        found = divergence.decisive(np.tile(np.log(chances) + 3.0, (20, 1)))  # more than are looked at at once
    assert found.tolist() == [True, True, False, False, False] * 20


def test_equals_are_ordered_as_argmax_has_them() -> None:
    ids, _, _ = reference.top(np.zeros((2, 10), np.float32))
    assert ids[:, 0].tolist() == [0, 0]


def test_a_logit_that_is_no_number_is_an_infinite_divergence() -> None:
    p, q = logits_of(1, 3, 10, 1.0)
    q[1, 2] = np.nan
    kl = divergence.kl(p, q)
    found = divergence.Divergence(kl, p.argmax(axis=1) == q.argmax(axis=1), divergence.decisive(p))
    assert found.mean == float("inf") and found.p999 == float("inf")


def test_long_sequences_are_taken_in_parts_with_the_same_result() -> None:
    p, q = logits_of(2, 2 * divergence.CHUNK_ROWS + 3, 90, 2.0)
    whole, last = reference.top(p), reference.top(p[-3:])
    assert all(np.array_equal(found[-3:], expected) for found, expected in zip(whole, last, strict=True))
    assert np.array_equal(divergence.kl_of_top(*whole, q)[-3:], divergence.kl_of_top(*last, q[-3:]))


def test_two_models_are_compared_over_the_first_tokens_of_sequences() -> None:
    p, q = logits_of(0, 20, 30, 0.5)
    read: list[list[int]] = []

    def wanted(ids: Sequence[int]) -> np.ndarray:
        read.append(list(ids))
        return p[list(ids)]

    texts = divergence.first([np.arange(7), np.arange(7, 15), np.arange(20)], 12)
    found = divergence.over(texts, wanted, lambda ids: q[list(ids)])
    assert read == [list(range(7)), list(range(7, 12))]  # the third is not asked about
    np.testing.assert_array_equal(found.kl, divergence.kl(p[:12], q[:12]))
    np.testing.assert_array_equal(found.same_top, p[:12].argmax(axis=1) == q[:12].argmax(axis=1))
    np.testing.assert_array_equal(found.decisive, divergence.decisive(p[:12]))
