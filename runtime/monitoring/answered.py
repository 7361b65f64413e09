"""What a model was asked, and what it said: of a log, of rows, or by asking it now."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...models.errors import DataError, UsageError
from ..data.row import Row
from ..encoders.classifier import Classifier
from ..evaluation.evaluate import spaced

_COMPARED = 20
"""Texts of a log that a model is asked again."""


@dataclass(frozen=True)
class Answered:
    """Texts in the order in which they came; with them, where a classifier has answered them, both of the others."""

    texts: Sequence[str]
    labels: Sequence[str] | None = None
    """The likeliest one of each."""
    confidences: NDArray[np.float64] | None = None
    """Their probabilities."""

    def __len__(self) -> int:
        return len(self.texts)

    def some(self, places: Sequence[int]) -> Answered:
        """Those at these places."""
        return Answered([self.texts[place] for place in places],
                        None if self.labels is None else [self.labels[place] for place in places],
                        None if self.confidences is None else self.confidences[np.array(places, int)])


def by(model: Classifier, rows: Sequence[Row],
       advance: Callable[[int, int], None] = lambda done, all_of_them: None) -> Answered:
    """What a classifier says of rows' texts, or pairs of them. UsageError where it does not choose one label."""
    model.head.require_single("drift")
    found = []
    for place, row in enumerate(rows):
        found.append(model.classify(row.texts if row.text else row.question))
        advance(place + 1, len(rows))
    return Answered([row.question for row in rows], [one.label for one in found],
                    np.array([one.probability for one in found]))


def check_answers(model: Classifier, log: Answered) -> None:
    """UsageError where a log's answers are not those of this model: of some of its texts it says others. Texts with a
    bracket are left alone: something personal may have stood there."""
    whole = [place for place, text in enumerate(log.texts) if "[" not in text and "\n\n" not in text]
    some = spaced(whole, _COMPARED)
    assert log.labels is not None
    others = sum(model.classify(log.texts[place]).label != log.labels[place] for place in some)
    if others > len(some) / 5:
        raise UsageError(f"the log's answers are not this model's: of {len(some)} of its texts it labels {others} "
                         "otherwise", "give the model that answered it, or answer its texts anew: edgestill classify")


def of_rows(rows: Sequence[Row]) -> Answered:
    """The texts of rows, without answers of a model."""
    return Answered([row.question for row in rows])


def logged(path: Path) -> Answered | None:
    """The texts and answers of a file that `classify -o` or `serve --log` wrote; None for another file.

    DataError for a line that is none of theirs, after a first that is, and for answers of several models.
    """
    texts, labels, confidences, models = [], [], [], set[str]()
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            found = _record(line)
            if found is None and number == 1:
                return None
            if found is None:
                raise DataError(f"{path}:{number}: no answer of a classifier, and the lines before are",
                                "give one file of edgestill classify -o or serve --log")
            texts.append(found[0])
            labels.append(found[1])
            confidences.append(found[2])
            models.add(found[3])
    if len(models) > 1:
        raise DataError(f"{path}: holds answers of {len(models)} models: {', '.join(sorted(models))}",
                        "put the lines of one of them into a file of their own: they say which in \"model\"")
    return Answered(texts, labels, np.array(confidences)) if texts else None


def _record(line: str) -> tuple[str, str, float, str] | None:
    """Text, label, probability and the model's name of a line."""
    try:
        told: Any = json.loads(line)
        text, best = told["text"], told["top"][0]
        label, probability = best["label"], best["probability"]
    except (ValueError, LookupError, TypeError):
        return None
    if not (isinstance(text, str) and isinstance(label, str) and isinstance(probability, int | float)):
        return None
    whole = f"{text}\n\n{told['text_pair']}" if told.get("text_pair") else text
    return whole, label, float(probability), str(told.get("model", ""))
