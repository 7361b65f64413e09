"""Answer with a small model where it is sure, and hand the rest to a bigger one.

How sure a model is: a label's probability; of a JSON object, for every top-level field, the probability of the tokens
that say it; of other text, the geometric mean of its tokens' probabilities. The threshold is fitted to a target: of the
answers that are kept, that share is the bigger model's too.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...models.errors import DataError, UsageError
from ..data import answers
from ..data.json_answers import is_json, json_value, same_answer, same_value
from ..data.messages import meaning
from ..encoders.classifier import Classifier
from ..generation.generator import Generator
from ..generation.remote import Remote
from ..generation.result import Generation
from .handover import request, sent
from .intervals import Interval, percentile

if TYPE_CHECKING:
    from ..text.codec import Codec

Messages = Sequence[Mapping[str, Any]]
Next = Callable[[Messages], str]
"""Whatever answers a conversation: a `Remote`, another `Cascade`, a function."""
Confidences = dict[str, float]
"""Field of the answer → how sure the model is of it, from 0 to 1."""
ANSWER = "answer"
"""The field of an answer that has none: a label, a text."""
LEAST = 40
"""Rows needed to fit a threshold: half of them choose it, half judge it."""
_BLANKS, _COLON = re.compile(r"[\s,]*"), re.compile(r"\s*:\s*")


class Cascade:
    """Two models that answer as one. It can be the next model of another cascade."""

    def __init__(self, small: Generator | Classifier, next: Generator | Classifier | Next,
                 threshold: float | Mapping[str, float]) -> None:
        """`threshold` holds for every field, or names each field's own, as `fit_threshold` finds them. UsageError for a
        classifier that does not choose one label."""
        for model in (small, next):
            if isinstance(model, Classifier):
                model.head.require_single("a cascade")
        self.small, self.next, self.threshold = small, next, threshold

    def answer(self, messages: str | Messages) -> Handled:
        """Answer a text or a conversation. Errors as in the models that are asked."""
        asked = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        text, confidences = ask(self.small, asked)
        if is_sure(confidences, self.threshold):
            return Handled(text, True, confidences)
        said = ask_remote(self.next, self.small, asked) if isinstance(self.next, Remote) else ask(self.next, asked)[0]
        return Handled(said, False, confidences)

    def __call__(self, messages: Messages) -> str:
        """The answer's text."""
        return self.answer(messages).text


@dataclass(frozen=True)
class Handled:
    """An answer, whether the small model gave it, and how sure that one was."""

    text: str
    kept: bool
    confidences: Confidences


@dataclass(frozen=True)
class Case:
    """A row that both models answered."""

    confidences: Confidences
    agrees: dict[str, bool]
    """Whether each of these fields is as the other answer has it."""
    same: bool
    """Whether the whole answers are the same."""

    @classmethod
    def of(cls, answer: str, confidences: Confidences, other: str) -> Case:
        """Compare an answer with the bigger model's, or with the row's own."""
        same, mine, wanted = same_answer(answer, other), json_value(answer), json_value(other)
        if ANSWER in confidences or not isinstance(wanted, dict):
            return cls(confidences, dict.fromkeys(confidences, same), same)
        return cls(confidences, {field: field in wanted and same_value(mine[field], wanted[field])
                                 for field in confidences}, same)


@dataclass(frozen=True)
class Fit:
    """Thresholds chosen on one half of the rows, and what they do on the other half."""

    target: float
    thresholds: dict[str, float]
    """Field → the lowest confidence that is kept; a field for which no threshold reaches the target is not here, and
    answers that have it are handed on."""
    coverage: Interval
    """Share of answers that are kept."""
    agreement: Interval | None
    """Share of the kept answers that are the other model's, field for field; None where none is kept."""
    agreement_of_all: float
    """The same of all answers, were all kept."""
    coverage_by_field: dict[str, float]
    """Share of answers that this field lets pass; those without it among them."""


def ask(model: Any, messages: Messages, tools: Messages = ()) -> tuple[str, Confidences]:
    """What a model answers and how sure it is of that; of a function that is not known (empty)."""
    if isinstance(model, Classifier):
        label = model.classify(str(messages[-1]["content"]))
        return label.label, {ANSWER: label.probability}
    if isinstance(model, Generator):
        made = model.chat(messages, tools=tools, logprobs=0)
        text = called(model, made) if tools else answers.apart(model.codec, made.ids, made.text)[1]
        return text, confidences(made, model.codec)
    return str(model(messages)), {}


def ask_remote(remote: Remote, small: Generator | Classifier, messages: Messages, tools: Messages = ()) -> str:
    """What a model behind an address answers in the place of `small`, asked as a server would ask it; tool calls as
    rows write them. Errors as in `Remote.answers`."""
    asked = {"messages": sent(messages), **({"tools": list(tools)} if tools else {})}
    return said(next(remote.answers(request(small, asked, remote.system))))


def said(completion: Mapping[str, Any]) -> str:
    """The text of a whole chat completion, or its tool calls as rows write them."""
    message = completion["choices"][0]["message"]
    words = str(message.get("content") or "")
    return meaning(words, [_read(call.get("function") or {}) for call in message.get("tool_calls") or ()])


def called(model: Generator, made: Generation) -> str:
    """An answer's tool calls as rows write them, or its text where it has none that can be read."""
    words, raw = answers.apart(model.codec, made.ids, made.text)[1:]
    try:
        before, calls = model.tool_format.parse(raw)
    except DataError:
        calls = []
    if not calls:
        return words
    return meaning(before, [{"name": call.name, "arguments": call.arguments} for call in calls])


