"""Bootstrap intervals, paired differences and McNemar's test against what is known of them."""

from __future__ import annotations

import numpy as np
import pytest
from edgestill.models.errors import DataError
from edgestill.runtime.evaluation import intervals
from edgestill.runtime.evaluation.intervals import (
    Interval,
    McNemar,
    bootstrap,
    matched,
    mcnemar,
    of_difference,
    of_metric,
    paired,
    rows_that_tell,
    share,
)


def test_the_interval_of_a_share_is_that_of_theory() -> None:
    values = np.arange(400) % 5 > 0
    found = bootstrap(values)
    spread = 1.96 * (0.8 * 0.2 / 400) ** 0.5
    assert found.value == 0.8 and found.n == 400
    assert found.low == pytest.approx(0.8 - spread, abs=0.008) and found.high == pytest.approx(0.8 + spread, abs=0.008)
    assert str(found).startswith("0.8000 [0.7")


def test_it_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(1)
    inside = 0
    for _ in range(200):
        found = bootstrap(generator.normal(3.0, 1.0, 80), repeats=300)
        inside += found.low <= 3.0 <= found.high
    assert 180 <= inside <= 199


def test_the_same_seed_gives_the_same_interval_whatever_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random(101)
    first = bootstrap(values, seed=3)
    assert first == bootstrap(values, seed=3) != bootstrap(values, seed=4)
    monkeypatch.setattr(intervals, "_CELLS", 1000)
    assert bootstrap(values, seed=3) == first


def test_an_aggregate_sees_whole_rows() -> None:
    scores = np.array([[2.0, 4.0], [3.0, 2.0], [1.0, 1.0]])
    found = bootstrap(scores, aggregate=lambda chosen: chosen[..., 0].sum(1) / chosen[..., 1].sum(1))
    assert found.value == pytest.approx(6 / 7) and found.low < 6 / 7 < found.high


def test_a_constant_has_no_spread() -> None:
    assert bootstrap([1.0] * 9) == Interval(1.0, 1.0, 1.0, 9)


def test_pairing_removes_what_rows_share() -> None:
    generator = np.random.default_rng(2)
    hard = generator.normal(0, 5, 300)
    a, b = hard + 0.5 + generator.normal(0, 0.1, 300), hard
    found = paired(a, b)
    assert found.value == pytest.approx(0.5, abs=0.03) and found.high - found.low < 0.05
    alone = bootstrap(a)
    assert alone.high - alone.low > 0.8
    assert paired(b, b) == Interval(0.0, 0.0, 0.0, 300)


@pytest.mark.parametrize(("b", "c", "p"), [
    (0, 0, 1.0), (1, 0, 1.0), (5, 0, 2 * 0.5**5), (9, 1, 2 * 11 / 1024), (3, 3, 1.0), (10, 2, 2 * 79 / 4096)])
def test_mcnemar_is_the_exact_binomial_test(b: int, c: int, p: float) -> None:
    right_a = [1] * b + [0] * c + [1, 0, 1]
    right_b = [0] * b + [1] * c + [1, 0, 1]
    assert mcnemar(right_a, right_b) == McNemar(b, c, pytest.approx(p))


def test_mcnemar_of_many_rows() -> None:
    from scipy.stats import binomtest

    generator = np.random.default_rng(0)
    a, b = generator.random(20_000) < 0.9, generator.random(20_000) < 0.895
    found = mcnemar(a, b)
    assert found.p == pytest.approx(binomtest(found.b, found.b + found.c).pvalue, rel=1e-9)


@pytest.mark.parametrize(("lost", "gained", "n"), [(5, 1, 20), (0, 0, 12), (3, 3, 150)])
def test_a_matched_interval_is_bonett_and_prices(lost: int, gained: int, n: int) -> None:
    a, b = [1] * lost + [0] * gained + [1] * (n - lost - gained), [0] * lost + [1] * gained + [1] * (n - lost - gained)
    found = matched(a, b)
    only_a, only_b = (lost + 1) / (n + 2), (gained + 1) / (n + 2)
    spread = 1.959964 * ((only_a + only_b - (only_a - only_b) ** 2) / (n + 2)) ** 0.5
    assert found.value == pytest.approx((lost - gained) / n) and found.n == n
    assert (found.low, found.high) == pytest.approx((only_a - only_b - spread, only_a - only_b + spread))


def test_no_rows_and_unequal_rows_are_refused() -> None:
    with pytest.raises(DataError, match="there are no rows"):
        bootstrap([])
    for compare in (paired, mcnemar):
        with pytest.raises(DataError, match="a paired comparison of 2 with 3 rows"):
            compare([1, 0], [1, 0, 1])


@pytest.mark.parametrize(("right", "n"), [(20, 20), (0, 20), (1, 1), (7, 50), (49, 50), (970, 1000), (3, 20_000)])
def test_the_interval_of_a_share_is_clopper_and_pearsons(right: int, n: int) -> None:
    from scipy.stats import binomtest

    found, theirs = share(np.arange(n) < right), binomtest(right, n).proportion_ci(0.95, "exact")
    assert found == Interval(right / n, pytest.approx(theirs.low, abs=1e-9), pytest.approx(theirs.high, abs=1e-9), n)


@pytest.mark.parametrize("true", [0.03, 0.5, 0.97])
def test_a_share_is_held_at_least_as_often_as_it_says(true: float) -> None:
    from scipy.stats import binom

    held = [share(np.arange(30) < right) for right in range(31)]
    chances = binom.pmf(np.arange(31), 30, true)
    assert sum(chance for chance, one in zip(chances, held, strict=True) if one.low <= true <= one.high) >= 0.95


def test_scores_in_between_leave_doubt_at_the_edge() -> None:
    whole = share([1.0] * 19 + [0.5])
    assert whole.value == pytest.approx(0.975) and 0.7 < whole.low < 0.85 and whole.high == 1
    generator, inside = np.random.default_rng(3), 0
    for _ in range(400):  # nine rows in ten whole, the others half: true mean .95
        found = share(np.where(generator.random(60) < 0.9, 1.0, 0.5))
        inside += found.low <= 0.95 <= found.high
    assert 376 <= inside < 400


def test_a_metric_of_shares_is_as_unsure_as_its_rows() -> None:
    def both(rows: np.ndarray) -> np.ndarray:
        return np.asarray(rows[..., 0].mean(1) * rows[..., 1].mean(1))

    right = np.ones((20, 2))
    assert of_metric(right, both, True) == share(np.ones(20)) != of_metric(right, both)
    assert of_metric(np.ones(20), is_share=True) == share(np.ones(20))
    assert of_metric(right[:, 0]) == Interval(1.0, 1.0, 1.0, 20)
    assert of_difference(np.ones(20), np.ones(20), is_share=True) == matched(np.ones(20), np.ones(20))
    assert of_difference(np.ones(20), np.ones(20)) == Interval(0.0, 0.0, 0.0, 20)


def test_how_many_rows_would_tell() -> None:
    assert rows_that_tell(Interval(0.02, -0.02, 0.06, 100)) == 400 and rows_that_tell(Interval(0, -1, 1, 9)) is None
