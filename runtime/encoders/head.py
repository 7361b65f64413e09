"""What a classifier's logits mean: one label, any number of labels, or scores."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ...models import outputs
from ...models.errors import ArtifactError, UsageError
from ...models.outputs import SIGMOID, SIGMOID_SCORE, SOFTMAX

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...models.task import Task

THRESHOLD = 0.5
"""From this probability on a label is given, where the task says nothing else."""


@dataclass(frozen=True)
class Classification:
    """What a classifier says of one text."""

    head: str
    """One of models.outputs.HEADS."""
    labels: tuple[str, ...]
    """The labels given: the likeliest one, or all that reach their thresholds; none of a model that scores."""
    values: dict[str, float]
    """Of each output, its probability or its score."""
    truncated: bool = False
    """Whether the text was longer than the model can read and its end was left out."""

    @property
    def label(self) -> str:
        """The likeliest label. UsageError for a model that does not choose one."""
        self._require((SOFTMAX,), "chooses no single label")
        return self.labels[0]

    @property
    def probability(self) -> float:
        """Of that label."""
        return self.values[self.label]

    @property
    def probabilities(self) -> dict[str, float]:
        """Of every label; they sum to 1 where one label is chosen. UsageError for a model that scores."""
        self._require((SOFTMAX, SIGMOID), "gives scores, not probabilities of labels")
        return self.values

    @property
    def score(self) -> float:
        """The one score. UsageError for a model that gives labels, or several scores."""
        self._require(outputs.SCORES, "gives labels, not a score")
        if len(self.values) != 1:
            raise UsageError(f"this model gives {len(self.values)} scores, not one", "read values")
        return next(iter(self.values.values()))

    @property
    def value(self) -> str | list[str] | float | dict[str, float]:
        """The label; the labels; the score, or several by name."""
        if self.head == SOFTMAX:
            return self.label
        if self.head == SIGMOID:
            return list(self.labels)
        scores = {name: float(f"{value:.9g}") for name, value in self.values.items()}
        return scores if len(scores) > 1 else next(iter(scores.values()))

    @property
    def answer(self) -> str:
        """The value as one text: a label as it is, everything else as JSON."""
        return self.value if isinstance(self.value, str) else json.dumps(self.value, ensure_ascii=False)

    def to_json(self, top: int | None = None) -> dict[str, Any]:
        """JSON types: {label, probability, probabilities}, {labels, probabilities}, {score} or {scores}, each with
        `truncated`. Probabilities come the likeliest first, `top` of them or all."""
        cut = {"truncated": self.truncated}
        if self.head in outputs.SCORES:
            return ({"score": self.score} if len(self.values) == 1 else {"scores": self.values}) | cut
        ranked = {"probabilities": dict(sorted(self.values.items(), key=lambda item: -item[1])[:top])}
        if self.head == SOFTMAX:
            return {"label": self.label, "probability": self.probability} | ranked | cut
        return {"labels": list(self.labels)} | ranked | cut

    def _require(self, heads: Sequence[str], why: str) -> None:
        if self.head not in heads:
            raise UsageError(f"this model {why}: its head is {self.head}",
                             "read labels, values or answer, which suit every head")


@dataclass(frozen=True)
class Head:
    """How logits become answers."""

    kind: str
    """One of models.outputs.HEADS."""
    labels: tuple[str, ...]
    """Names of the outputs, in their order."""
    thresholds: tuple[float, ...] = ()
    """sigmoid: the lowest probability at which each label is given."""
    temperature: float = 1.0
    """softmax: what logits are divided by."""

    @classmethod
    def of(cls, task: Task, config: Mapping[str, Any], count: int | None = None, temperature: float = 1.0) -> Head:
        """The head that a task names, and config.json where it leaves something open; `count` is the number of
        outputs, where it is known.

        Raises ArtifactError for names or a meaning that do not fit the outputs; UsageError for thresholds that do not
        fit the head.
        """
        names = list(task.labels) or outputs.labels(config, count)
        outputs.check_names(names, "task.labels")
        if count is not None and count != len(names):
            raise ArtifactError(f"{count} labels, the task has {len(names)}", "name every output in its order")
        kind = outputs.head(config, len(names)) if task.head == "auto" else task.head
        outputs.check_head(kind, len(names))
        if task.thresholds and kind != SIGMOID:
            raise UsageError(f"task.thresholds: a {kind} head decides without thresholds",
                             'leave them out, or say head = "sigmoid" for a model that gives any number of labels')
        other = next((label for label in task.thresholds if label not in names), None)
        if other is not None:
            raise UsageError(f"task.thresholds: {other!r} is not one of the {len(names)} labels",
                             f"labels: {', '.join(names[:20])}")
        wrong = next((value for value in task.thresholds.values() if not 0 <= value <= 1), None)
        if wrong is not None:
            raise UsageError(f"task.thresholds: {wrong} is no probability from 0 to 1", "0.5 is what others have")
        thresholds = tuple(task.thresholds.get(name, THRESHOLD) for name in names) if kind == SIGMOID else ()
        return cls(kind, tuple(names), thresholds, temperature)

    @property
    def scores(self) -> bool:
        """Whether the outputs are numbers, not labels."""
        return self.kind in outputs.SCORES

    @cached_property
    def limits(self) -> NDArray[np.float64]:
        """The thresholds as logits [labels]: infinite for 0 and 1."""
        with np.errstate(divide="ignore"):
            share = np.array(self.thresholds)
            limits: NDArray[np.float64] = np.log(share) - np.log1p(-share)
        return limits

    def values(self, logits: NDArray[np.floating]) -> NDArray[np.float64]:
        """Probabilities or scores [n, outputs] of logits [n, outputs]."""
        numbers = np.asarray(logits, np.float64)
        if self.kind == SOFTMAX:
            numbers = numbers / self.temperature
            numbers = np.exp(numbers - numbers.max(axis=1, keepdims=True))
            return np.asarray(numbers / numbers.sum(axis=1, keepdims=True))
        if self.kind in (SIGMOID, SIGMOID_SCORE):
            return sigmoid(numbers)
        return numbers

    def given(self, values: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which labels are given [n, labels], by their probabilities."""
        return np.asarray(values >= np.array(self.thresholds))

    def classification(self, logits: NDArray[np.floating], truncated: bool = False) -> Classification:
        """What the logits [outputs] of one text say."""
        values = self.values(logits[None])
        labels: tuple[str, ...] = ()
        if self.kind == SOFTMAX:
            labels = (self.labels[int(values[0].argmax())],)
        elif self.kind == SIGMOID:
            labels = tuple(np.array(self.labels, object)[self.given(values)[0]])
        return Classification(self.kind, labels, dict(zip(self.labels, values[0].tolist(), strict=True)), truncated)

    def require_single(self, what: str) -> None:
        """UsageError where `what` needs a model that chooses one label."""
        if self.kind != SOFTMAX:
            raise UsageError(f"{what}: needs a model that chooses one label, and this one's head is {self.kind}",
                             "take a classifier of one label a text, or leave it out")


def sigmoid(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-numbers)), without overflow."""
    small = np.exp(-np.abs(numbers))
    return np.asarray(np.where(numbers >= 0, 1.0, small) / (1.0 + small))