def confidences(made: Generation, codec: Codec) -> Confidences:
    """How sure a generator is of its answer, which was made with `logprobs`; one without tokens is not sure at all."""
    if not made.logprobs:
        return {ANSWER: 0.0}
    values = [one.logprob for one in made.logprobs]
    fields = _fields(made.text)
    if not fields:
        return {ANSWER: math.exp(sum(values) / len(values))}
    found, stream, begin = dict.fromkeys((name for name, _ in fields), 0.0), codec.stream(), 0
    for one in made.logprobs:
        # What stands between two values belongs to the second, what follows the last to that one.
        name = next((name for name, end in fields if begin < end), fields[-1][0])
        found[name] += one.logprob
        begin += len(stream.push(one.id))
    return {name: math.exp(value) for name, value in found.items()}


def is_sure(confidences: Confidences, threshold: float | Mapping[str, float]) -> bool:
    """Whether an answer is kept: every field's confidence reaches its threshold; a field without one is never sure."""
    if isinstance(threshold, Mapping):
        return bool(confidences) and all(value >= threshold.get(field, math.inf)
                                         for field, value in confidences.items())
    return min(confidences.values(), default=-math.inf) >= threshold


def lowest_threshold(confidences: NDArray[np.float64], agreements: NDArray[np.bool_], target: float) -> float:
    """The lowest confidence [rows] such that of the rows from it on a share of at least `target` agrees [rows];
    infinite when there is none."""
    order = np.argsort(-confidences, kind="stable")
    sure = confidences[order]
    share = np.cumsum(agreements[order]) / np.arange(1, len(sure) + 1)
    last = np.append(sure[1:] != sure[:-1], True)[:len(sure)]  # equal rows are kept or handed on together
    good = np.flatnonzero(last & (share >= target))
    return float(sure[good[-1]]) if len(good) else math.inf


def fit_threshold(cases: Sequence[Case], target: float, repeats: int = 1000, seed: int = 0) -> Fit:
    """Choose each field's threshold on one half of the rows, drawn at random, and judge them on the other.

    Intervals are percentile intervals at 95 % that resample both halves and choose the thresholds anew each time.
    Raises UsageError for a target outside 0 to 1, DataError for fewer than 40 rows or confidences outside 0 to 1.
    """
    if not 0 < target <= 1:
        raise UsageError(f"target: {target} is not above 0 and at most 1", "0.95 keeps what agrees in 95 % of cases")
    if len(cases) < LEAST:
        raise DataError(f"{len(cases)} rows are too few to fit a threshold, which needs {LEAST}", "give more rows")
    fields = list(dict.fromkeys(field for case in cases for field in case.confidences))
    sure = np.array([[case.confidences.get(field, math.nan) for field in fields] for case in cases], np.float64)
    agrees = np.array([[case.agrees.get(field, False) for field in fields] for case in cases])
    same = np.array([case.same for case in cases])
    if not fields or not all(0 <= value <= 1 for case in cases for value in case.confidences.values()):
        raise DataError("confidences must be numbers from 0 to 1", "give what confidences() or classify() found")

    def choose(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        there = ~np.isnan(sure[rows])
        return np.array([lowest_threshold(sure[rows, index][there[:, index]], agrees[rows, index][there[:, index]],
                                          target) for index in range(len(fields))])

    def kept(rows: NDArray[np.int64], thresholds: NDArray[np.float64]) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = np.isnan(sure[rows]) | (sure[rows] >= thresholds)
        return found

    generator = np.random.default_rng(seed)
    first, second = np.array_split(generator.permutation(len(cases)), 2)
    coverages, shares = [], []
    for _ in range(repeats):
        rows = generator.choice(second, len(second))
        chosen = kept(rows, choose(generator.choice(first, len(first)))).all(axis=1)
        coverages.append(chosen.mean())
        if chosen.any():
            shares.append(same[rows][chosen].mean())
    thresholds = choose(first)
    by_field = kept(second, thresholds)
    chosen = by_field.all(axis=1)
    agreement = None
    if chosen.any():
        share = float(same[second][chosen].mean())
        agreement = percentile(share, np.array(shares or [share]), int(chosen.sum()))
    return Fit(target, {field: float(value) for field, value in zip(fields, thresholds, strict=True) if value <= 1},
               percentile(float(chosen.mean()), np.array(coverages), len(second)), agreement,
               float(same[second].mean()), dict(zip(fields, by_field.mean(axis=0).tolist(), strict=True)))


def saving(fit: Fit, price: float, small_seconds: float, next_seconds: float | None) -> dict[str, float | None]:
    """What is expected of 1,000 calls: how many are kept, the money that saves at a price a call of the next model,
    and the seconds (None where its are not known); below zero where the small model takes more than it saves."""
    kept = fit.coverage.value
    seconds = None if next_seconds is None else 1000 * (kept * next_seconds - small_seconds)
    return {"calls": 1000 * kept, "money": 1000 * kept * price, "seconds": seconds}


def _fields(text: str) -> list[tuple[str, int]]:
    """The top-level fields of a JSON object, each with where its value ends in `text`; none for other text."""
    if not isinstance(json_value(text), dict):
        return []
    decoder, fields = json.JSONDecoder(), []
    place = _skip(_BLANKS, text, text.index("{") + 1)
    while text[place] != "}":
        name, place = decoder.raw_decode(text, place)
        place = decoder.raw_decode(text, _skip(_COLON, text, place))[1]
        fields.append((str(name), place))
        place = _skip(_BLANKS, text, place)
    return fields


def _read(function: Mapping[str, Any]) -> dict[str, Any]:
    arguments = json_value(str(function.get("arguments") or "{}"))
    return {"name": function.get("name"), "arguments": arguments if is_json(arguments) else function["arguments"]}


def _skip(pattern: re.Pattern[str], text: str, place: int) -> int:
    match = pattern.match(text, place)
    return match.end() if match else place
