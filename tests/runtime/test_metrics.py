"""Every metric keeps the contract, and measures what it says."""

from __future__ import annotations

import dataclasses
import math
import sys
from typing import Any

import numpy as np
import pytest
from edgestill.models import kinds
from edgestill.models.errors import DataError, MissingExtra, UsageError
from edgestill.runtime.data.reader import Row
from edgestill.runtime.evaluation.evaluate import PACKAGE, evaluate_answers, metric
from edgestill.runtime.evaluation.intervals import bootstrap, mean
from edgestill.runtime.metrics import Context


def chat(answer: str, question: str = "q") -> Row:
    return Row(messages=({"role": "user", "content": question}, {"role": "assistant", "content": answer}))


LABELS = [Row(text=f"text {index}", label="abc"[index % 3]) for index in range(12)]
CALLS = [chat('{"intent": "on", "room": "hall"}'), chat('{"intent": "off"}')] * 6
TEXTS = [Row(text=f"text {index}") for index in range(12)]
LISTS = [Row(text=f"text {index}", labels=("a", "bc"[index % 2])) for index in range(12)]
RATINGS = [Row(text=f"text {index}", score=index / 2) for index in range(12)]
ROWS = {"label": LABELS, "chat": CALLS, "text": TEXTS, "labels": LISTS, "score": RATINGS}
LOSSES = ("perplexity", "bits_per_character", "nats_per_token", "mean_absolute_error")


def value(name: str, answers: list[str], rows: list[Row], **options: Any) -> float:
    return evaluate_answers(answers, rows, [name], **options).metrics[name].value


@pytest.mark.parametrize("name", kinds.names(PACKAGE))
def test_contract(name: str) -> None:
    module, config = metric(name)
    assert module.__doc__ and dataclasses.is_dataclass(module.Config) and config == module.Config()
    assert module.KINDS and set(module.KINDS) <= set(ROWS)
    assert module.SHARE is (name not in (*LOSSES, "pearson", "spearman"))
    assert module.HIGHER_IS_BETTER is (name not in LOSSES)
    for kind in module.KINDS:
        rows = ROWS[kind]
        answers = [row.answer for row in rows]
        context = Context(config, None, answers, lambda: np.tile([2.0, 4.0, 8.0], (12, 1)))
        scores = module.score(answers, rows, context)
        assert isinstance(scores, np.ndarray) and scores.dtype == np.float64 and len(scores) == len(rows)
        interval = bootstrap(scores, repeats=50, aggregate=getattr(module, "aggregate", mean))
        assert interval.low <= interval.value <= interval.high and math.isfinite(interval.value)
        if "text" not in module.KINDS:
            best = 1.0 if module.HIGHER_IS_BETTER else 0.0
            assert interval.value == pytest.approx(best), "right answers are wholly right"
            wrong = module.score(["0" if kind == "score" else "no such answer"] * 12, rows, context)
            worse = getattr(module, "aggregate", mean)(wrong[None])[0]
            assert worse == 0.0 if module.HIGHER_IS_BETTER else worse > 0.0


@pytest.mark.parametrize(("answer", "wanted", "right"), [
    (" yes\n", "yes", True), ("Yes", "yes", False), ("yes.", "yes", False), ("", "yes", False),
    ('{"b": [1, 2], "a": "x"}', '{"a":"x","b":[1,2]}', True), ('{"a": 1}', '{"a": 1.0}', True),
    ('{"a": true}', '{"a": 1}', False), ('{"a": "1"}', '{"a": 1}', False), ('{"a": [1, 2]}', '{"a": [2, 1]}', False),
    ('{"a": 1, "a": 1}', '{"a": 1}', False), ('{"a": 1} ok', '{"a": 1}', False), ('{"a": null}', "{}", False),
])
def test_exact_match_compares_text_or_json_values(answer: str, wanted: str, right: bool) -> None:
    assert value("exact_match", [answer], [chat(wanted)]) == float(right)
    assert value("agreement", [answer], [chat("something else")], reference=[wanted]) == float(right)


def test_field_match() -> None:
    answers = ['{"intent": "on"}', '{"intent": "on", "x": 1}', "on", '{"room": "hall"}']
    rows = [CALLS[0], CALLS[1], CALLS[0], chat('{"room": 2}')]
    found = evaluate_answers(answers, rows, ["field_match", "field_match:room"])
    assert found.scores == {"field_match": [1.0, 0.0, 0.0, 1.0], "field_match:room": [0.0, 1.0, 0.0, 0.0]}
    two = chat('[{"intent": "on"}, {"intent": "off"}]')
    assert value("field_match", ['[{"intent": "on", "a": 1}, {"intent": "off"}]'], [two]) == 1.0
    assert value("field_match", ['[{"intent": "off"}, {"intent": "on"}]'], [two]) == 0.0
    found = evaluate_answers(["sorry", "{}"], [chat("no"), CALLS[0]], ["field_match"])
    assert found.scores["field_match"] == [1.0, 0.0]
    with pytest.raises(DataError, match="no row's answer is JSON with the field 'colour'"):
        value("field_match:colour", answers, rows)


