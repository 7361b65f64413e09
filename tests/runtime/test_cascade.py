"""Cascades: how sure a model is, where the threshold lies, and who answers."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from edgestill.models.errors import DataError, UsageError
from edgestill.runtime import load
from edgestill.runtime.encoders.classifier import Classifier
from edgestill.runtime.evaluation.cascade import (
    ANSWER,
    Cascade,
    Case,
    _fields,
    ask,
    confidences,
    fit_threshold,
    is_sure,
    lowest_threshold,
    saving,
)
from edgestill.runtime.generation.generator import Generator
from edgestill.runtime.generation.logprobs import TokenLogprob
from edgestill.runtime.generation.result import Generation
from hypothesis import given
from hypothesis import strategies as st

from ..tiny import SENTENCES

ROWS = st.lists(st.tuples(st.sampled_from([0.1, 0.25, 0.5, 0.75, 0.9]), st.booleans()), min_size=1, max_size=60)
SCHEMA = {"type": "object", "properties": {"on": {"type": "boolean"}, "room": {"enum": ["hall", "attic"]}},
          "required": ["on", "room"], "additionalProperties": False}


@given(ROWS, st.floats(0.01, 1), st.floats(0.01, 1))
def test_the_lowest_threshold_that_reaches_the_target_is_found(rows: list[tuple[float, bool]], one: float,
                                                               other: float) -> None:
    sure, agrees = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    for target in (one, other):
        good = [value for value in sure if agrees[sure >= value].mean() >= target]
        assert lowest_threshold(sure, agrees, target) == min(good, default=math.inf)
    low, high = sorted((one, other))
    assert lowest_threshold(sure, agrees, low) <= lowest_threshold(sure, agrees, high)


def cases(n: int, seed: int = 0, fields: Sequence[str] = (ANSWER,)) -> list[Case]:
    """Rows whose agreement is as likely as the confidence says."""
    generator = np.random.default_rng(seed)
    made = []
    for _ in range(n):
        sure = {field: float(generator.random()) for field in fields}
        agrees = {field: bool(generator.random() < value) for field, value in sure.items()}
        made.append(Case(sure, agrees, all(agrees.values())))
    return made


def test_a_fit_holds_on_rows_it_has_not_seen() -> None:
    fit = fit_threshold(cases(4000), 0.9, repeats=200)
    # Where agreement is as likely as the confidence c, that of all above c is (1 + c) / 2.
    assert fit.thresholds[ANSWER] == pytest.approx(0.8, abs=0.05)
    assert fit.coverage.low <= 0.2 <= fit.coverage.high
    assert fit.agreement is not None and fit.agreement.low <= 0.9 <= fit.agreement.high
    assert fit.agreement_of_all == pytest.approx(0.5, abs=0.05)
    assert fit.coverage.n == 2000 and fit.coverage_by_field == {ANSWER: pytest.approx(fit.coverage.value)}


def test_the_interval_knows_that_the_threshold_was_chosen() -> None:
    fit = fit_threshold(cases(200), 0.9, repeats=400)
    narrow = 1.96 * math.sqrt(fit.coverage.value * (1 - fit.coverage.value) / fit.coverage.n)
    assert fit.coverage.high - fit.coverage.low > 3 * narrow  # a threshold that stays would give twice this


def test_a_higher_target_never_keeps_more() -> None:
    found = [fit_threshold(cases(400), target, repeats=10) for target in (0.6, 0.8, 0.95, 1.0)]
    shares = [fit.coverage.value for fit in found]
    assert shares == sorted(shares, reverse=True)


def test_fields_have_their_own_thresholds() -> None:
    made = cases(2000, fields=("easy", "hard"))
    made = [Case(case.confidences, {"easy": True, "hard": case.agrees["hard"]}, case.agrees["hard"]) for case in made]
    fit = fit_threshold(made, 0.9, repeats=50)
    assert fit.thresholds["easy"] < 0.01 and fit.thresholds["hard"] == pytest.approx(0.8, abs=0.06)
    assert fit.coverage_by_field["easy"] > 0.99 and fit.coverage.value < 0.3


def test_what_never_agrees_is_always_handed_on() -> None:
    made = [Case({ANSWER: 0.5}, {ANSWER: False}, False)] * 40
    fit = fit_threshold(made, 0.5, repeats=10)
    assert fit.thresholds == {} and fit.coverage.value == 0 and fit.agreement is None
    assert not is_sure({ANSWER: 1.0}, fit.thresholds)
    assert saving(fit, 0.01, 0.1, 1.0) == {"calls": 0, "money": 0, "seconds": -100}


@pytest.mark.parametrize(("rows", "target", "error", "message"), [
    (cases(39), 0.9, DataError, "39 rows are too few"),
    (cases(40), 0.0, UsageError, "target: 0.0"),
    (cases(40), 1.1, UsageError, "target: 1.1"),
    (cases(40), math.nan, UsageError, "target: nan"),
    ([Case({ANSWER: math.nan}, {ANSWER: True}, True)] * 40, 0.9, DataError, "from 0 to 1"),
    ([Case({ANSWER: 1.5}, {ANSWER: True}, True)] * 40, 0.9, DataError, "from 0 to 1"),
    ([Case({}, {}, True)] * 40, 0.9, DataError, "from 0 to 1"),
])
def test_what_cannot_be_fitted_is_refused(rows: list[Case], target: float, error: type[Exception],
                                          message: str) -> None:
    with pytest.raises(error, match=message):
        fit_threshold(rows, target)


@given(st.dictionaries(st.text(max_size=5), st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3))),
    st.sampled_from([None, 1]))
def test_the_fields_of_an_object_are_found_where_they_end(value: dict[str, Any], indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    found = _fields(text)
    assert [name for name, _ in found] == list(value)
    for name, end in found:
        assert text[:end].endswith(json.dumps(value[name], indent=indent)[-1:])
        assert json.loads(text[:end].rstrip() + "}")[name] == value[name]
    assert _fields(f"[{text}]") == [] and _fields(text + "!") == []


def test_cases_compare_field_by_field() -> None:
    case = Case.of('{"do":"on","to":1}', {"do": 0.9, "to": 0.5}, '{"to": true, "do": "on"}')
    assert case.agrees == {"do": True, "to": False} and not case.same
    assert Case.of('{"do":1}', {"do": 0.9}, '{"do":1, "more":2}') == Case({"do": 0.9}, {"do": True}, False)
    assert Case.of('{"do":1}', {"do": 0.9}, "no") == Case({"do": 0.9}, {"do": False}, False)
    assert Case.of(" yes", {ANSWER: 0.9}, "yes") == Case({ANSWER: 0.9}, {ANSWER: True}, True)


def test_a_generators_confidence_is_that_of_its_tokens(packed_llama: dict[str, Path]) -> None:
    with load(packed_llama["onnx"], threads=1) as model:
        assert isinstance(model, Generator)
        made = model.generate("what?", max_new_tokens=8, logprobs=0)
        mean = sum(one.logprob for one in made.logprobs) / len(made.logprobs)
        assert confidences(made, model.codec) == {ANSWER: pytest.approx(math.exp(mean))}
        bound = model.generate("what?", max_new_tokens=64, logprobs=0, schema=SCHEMA)
        found = confidences(bound, model.codec)
        assert list(found) == list(json.loads(bound.text)) == ["on", "room"]
        total = sum(one.logprob for one in bound.logprobs)
        assert math.prod(found.values()) == pytest.approx(math.exp(total))
        assert confidences(model.generate("what?", max_new_tokens=8), model.codec) == {ANSWER: 0.0}


def test_what_stands_between_two_values_belongs_to_the_second() -> None:
    pieces = ['{"a":', "1", ',"b":', "2", "}"]
    codec: Any = SimpleNamespace(stream=lambda: SimpleNamespace(push=pieces.__getitem__))
    scores = [TokenLogprob(place, logprob, []) for place, logprob in enumerate((-1.0, -2.0, -4.0, -0.5, -0.25))]
    made = Generation("".join(pieces), list(range(5)), 1, "stop", 0.0, 0.0, logprobs=scores)
    assert confidences(made, codec) == {"a": pytest.approx(math.exp(-3)), "b": pytest.approx(math.exp(-4.75))}


def test_the_small_model_answers_where_it_is_sure(packed_bert: Path) -> None:
    with load(packed_bert, threads=1) as model:
        assert isinstance(model, Classifier)
        asked: list[str] = []

        def bigger(messages: Any) -> str:
            asked.append(messages[-1]["content"])
            return "bigger"

        found = [model.classify(text) for text in SENTENCES[:6]]
        threshold = sorted(one.probability for one in found)[3]
        two = Cascade(model, bigger, {ANSWER: threshold})
        for text, alone in zip(SENTENCES, found, strict=False):
            handled = two.answer(text)
            assert handled.kept == (alone.probability >= threshold)
            assert handled.text == (alone.label if handled.kept else "bigger")
            assert handled.confidences == {ANSWER: alone.probability}
        assert asked == [text for text, one in zip(SENTENCES, found, strict=False) if one.probability < threshold]
        three = Cascade(model, two, 1.1)
        assert [three([{"role": "user", "content": text}]) for text in SENTENCES[:6]] == [
            two.answer(text).text for text in SENTENCES[:6]]
        assert ask(bigger, [{"role": "user", "content": "a"}]) == ("bigger", {})
