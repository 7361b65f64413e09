"""Evaluations of models: what is asked of them, what is kept, and how two are compared."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from edgestill.models.errors import DataError, UsageError
from edgestill.runtime.data.reader import Row
from edgestill.runtime.evaluation.evaluate import Evaluation, compare, evaluate, evaluate_answers, spaced
from edgestill.runtime.evaluation.likelihood import nats, row_likelihoods

CHATS = [Row(messages=({"role": "user", "content": f"say {index}"}, {"role": "assistant", "content": str(index)}),
             where=f"rows:{index}") for index in range(10)]
LABELS = [Row(text=f"text {index}", label="ab"[index % 2], where=f"rows:{index}") for index in range(200)]


class Echo:
    """A Generator that repeats the last word, and remembers how it was asked."""

    def __init__(self, folder: Path | None = None, schema: str = "") -> None:
        self.asked: list[dict[str, Any]] = []
        manifest = SimpleNamespace(task=SimpleNamespace(schema=schema))
        self.artifact = SimpleNamespace(folder=folder, manifest=manifest) if folder else None

    def generate(self, **options: Any) -> Any:
        self.asked.append(options)
        return SimpleNamespace(text=" " + options["messages"][-1]["content"].split()[-1])


class Coin:
    """A Classifier that says "a" to everything."""

    def classify_all(self, texts: Sequence[str]) -> list[Any]:
        return [SimpleNamespace(answer="a") for _ in texts]


class Bigrams:
    """A model of 20 tokens, one a character, that looks at the token before only; 0 begins, 1 ends."""

    context_length, options, template, stop_ids = 64, MappingProxyType({}), None, frozenset([1])

    def __init__(self, bos: int | None = 0, eos: int | None = 1) -> None:
        self.table = np.random.default_rng(0).normal(0, 2, (20, 20)).astype(np.float32)
        self.bos_id, self.eos_id, self.longest = bos, eos, 0
        self.codec, self.engine = self, self

    def plain_ids(self, text: str) -> list[int]:
        return ([self.bos_id] if self.bos_id is not None else []) + [ord(letter) - ord("a") + 2 for letter in text]

    def prompt(self, messages: Sequence[Any], tools: Sequence[Any], direct: bool) -> str:
        return "".join(message["content"] for message in messages)

    def decode(self, ids: Sequence[int], skip: bool = True) -> str:
        return "".join(chr(token - 2 + ord("a")) for token in ids if token > 1)

    def logits(self, ids: Sequence[int]) -> Any:
        self.longest = max(self.longest, len(ids))
        return self.table[list(ids)]

    def cost(self, ids: Sequence[int]) -> float:
        logs = self.table - np.log(np.exp(self.table.astype(np.float64)).sum(1, keepdims=True))
        return float(-sum(logs[a, b] for a, b in zip(ids, ids[1:], strict=False)))


def test_a_generator_is_asked_without_the_answer() -> None:
    model, seen = Echo(), []
    found = evaluate(model, CHATS, progress=lambda done, total: seen.append((done, total)))
    assert found.metrics["exact_match"].value == 1.0 and set(found.metrics) == {"exact_match"}
    assert found.answers[3] == " 3" and found.where[3] == "rows:3" and found.seconds >= 0
    assert model.asked[3] == {"messages": [{"role": "user", "content": "say 3"}], "tools": ()}
    assert seen[0] == (1, 10) and seen[-1] == (10, 10)
    assert Evaluation.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False))) == found


def test_a_generator_may_label() -> None:
    assert evaluate(Echo(), [Row(text="word a", label="a"), Row(text="word b", label="c")]).scores["accuracy"] == [1, 0]


def test_a_classifier_with_its_teacher() -> None:
    found = evaluate(Coin(), LABELS, reference=["a"] * 199 + ["b"])
    assert found.metrics["accuracy"].value == 0.5 and found.metrics["agreement"].value == 0.995
    assert found.metrics["macro_f1"].value == pytest.approx(1 / 3)


def test_a_limit_takes_rows_evenly_spaced() -> None:
    found = evaluate(Echo(), CHATS, limit=3, reference=[str(index) for index in range(10)])
    assert found.answers == [" 0", " 3", " 6"] and found.metrics["agreement"].value == 1.0
    assert spaced(range(10), 0) == spaced(range(10), 99) == list(range(10))


def test_constrained_answers_use_the_schema_in_the_artifact(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text('{"type": "string"}')
    model = Echo(tmp_path, "schema.json")
    found = evaluate(model, CHATS, constrain=True)
    assert found.constrained and model.asked[0]["schema"] == {"type": "string"}
    assert found.metrics["json_validity"].value == 0.0  # numbers, not strings
    evaluate(model, CHATS)
    assert model.asked[-1]["schema"] is False  # what the model says by itself is measured


@pytest.mark.parametrize("content", [None, "[]", "{"])
def test_a_broken_schema_in_the_artifact(tmp_path: Path, content: str | None) -> None:
    if content:
        (tmp_path / "schema.json").write_text(content)
    with pytest.raises(UsageError, match="it is the task's schema"):
        evaluate(Echo(tmp_path, "schema.json"), CHATS)


def test_constraining_without_a_schema() -> None:
    with pytest.raises(UsageError, match="the model's task has no JSON schema"):
        evaluate(Echo(), CHATS, constrain=True)


@pytest.mark.parametrize(("rows", "message"), [
    ([], "there are no rows to evaluate on"), ([CHATS[0], LABELS[0]], "rows of mixed kinds: chat and label")])
def test_rows_that_cannot_be_evaluated(rows: list[Row], message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate(Echo(), rows)


def test_a_metric_that_cannot_be_measured_is_refused_before_the_first_answer() -> None:
    model = Echo()
    for name in ("accuracy", "agreement", "field_match"):
        with pytest.raises((UsageError, DataError)):
            evaluate(model, CHATS, [name])
    with pytest.raises(UsageError, match="needs a model that generates text|does not measure"):
        evaluate(Coin(), LABELS, ["perplexity"])
    assert not model.asked


def test_answers_must_match_rows() -> None:
    with pytest.raises(DataError, match="1 answers for 10 rows"):
        evaluate_answers(["x"], CHATS)


def test_compare_is_paired() -> None:
    right = [row.label for row in LABELS]
    worse = ["a" if index < 20 else label for index, label in enumerate(right)]
    found = compare(evaluate_answers(right, LABELS), evaluate_answers(worse, LABELS))
    assert found.differences["accuracy"].value == pytest.approx(0.05) and found.differences["accuracy"].low > 0
    assert found.tests["accuracy"] == (10, 0, 2 / 1024) and set(found.tests) == {"accuracy"}
    assert found.differences["macro_f1"].value > 0
    assert json.loads(json.dumps(found.to_json()))["tests"]["accuracy"] == {"b": 10, "c": 0, "p": 2 / 1024}
    with pytest.raises(UsageError, match="of different rows"):
        compare(evaluate_answers(right, LABELS), evaluate_answers(right[:10], LABELS[:10]))


def test_nats_are_those_of_a_softmax() -> None:
    logits = np.random.default_rng(0).normal(0, 30, (150, 7)).astype(np.float32)
    targets = [index % 7 for index in range(150)]
    exact = logits.astype(np.float64)
    shifted = exact - exact.max(1, keepdims=True)
    wanted = (np.log(np.exp(shifted).sum(1)) - shifted[np.arange(150), targets]).sum()
    assert nats(logits, targets) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(("bos", "eos", "prefix"), [(0, 1, [0]), (None, 1, [1]), (None, None, [])])
def test_every_token_of_a_long_text_is_scored_once(bos: int | None, eos: int | None, prefix: list[int]) -> None:
    model = Bigrams(bos, eos)
    for length in (2, 63, 64, 65, 96, 200):
        text = "".join(chr(ord("a") + (index * index) % 18) for index in range(length))
        [[total, tokens, characters]] = row_likelihoods(model, [Row(text=text)]).tolist()
        ids = prefix + [ord(letter) - ord("a") + 2 for letter in text]
        assert total == pytest.approx(model.cost(ids), rel=1e-6)
        assert (tokens, characters) == (len(ids) - 1, length if prefix else length - 1)
    assert model.longest == 64


def test_the_characters_of_a_first_token_that_is_not_scored_do_not_count() -> None:
    class Words(Bigrams):
        """Its first token is a word of three letters."""

        def plain_ids(self, text: str) -> list[int]:
            return [*super().plain_ids(""), 2, *(ord(letter) - ord("a") + 2 for letter in text[3:])]

        def decode(self, ids: list[int], *given: Any) -> str:
            return "".join("abc" if token == 2 else chr(ord("a") + token - 2) for token in ids)

    for bos, tokens, characters in ((0, 3, 5), (None, 2, 2)):
        model = Words(bos, None)
        assert row_likelihoods(model, [Row(text="abcde")])[0, 1:].tolist() == [tokens, characters]


def test_of_a_conversation_the_answer_and_its_end_are_scored() -> None:
    model = Bigrams()
    row = Row(messages=({"role": "user", "content": "abc"}, {"role": "assistant", "content": "de"}), where="rows:1")
    [[total, tokens, characters]] = row_likelihoods(model, [row]).tolist()
    assert total == pytest.approx(model.cost([4, 5, 6, 1]), rel=1e-6) and (tokens, characters) == (3, 2)
    long = Row(messages=({"role": "user", "content": "a" * 70}, {"role": "assistant", "content": "b"}), where="rows:9")
    with pytest.raises(DataError, match="rows:9: 73 tokens, the model's context holds 64"):
        row_likelihoods(model, [long])


def test_text_rows_are_measured_by_likelihood_alone() -> None:
    model = Bigrams()
    found = evaluate(model, [Row(text="abc"), Row(text="hello")])
    assert not found.answers
    total = model.cost([0, *model.plain_ids("abc")[1:]]) + model.cost(model.plain_ids("hello"))
    assert found.metrics["perplexity"].value == pytest.approx(math.exp(total / 8), rel=1e-6)
    assert found.metrics["bits_per_character"].value == pytest.approx(total / math.log(2) / 8, rel=1e-6)


def test_a_text_of_one_token_without_a_beginning() -> None:
    with pytest.raises(DataError, match="rows:1: no token can be scored"):
        row_likelihoods(Bigrams(None, None), [Row(text="a", where="rows:1")])
