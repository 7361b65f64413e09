"""Texts to classify or to score: what a head's outputs mean, their targets, losses and calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...models import outputs
from ...models.errors import DataError, UsageError
from ...models.outputs import SCORE, SCORES, SIGMOID, SIGMOID_SCORE, SOFTMAX
from ...models.task import Task
from ...runtime.data.learned_tokens import Learned
from ...runtime.data.reader import Row
from ...runtime.encoders.head import Head
from ...runtime.evaluation.row_fit import fit
from ...runtime.text.codec import Codec
from ..data.batches import Batch, Schedule, whole_rows
from ..data.token_sets import TokenSet, token_set
from ..heads import class_logits
from ..signals import Signal
from . import _temperature, _thresholds
from ._base import Losses, Splits, TaskKind, Told

if TYPE_CHECKING:
    from torch import Tensor

SCORED = "score"
"""The name of a score's output, where the task names none."""
_OF_ROWS = {"label": SOFTMAX, "labels": SIGMOID, "score": SCORE}


class Kind(TaskKind):
    """See TaskKind."""

    rows = frozenset(_OF_ROWS)
    columns = "text and label, labels or score"
    hub_task = "text-classification"
    new_head = True
    collate = staticmethod(whole_rows)

    def settle(self, task: Task, splits: Splits) -> tuple[Task, Splits]:
        """See TaskKind: the labels and the head, and the rows as that head answers them.

        Rows with a list of labels make a sigmoid, rows with a score make a score, where the task says nothing else.
        Raises UsageError for rows that the head does not answer, DataError for a score outside 0 to 1 that a sigmoid
        never gives.
        """
        head = _OF_ROWS[splits["train"][0].kind] if task.head == "auto" else task.head
        labels = list(task.labels) or ([SCORED] if head in SCORES else
                                       sorted({name for row in splits["train"] for name in row.named}))
        task = replace(task, head=head, labels=labels)
        known = Head.of(task, {})
        fitted = {name: fit(rows, known) for name, rows in splits.items()}
        for rows in fitted.values():
            odd = next((row for row in rows if head == SIGMOID_SCORE and row.score is not None
                        and not 0 <= row.score <= 1), None)
            if odd is not None:
                raise DataError(f"{odd.where}: the score {odd.score:g}, and a sigmoid gives scores from 0 to 1",
                                'scale the scores, or say [task] head = "score"')
        return task, fitted

    def check_distilled(self, task: Task) -> None:
        """See TaskKind: the losses against a teacher compare distributions."""
        if task.head != SOFTMAX:
            raise UsageError(f"distill: a classifier whose head is {task.head} is trained on labels alone",
                             "use edgestill tune, and leave [teacher] and [distill] out of the run file")

    def configure(self, config: Any, task: Task) -> None:
        """See TaskKind: the labels, and what the outputs mean."""
        if len(task.labels) < 2 and task.head not in (SIGMOID, *SCORES):
            raise UsageError(f"task.labels: {len(task.labels)} labels, a classifier needs 2 or more",
                             "give rows of at least two labels")
        config.id2label = dict(enumerate(task.labels))
        config.label2id = {label: index for index, label in enumerate(task.labels)}
        config.num_labels = len(task.labels)
        problems = {kind: problem for problem, kind in outputs.PROBLEMS.items()} | {SIGMOID_SCORE: None}
        config.problem_type = problems.get(task.head, "single_label_classification")

    def ready(self, model: Any, codec: Codec) -> None:
        """See TaskKind: a decoder finds a row's last token by the padding behind it."""
        if model.config.pad_token_id is None:
            model.config.pad_token_id = codec.pad_id or codec.eos_id

    def examples(self, rows: Sequence[Row], codec: Codec, task: Task, max_tokens: int, learn: str) -> TokenSet:
        """See TaskKind. Raises DataError for a label that the task does not have."""
        wanted = _places(rows, task.labels) if rows[0].kind == "label" else targets(rows, task.labels)
        ids = [codec.encode(row.text, add_special_tokens=True) for row in rows]
        kept = [place for place, one in enumerate(ids) if len(one) <= max_tokens]
        made = token_set([Learned(ids[place], []) for place in kept], [0] * len(kept), kept, len(rows) - len(kept))
        return replace(made, targets=wanted[kept])

    def objective(self, model: Any, losses: Losses, told: Told | None, precision: str, task: Task) -> ClassObjective:
        """See TaskKind."""
        return ClassObjective(model, losses, told, precision, task.head)

    def calibrate(self, model: Any, validation: Schedule, precision: str, task: Task) -> tuple[Task, dict[str, Any]]:
        """See TaskKind: the thresholds of a sigmoid, the temperature of a softmax; scores have none."""
        import torch

        if task.head in SCORES:
            return task, {}
        with torch.no_grad():
            pairs = [(class_logits(model, batch, precision).cpu().numpy(), batch.labels.cpu().numpy())
                     for batch in validation.all()]
        logits, wanted = (np.concatenate(side) for side in zip(*pairs, strict=True))
        if task.head == SIGMOID:
            return replace(task, thresholds=_thresholds.fit(logits, wanted, task)), {}
        return task, {"temperature": _temperature.fit(logits, wanted)}


