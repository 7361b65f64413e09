"""What metrics share: what they are given, and when two answers are the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models.errors import DataError, UsageError
from ..data.faults import RowFault
from ..data.formats import parse_json
from ..data.shapes import Row

Scores = NDArray[np.float64]
_NOT_JSON = object()


@dataclass(frozen=True)
class NoConfig:
    """The settings of a metric that has none."""


@dataclass(frozen=True)
class Context:
    """What a metric may look at besides answers and rows."""

    config: Any = field(default_factory=NoConfig)
    schema: dict[str, Any] | None = None
    """The JSON schema that answers must satisfy, where the task has one."""
    reference: list[str] | None = None
    """The teacher's answers to the same rows."""
    likelihoods: Callable[[], Scores] | None = None
    """Nats, tokens and characters of every row's scored text [rows, 3]; None without a model that gives logits."""

    def require_likelihoods(self) -> Callable[[], Scores]:
        """`likelihoods`, or UsageError where there is no model to ask."""
        if self.likelihoods is None:
            raise UsageError("a likelihood such as perplexity needs a model that generates text",
                             "leave it out for this one")
        return self.likelihoods


def json_value(answer: str) -> Any:
    """The answer parsed as strict JSON, or the marker that `is_json` knows."""
    try:
        return parse_json(answer.strip())
    except RowFault:
        return _NOT_JSON


def is_json(value: Any) -> bool:
    """Whether `json_value` could parse the answer."""
    return value is not _NOT_JSON


def names(answer: str) -> set[str] | None:
    """The labels of an answer that is a JSON list of them; None for another answer, which is never right."""
    value = json_value(answer)
    return set(value) if isinstance(value, list) and all(isinstance(item, str) for item in value) else None


def numbers(answers: Sequence[str], rows: Sequence[Row]) -> Scores:
    """Every answer as a number, and its row's score [rows, 2]. DataError for an answer that is no number."""
    found = [json_value(answer) for answer in answers]
    odd = next((place for place, value in enumerate(found)
                if not isinstance(value, (int, float)) or isinstance(value, bool)), None)
    if odd is not None:
        raise DataError(f"{rows[odd].where or 'a row'}: the answer {answers[odd][:40]!r} is no number",
                        "scores are measured of models that give one score a text")
    return np.array([[value, row.score] for value, row in zip(found, rows, strict=True)], np.float64)


def correlation(scores: Scores) -> Scores:
    """Pearson's, of two columns [repeats, rows, 2] → [repeats]; 0 where a column is constant."""
    apart = scores - scores.mean(axis=1, keepdims=True)
    lengths = np.sqrt((apart**2).sum(axis=1)).prod(axis=-1)
    result: Scores = apart.prod(axis=-1).sum(axis=1) / np.where(lengths > 0, lengths, 1.0)
    return result


def same_answer(answer: str, wanted: str) -> bool:
    """Equal without surrounding blanks, or equal as JSON values (key order and blanks aside) where both are JSON."""
    if answer.strip() == wanted.strip():
        return True
    left, right = json_value(answer), json_value(wanted)
    return is_json(left) and is_json(right) and same_value(left, right)


def same_value(left: Any, right: Any) -> bool:
    """Equality of JSON values; unlike Python's, true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same_value(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same_value, left, right))
    return bool(left == right)
