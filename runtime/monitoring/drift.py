"""Whether what a model is asked has moved from what it was tested on, and whether it is likely less right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...models.errors import DataError
from ..evaluation.evaluate import spaced
from . import two_samples
from .answered import Answered
from .expected_accuracy import Expected, expected
from .two_samples import Difference
from .words import Words

LEVEL = 0.02
"""Share of windows without drift that are told to have moved, over all tests of a window."""
SMALLEST = 50
"""Texts of a window: below, hardly any drift can be seen."""
REFERENCE, ANSWERS = 1000, 10_000
"""Most texts of the reference that a window is held against, and whose answers say what accuracy to expect: evenly
spaced."""
NAMES = {"words": "which words", "new_words": "words that the reference lacks", "length": "characters a text",
         "labels": "labels given", "confidence": "how sure the model is"}
"""What each test looks at."""


@dataclass(frozen=True)
class Window:
    """Texts that came one after the other."""

    first: int
    """Place of its first text in the log, from 0 on."""
    texts: int
    differences: dict[str, Difference]
    """By the names of NAMES."""
    moved: tuple[str, ...]
    """Names of what moved, at LEVEL for the window as a whole."""
    typical: tuple[str, ...]
    """Words that tell its texts from the reference's best, where these moved."""
    expected: Expected | None


@dataclass(frozen=True)
class Drift:
    """A log, window by window."""

    windows: tuple[Window, ...]
    unlike: NDArray[np.float64]
    """How little each text of the log is like the reference [texts]."""

    @property
    def moved(self) -> bool:
        """Whether two windows one after the other have moved: one alone may say so by chance."""
        return _twice([bool(window.moved) for window in self.windows])

    @property
    def fell(self) -> bool:
        """Whether the model is likely less right in two windows one after the other."""
        return _twice([window.expected is not None and window.expected.fell for window in self.windows])


def drift(reference: Answered, right: NDArray[np.bool_] | None, log: Answered, window: int = 200,
          advance: Callable[[int, int], None] = lambda done, all_of_them: None) -> Drift:
    """Hold the log against the reference in windows of about this many texts: time and memory grow with the square of
    a window's. `right` says which of the reference's answers are; without it, or without answers, no accuracy is
    expected. `advance` is told how many windows are done, of how many. DataError for too few texts on either side."""
    for texts, what in ((len(reference), "reference"), (len(log), "log")):
        if texts < SMALLEST:
            raise DataError(f"the {what} holds {texts} texts, and a difference takes {SMALLEST} to be seen",
                            "wait for more, or give more rows")
    near = reference.some(spaced(range(len(reference)), REFERENCE))
    answers = spaced(range(len(reference)), ANSWERS)
    sure, right = reference.some(answers).confidences, None if right is None else right[answers]
    found, unlike = [], []
    parts = np.array_split(np.arange(len(log)), max(1, round(len(log) / window)))
    for number, places in enumerate(parts):
        here = log.some(places.tolist())
        told, scores = _held(near, here, int(places[0]), number)
        if right is not None and sure is not None and here.confidences is not None:
            told = replace(told, expected=expected(sure, right, here.confidences))
        found.append(told)
        unlike.append(scores)
        advance(number + 1, len(parts))
    return Drift(tuple(found), np.concatenate(unlike))


def _held(near: Answered, here: Answered, first: int, seed: int) -> tuple[Window, NDArray[np.float64]]:
    """One window against the reference, and how unlike it each of its texts is."""
    words = Words([*near.texts, *here.texts])
    drawn = two_samples.groups(len(near), len(here), seed)
    lengths = np.array([*map(len, near.texts), *map(len, here.texts)], float)
    differ, scores = two_samples.texts_differ(words.kernel, drawn)
    found = {"words": differ, "new_words": two_samples.numbers_differ(words.new(len(near)), drawn),
             "length": two_samples.numbers_differ(lengths, drawn)}
    if near.labels is not None and here.labels is not None:
        found["labels"] = two_samples.labels_differ([*near.labels, *here.labels], drawn)
    if near.confidences is not None and here.confidences is not None:
        found["confidence"] = two_samples.numbers_differ(np.concatenate([near.confidences, here.confidences]), drawn)
    holds = two_samples.any_of([one.p for one in found.values()], LEVEL)
    moved = tuple(name for name, does in zip(found, holds, strict=True) if does)
    typical = words.typical(len(near)) if {"words", "new_words"} & set(moved) else ()
    return Window(first, len(here), found, moved, typical, None), scores[len(near):]


def _twice(said: Sequence[bool]) -> bool:
    return any(one and other for one, other in zip(said, said[1:], strict=False))