def test_json_validity_with_and_without_a_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = ['{"intent": "on"}', '{"intent": 3}', "on", '{"intent": "on"', "NaN"]
    rows = CALLS[:5]
    schema = {"type": "object", "properties": {"intent": {"type": "string"}}, "required": ["intent"]}
    assert evaluate_answers(answers, rows, ["json_validity"]).scores["json_validity"] == [1, 1, 0, 0, 0]
    assert evaluate_answers(answers, rows, ["json_validity"], schema).scores["json_validity"] == [1, 0, 0, 0, 0]
    with pytest.raises(UsageError, match=r"task\.schema: not a JSON schema"):
        value("json_validity", answers, rows, schema={"type": "objekt"})
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    assert value("json_validity", answers, rows) == 0.4
    with pytest.raises(MissingExtra, match="jsonschema"):
        value("json_validity", answers, rows, schema=schema)


def test_macro_f1_is_scikit_learns() -> None:
    from sklearn.metrics import f1_score

    generator = np.random.default_rng(0)
    true = generator.integers(0, 6, 200)
    guess = np.where(generator.random(200) < 0.6, true, generator.integers(0, 8, 200))  # 6 and 7 are never true
    rows = [Row(text="t", label=str(label)) for label in true]
    found = evaluate_answers([str(label) for label in guess], rows)
    assert found.metrics["macro_f1"].value == pytest.approx(f1_score(true, guess, average="macro"))
    assert found.metrics["accuracy"].value == pytest.approx((true == guess).mean())
    low, high = found.metrics["macro_f1"].low, found.metrics["macro_f1"].high
    assert low < found.metrics["macro_f1"].value < high


def test_likelihoods_are_pooled_over_tokens() -> None:
    context = Context(likelihoods=lambda: np.array([[3.0, 1, 10], [1.0, 3, 20]]))
    pooled = {name: float(module.aggregate(module.score([], TEXTS[:2], context)[None])[0])
              for name in ("nats_per_token", "perplexity", "bits_per_character") for module in [metric(name)[0]]}
    assert pooled == pytest.approx({"nats_per_token": 1.0, "perplexity": math.e,
                                    "bits_per_character": 4 / math.log(2) / 30})


@pytest.mark.parametrize(("name", "rows", "message"), [
    ("exactmatch", CALLS, "did you mean 'exact_match'"),
    ("accuracy", CALLS, "does not measure chat rows, only label"),
    ("accuracy:x", LABELS, "accuracy has no settings"),
    ("agreement", CALLS, "the teacher's answers were not given"),
    ("perplexity", CALLS, "needs a model that generates text"),
])
def test_metrics_that_cannot_be_measured(name: str, rows: list[Row], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        value(name, [row.answer for row in rows], rows)


def test_a_teacher_of_other_rows_is_refused() -> None:
    with pytest.raises(UsageError, match="2 teacher's answers for 12 rows"):
        value("agreement", ["a"] * 12, LABELS, reference=["a", "b"])


def test_labels_are_compared_as_sets() -> None:
    rows = [Row(text="t", labels=("a", "b")), Row(text="t", labels=()), Row(text="t", labels=("c",))]
    answers = ['["b", "a"]', "[]", '["a"]']
    assert evaluate_answers(answers, rows, ["exact_match"]).scores["exact_match"] == [1.0, 1.0, 0.0]
    assert value("micro_f1", answers, rows) == pytest.approx(2 * 2 / (3 + 3))
    assert value("micro_f1", ["[]"], [rows[1]]) == 1.0 and value("micro_f1", ["a"], [rows[0]]) == 0.0
    assert value("agreement", answers, rows, reference=['["a", "b"]', "[]", '["c"]']) == pytest.approx(2 / 3)


def test_correlations_are_scipys() -> None:
    from scipy import stats

    generator = np.random.default_rng(1)
    wanted = generator.integers(0, 6, 100) / 2
    given = np.round(wanted**3 + generator.normal(0, 3, 100), 1)  # with ties on both sides
    rows = [Row(text="t", score=float(number)) for number in wanted]
    found = evaluate_answers([str(number) for number in given], rows).metrics
    assert found["pearson"].value == pytest.approx(stats.pearsonr(given, wanted).statistic)
    assert found["spearman"].value == pytest.approx(stats.spearmanr(given, wanted).statistic)
    assert found["mean_absolute_error"].value == pytest.approx(np.abs(given - wanted).mean())
    assert value("pearson", ["1.0"] * 100, rows) == value("spearman", ["1.0"] * 100, rows) == 0.0
    with pytest.raises(DataError, match="the answer 'none' is no number"):
        value("pearson", ["none"] * 100, rows)
