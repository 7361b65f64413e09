"""`runtime.monitoring`: windows of a log against a reference, expected accuracy, what to label next."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from edgestill.models.errors import DataError
from edgestill.runtime.data.row import Row
from edgestill.runtime.encoders.head import Classification, Head
from edgestill.runtime.monitoring import answered
from edgestill.runtime.monitoring.answered import Answered
from edgestill.runtime.monitoring.drift import Drift, drift
from edgestill.runtime.monitoring.expected_accuracy import expected
from edgestill.runtime.monitoring.worth_labelling import UNLIKE, UNSURE, worth_labelling

WORDS = ["please", "turn", "the", "lights", "heating", "music", "radio", "alarm", "on", "off", "up", "down", "in",
         "kitchen", "bedroom", "hall", "now", "later"]


def texts(count: int, seed: int, more: Sequence[str] = (), length: int = 6) -> list[str]:
    pick = random.Random(seed)
    return [" ".join(pick.choices([*WORDS, *more], k=pick.randint(length - 2, length + 2))) for _ in range(count)]


def said(of: Sequence[str], seed: int, shares: Sequence[float] = (0.5, 0.3, 0.2), sure: float = 6.0) -> Answered:
    generator = np.random.default_rng(seed)
    return Answered(of, list(generator.choice(["a", "b", "c"], len(of), p=shares)), generator.beta(sure, 1, len(of)))


REFERENCE = said(texts(300, 0), 0)
DRIFTS = {
    "words": said(texts(400, 1, ["window", "door"]), 1), "new_words": said(texts(400, 1, ["blinds"] * 3), 1),
    "length": said(texts(400, 1, length=8), 1), "labels": said(texts(400, 1), 1, (0.2, 0.3, 0.5)),
    "confidence": said(texts(400, 1), 1, sure=2.0)}


def found(log: Answered) -> Drift:
    assert REFERENCE.confidences is not None
    return drift(REFERENCE, np.random.default_rng(9).random(300) < REFERENCE.confidences, log)


@pytest.mark.parametrize("name", DRIFTS)
def test_each_kind_of_drift_is_found_and_named(name: str) -> None:
    told = found(DRIFTS[name])
    assert told.moved and all(name in window.moved for window in told.windows), told.windows
    assert [(window.first, window.texts) for window in told.windows] == [(0, 200), (200, 200)]
    assert name != "new_words" or "blinds" in told.windows[0].typical
    assert told.fell == (name == "confidence")
    assert name not in ("labels", "confidence") or all(window.moved == (name,) for window in told.windows)


def test_without_drift_next_to_nothing_is_told() -> None:
    windows = [window for seed in range(5, 8) for window in found(said(texts(1000, seed), seed)).windows]
    assert len(windows) == 15 and sum(bool(window.moved) for window in windows) <= 2  # 2 % of them, by its level
    assert sum(window.expected is not None and window.expected.fell for window in windows) <= 2


def test_one_window_alone_is_chance() -> None:
    calm, moved = texts(200, 3), texts(200, 4, ["window", "door"] * 3)
    mixed = found(said([*calm, *moved, *texts(200, 5)], 6))
    assert [bool(window.moved) for window in mixed.windows] == [False, True, False] and not mixed.moved
    assert found(said([*calm, *moved, *texts(200, 6, ["window"] * 6)], 6)).moved


def test_what_is_not_known_is_not_told() -> None:
    bare = drift(Answered(REFERENCE.texts), None, Answered(texts(120, 2)))
    assert set(bare.windows[0].differences) == {"words", "new_words", "length"} and bare.windows[0].expected is None
    with pytest.raises(DataError, match="the log holds 49 texts, and a difference takes 50"):
        found(said(texts(49, 1), 1))
    with pytest.raises(DataError, match="the reference holds 3 texts"):
        drift(said(texts(3, 1), 1), None, REFERENCE)


def test_the_accuracy_that_is_expected_is_that_of_a_model_as_sure_as_it_is_right() -> None:
    generator = np.random.default_rng(0)
    held, now = generator.beta(5, 1, 4000), generator.beta(2.5, 1, 4000)
    right, true = generator.random(4000) < held, generator.random(4000) < now
    told = expected(held, right, now)
    assert told.reference == right.mean() and abs(told.now.value - true.mean()) < 0.03
    assert told.now.low < told.now.value < told.now.high and told.fell
    too_sure = expected(held**0.3, right, now**0.3)  # of a model that is not calibrated the same is to be said
    assert abs(too_sure.now.value - true.mean()) < 0.04
    assert told.fall.value == pytest.approx(told.reference - told.now.value)
    same = expected(held, right, generator.beta(5, 1, 400))
    assert not same.fell and abs(same.now.value - same.reference) < 0.05
    whole = expected(np.ones(100), np.arange(100) < 90, np.ones(50))  # always as sure: nothing is known of now
    assert whole.now.value == pytest.approx(0.9) and not whole.fell
    assert expected(held, np.zeros(4000, bool), held).now.value == pytest.approx(0)


def test_what_to_label_is_unsure_or_unlike_and_never_twice_the_same() -> None:
    some = ["turn it on", "turn it on !", "what is the weather in rome", "play jazz", "weather rome"]
    chosen = worth_labelling(some, np.array([0.1, 0.1, 0.9, 0.2, 0.8]), np.array([0.2, 0.1, 0.9, 0.95, 0.9]), 3)
    assert [(one.place, one.why) for one in chosen] == [(1, UNSURE), (2, UNLIKE), (4, UNSURE)]
    assert [one.place for one in worth_labelling(some, np.array([0.1, 0.1, 0.9, 0.2, 0.8]), None, 9)] == [2, 4, 3, 0]


def test_pairs_are_answered_as_pairs() -> None:
    class Model:
        head = Head("softmax", ("a", "b"))

        def classify(self, text: object) -> Classification:
            asked.append(text)
            return Classification("softmax", ("a",), {"a": 0.75, "b": 0.25})

    asked: list[object] = []
    rows = [Row(text="one", pair="two"), Row(text="one"), Row(messages=({"role": "user", "content": "hi"},))]
    found = answered.by(Model(), rows)  # type: ignore[arg-type]
    assert asked == [("one", "two"), "one", "hi"] and list(found.texts) == ["one\n\ntwo", "one", "hi"]
    assert found.labels == ["a"] * 3


def test_logs_are_read_and_what_is_no_log_is_not(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    top = [{"label": "on", "probability": 0.75}]
    lines = [{"text": "a", "label": None, "probability": 0.75, "top": top}, {"text": "b", "text_pair": "c", "top": top}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    log = answered.logged(path)
    assert log is not None and (log.texts, log.labels) == (["a", "b\n\nc"], ["on", "on"])
    assert log.confidences is not None and log.confidences.tolist() == [0.75, 0.75]
    path.write_text(path.read_text() + '{"text": "d", "top": [{"label": 3}]}\n')
    with pytest.raises(DataError, match=r"log\.jsonl:3: no answer of a classifier"):
        answered.logged(path)
    path.write_text("".join(json.dumps({**line, "model": name}) + "\n" for line, name in zip(lines, "mn", strict=True)))
    with pytest.raises(DataError, match="holds answers of 2 models: m, n"):
        answered.logged(path)
    for other in ('{"text": "a", "label": "b"}\n', "[1]\n", "no JSON\n", ""):
        path.write_text(other)
        assert answered.logged(path) is None
