"""Where a classifier goes wrong: label by label, and which labels it takes for which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..data.shapes import Row
from .intervals import Interval, share


@dataclass(frozen=True)
class OfLabel:
    """One label of rows that have one each."""

    label: str
    rows: int
    """That have it."""
    given: int
    """Answers that are it."""
    precision: Interval | None
    """The share of these answers that are right; None where none was given."""
    recall: Interval | None
    """The share of these rows that were found; None where no row has it."""
    f1: float
    """Harmonic mean of both: 2 right / (rows + given)."""


@dataclass(frozen=True)
class Confusion:
    """One label given for another."""

    label: str
    given: str
    rows: int


def by_label(rows: Sequence[Row], answers: Sequence[str]) -> list[OfLabel]:
    """Every label that a row has or an answer gives, that of the lowest F1 first; of equal ones the most frequent."""
    pairs = _pairs(rows, answers)
    true, given = Counter(label for label, _ in pairs), Counter(answer for _, answer in pairs)
    right = Counter(label for label, answer in pairs if label == answer)
    found = [OfLabel(label, true[label], given[label], _of(right[label], given[label]), _of(right[label], true[label]),
                     2 * right[label] / (true[label] + given[label])) for label in {*true, *given}]
    return sorted(found, key=lambda one: (one.f1, -one.rows, one.label))


def confusions(rows: Sequence[Row], answers: Sequence[str]) -> list[Confusion]:
    """Labels that were given for others, the most frequent first."""
    counts = Counter((label, answer) for label, answer in _pairs(rows, answers) if label != answer)
    return [Confusion(*pair, count) for pair, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def _pairs(rows: Sequence[Row], answers: Sequence[str]) -> list[tuple[str, str]]:
    return [(row.label.strip(), answer.strip()) for row, answer in zip(rows, answers, strict=True)]


def _of(right: int, count: int) -> Interval | None:
    return share(np.arange(count) < right) if count else None