class ClassObjective:
    """Losses of a classifier about whole rows."""

    def __init__(self, student: Any, losses: Losses, told: Told | None = None, precision: str = "fp32",
                 head: str = SOFTMAX) -> None:
        """`losses` are those of a softmax, other heads have one loss each."""
        self.head = head
        self.measures = ("loss", "accuracy") if head == SOFTMAX else ("loss",)
        self.student, self.losses, self.told, self.precision = student, losses, told, precision

    def __call__(self, batch: Batch) -> Tensor:
        """See Objective; counts rows."""
        return self._loss(class_logits(self.student, batch, self.precision), batch)

    def measure(self, batch: Batch) -> Mapping[str, float]:
        """See Objective: the rows, too, whose one label is right."""
        logits = class_logits(self.student, batch, self.precision)
        numbers = {"loss": float(self._loss(logits, batch))}
        if self.head == SOFTMAX:
            numbers["accuracy"] = int((logits.argmax(-1) == batch.labels).sum())
        return numbers

    def _loss(self, logits: Tensor, batch: Batch) -> Tensor:
        if self.head != SOFTMAX:
            return loss(self.head, logits, batch.labels).sum()
        known = None if self.told is None else self.told(batch)
        return self.losses(Signal(logits), known, batch.labels).sum()


def targets(rows: Sequence[Row], labels: Sequence[str]) -> NDArray[np.float32]:
    """Targets [rows, outputs] of rows with a list of labels (1 for each that applies) or a score.

    Raises DataError for a label outside `labels`.
    """
    place = {label: index for index, label in enumerate(labels)}
    found = np.zeros((len(rows), len(labels)), np.float32)
    for index, row in enumerate(rows):
        if row.score is not None:
            found[index] = row.score
        for name in row.labels or ():
            if name not in place:
                raise _unknown(row, name, labels)
            found[index, place[name]] = 1.0
    return found


def loss(head: str, logits: Tensor, wanted: Tensor) -> Tensor:
    """The loss of each row [n]: cross-entropy of each output through a sigmoid, or the squared error of scores as they
    are, averaged over the outputs; logits and targets [n, outputs]."""
    from torch.nn import functional

    if head == SCORE:
        return functional.mse_loss(logits, wanted, reduction="none").mean(-1)
    return functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(-1)


def _places(rows: Sequence[Row], labels: Sequence[str]) -> NDArray[np.int32]:
    place = {label: index for index, label in enumerate(labels)}
    odd = next((row for row in rows if row.label not in place), None)
    if odd is not None:
        raise _unknown(odd, odd.label, labels)
    return np.array([place[row.label or ""] for row in rows], np.int32)


def _unknown(row: Row, name: str | None, labels: Sequence[str]) -> DataError:
    return DataError(f"{row.where}: label {name!r} is not one of the {len(labels)} known labels",
                     "correct the row, or add the label to [task] labels")
