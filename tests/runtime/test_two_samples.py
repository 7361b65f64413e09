"""The tests behind `drift`, against other people's numbers and against chance."""

from __future__ import annotations

import numpy as np
import pytest
from edgestill.runtime.monitoring import two_samples
from edgestill.runtime.monitoring.words import Words

RANDOM = np.random.default_rng(1)


@pytest.mark.parametrize("ties", [False, True])
def test_the_distance_of_numbers_is_kolmogorovs(ties: bool) -> None:
    from scipy.stats import ks_2samp

    first, second = RANDOM.normal(0, 1, 60), RANDOM.normal(0.5, 1, 45)
    if ties:
        first, second = first.round(), second.round()
    found = two_samples.numbers_differ(np.concatenate([first, second]), two_samples.groups(60, 45))
    theirs = ks_2samp(first, second)
    assert found.size == pytest.approx(theirs.statistic, abs=1e-12)
    assert ties or found.p == pytest.approx(theirs.pvalue, abs=0.03)


def test_labels_are_held_together_as_a_table() -> None:
    from scipy.stats import chi2_contingency

    labels = [*"aaaabbbbbbcccccccccc" * 2, *"aaaaaaaaaabbbbbccccc" * 2]
    found = two_samples.labels_differ(labels, two_samples.groups(40, 40))
    counts = [[labels[:40].count(name), labels[40:].count(name)] for name in "abc"]
    assert found.p == pytest.approx(chi2_contingency(counts, correction=False).pvalue, abs=0.02)
    assert found.size == pytest.approx((12 - 2 + 10 - 0) / 40 / 2 + 0.05, abs=0.06)
    one_sort = two_samples.labels_differ(["a"] * 30, two_samples.groups(15, 15))
    assert (one_sort.size, one_sort.p) == (0, 1)


def test_each_text_is_judged_by_a_classifier_that_has_not_seen_it() -> None:
    """Against ridge regressions that are fitted anew without each text."""
    vectors = RANDOM.normal(0, 1, (30, 6))
    vectors[18:, 0] += 1.5
    kernel = vectors @ vectors.T
    drawn = two_samples.groups(18, 12)
    found, scores = two_samples.texts_differ(kernel, drawn)
    wanted = drawn[0] - drawn[0].mean()
    for left in range(30):
        others = np.delete(np.arange(30), left)
        weights = np.linalg.solve(kernel[np.ix_(others, others)] + np.eye(29), wanted[others])
        assert scores[left] == pytest.approx(kernel[left, others] @ weights, abs=1e-9)
    above = (scores[18:, None] > scores[None, :18]).mean()
    assert found.size == pytest.approx(2 * above - 1, abs=1e-12) and found.p < 0.02


def test_equal_scores_share_their_ranks() -> None:
    from scipy.stats import rankdata

    scores = RANDOM.integers(0, 5, (7, 40)).astype(float)
    assert np.array_equal(two_samples._ranks(scores), rankdata(scores, axis=1))


def test_chance_is_told_as_often_as_it_is_said() -> None:
    """A tenth of the tests of groups of one source lie below .1, of texts, labels and numbers alike."""
    low = np.zeros(3)
    for seed in range(60):
        generator = np.random.default_rng(seed)
        drawn = two_samples.groups(40, 30, seed)
        vectors = generator.normal(0, 1, (70, 5))
        tests = (two_samples.texts_differ(vectors @ vectors.T, drawn)[0],
                 two_samples.labels_differ([str(one) for one in generator.integers(0, 6, 70)], drawn),
                 two_samples.numbers_differ(generator.poisson(3, 70).astype(float), drawn))
        low += [one.p <= 0.1 for one in tests]
    assert (low <= 13).all()  # of 60: more come once in a thousand times where a tenth is true
    assert low.sum() >= 6


def test_several_tests_share_one_level() -> None:
    assert two_samples.any_of([0.004, 0.2, 0.01, 0.02], 0.04) == [True, False, True, True]
    assert two_samples.any_of([0.011, 0.012, 0.013, 0.014], 0.04) == [False] * 4
    assert two_samples.any_of([0.01, 0.015, 0.019, 0.021], 0.04) == [True, False, False, False]


def test_words_that_are_new_and_texts_without_words() -> None:
    words = Words(["Turn it on", "turn it off", "…", "turn the LIGHT on"])
    assert words.new(3).tolist() == [1 / 3, 1 / 3, 0, 0.5]  # on, off; the, light
    kernel = words.kernel
    assert np.allclose(np.diag(kernel), [1, 1, 0, 1]) and kernel[0, 3] > kernel[1, 3] > 0
    assert words.typical(3)[:2] == ("light", "the") and "it" not in words.typical(3)
    assert words.typical(3, 1) == ("light",)
