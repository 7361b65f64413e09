"""Agreement of classifiers by what their heads mean: sound files pass, planted faults do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from edgestill.models.task import Task
from edgestill.quantize.proof import decisions, limits
from edgestill.quantize.proof.divergence import kl
from edgestill.runtime.encoders.head import Head

RANDOM = np.random.default_rng(0)
FLOAT = RANDOM.normal(0, 2, (200, 12)).astype(np.float32)
NOISE = RANDOM.normal(0, 0.1, FLOAT.shape).astype(np.float32)
LABELS = [f"label {index}" for index in range(12)]
EIGHT = limits.of("onnx:int8")
Change = Callable[[Any], Any]


def head(**thresholds: float) -> Head:
    return Head.of(Task("classify", labels=LABELS, head="sigmoid", thresholds=thresholds), {})


def failed(checks: list[Any]) -> set[str]:
    return {check.name for check in checks if check.passed is False}


def one(column: int, change: Change) -> Change:
    def changed(logits: Any) -> Any:
        logits = logits.copy()
        logits[:, column] = change(logits[:, column])
        return logits
    return changed


def test_the_kl_of_coins_is_that_of_two_outcomes() -> None:
    x, y = FLOAT.reshape(-1, 1), (FLOAT + NOISE).reshape(-1, 1)
    both = [np.concatenate([np.zeros_like(each), each], axis=1) for each in (x, y)]
    np.testing.assert_allclose(decisions.coin_kl(x, y)[:, 0], kl(*both), rtol=1e-6, atol=1e-12)


def test_sound_labels_and_scores_pass() -> None:
    for found in (FLOAT, FLOAT + NOISE):
        assert not failed(decisions.labels(head(), FLOAT, found, EIGHT))
        assert not failed(decisions.scores(FLOAT, found, EIGHT))
    assert not failed(decisions.scores(FLOAT, FLOAT, limits.of("onnx:fp32")))
    assert not failed(decisions.scores(FLOAT[:1], FLOAT[:1], limits.of("onnx:fp32")))
    same = np.full((9, 1), 3.0)  # of scores without a spread the size counts
    assert not failed(decisions.scores(same, same + 4e-4, EIGHT)) and failed(decisions.scores(same, same + 0.1, EIGHT))


@pytest.mark.parametrize("change", [
    one(3, lambda logits: -logits), one(3, lambda logits: logits + 2), one(3, lambda logits: logits * 0),
    lambda logits: logits * 0.5, lambda logits: logits[:, ::-1], lambda logits: np.where(logits > 5, np.nan, logits)])
def test_a_label_that_is_decided_otherwise_is_caught(change: Change) -> None:
    assert "kl_nats" in failed(decisions.labels(head(), FLOAT, change(FLOAT), EIGHT))


def test_one_label_of_hundreds_does_not_vanish_among_them() -> None:
    expected = RANDOM.normal(-6, 0.2, (200, 400))
    expected[:, 7] = RANDOM.normal(0, 0.2, 200)
    many = Head.of(Task("classify", labels=[str(index) for index in range(400)], head="sigmoid"), {})
    assert not failed(decisions.labels(many, expected, expected + 0.01, EIGHT))
    assert "kl_nats" in failed(decisions.labels(many, expected, one(7, lambda logits: logits + 0.6)(expected), EIGHT))


def test_logits_that_are_no_numbers_pass_under_no_limits() -> None:
    broken = np.full_like(FLOAT, np.nan)
    assert failed(decisions.labels(head(), FLOAT, broken, limits.of("gguf:Q4_0"))) == {"kl_nats", "kl_p999_nats"}


def test_decisions_fall_at_the_labels_own_thresholds() -> None:
    """Both sides of 0.5, and one side of 0.9: the same numbers are the same decisions, or others."""
    expected, found = np.full((10, 12), -0.1), np.full((10, 12), 0.1)
    share = {check.name: check.value for check in decisions.labels(head(), expected, found, EIGHT)}
    assert (share["same_decisions"], share["same_labels"]) == (0.0, 0.0)
    high = head(**dict.fromkeys(LABELS, 0.9))
    share = {check.name: check.value for check in decisions.labels(high, expected, found, EIGHT)}
    assert (share["same_decisions"], share["same_decisions_decisive"]) == (1.0, 1.0)


@pytest.mark.parametrize("change", [
    one(3, lambda logits: -logits), lambda logits: logits * 0.75, lambda logits: logits + 1,
    lambda logits: logits[::-1], one(3, lambda logits: logits * np.nan)])
def test_scores_that_say_something_else_are_caught(change: Change) -> None:
    assert failed(decisions.scores(FLOAT, change(FLOAT + NOISE), EIGHT))
