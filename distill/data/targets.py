"""What a classifier is trained towards, by what its outputs mean: its head, targets, losses, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...models.errors import DataError, UsageError
from ...models.outputs import SCORE, SCORES, SIGMOID, SIGMOID_SCORE, SOFTMAX
from ...models.task import Task
from ...runtime.data.reader import Row
from ...runtime.encoders.head import THRESHOLD, Head
from ...runtime.evaluation.row_fit import fit
from . import temperature

if TYPE_CHECKING:
    from torch import Tensor

SCORED = "score"
"""The name of a score's output, where the task names none."""
LEAST = 5
"""Validation rows with a label, and without it, that a threshold is fitted on; below, it stays THRESHOLD."""
_OF_ROWS = {"label": SOFTMAX, "labels": SIGMOID, "score": SCORE}


def settle(task: Task, splits: Mapping[str, Sequence[Row]]) -> tuple[Task, dict[str, list[Row]]]:
    """The task with its labels and its head, and the rows as that head answers them.

    Rows with a list of labels make a sigmoid, rows with a score make a score, where the task says nothing else. Raises
    UsageError for rows that the head does not answer, DataError for a score outside 0 to 1 that a sigmoid never gives.
    """
    first = splits["train"][0]
    head = _OF_ROWS[first.kind] if task.head == "auto" else task.head
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


def check_distilled(task: Task) -> None:
    """UsageError for a head whose numbers are no distribution: the losses against a teacher compare distributions."""
    if task.kind == "classify" and task.head != SOFTMAX:
        raise UsageError(f"distill: a classifier whose head is {task.head} is trained on labels alone",
                         "use edgestill tune, and leave [teacher] and [distill] out of the run file")


def wanted(rows: Sequence[Row], labels: Sequence[str]) -> NDArray[np.float32]:
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
                raise DataError(f"{row.where}: label {name!r} is not one of the {len(labels)} known labels",
                                "correct the row, or add the label to [task] labels")
            found[index, place[name]] = 1.0
    return found


def loss(head: str, logits: Tensor, targets: Tensor) -> Tensor:
    """The loss of each row [n]: cross-entropy of each output through a sigmoid, or the squared error of scores as they
    are, averaged over the outputs; logits and targets [n, outputs]."""
    from torch.nn import functional

    if head == SCORE:
        return functional.mse_loss(logits, targets, reduction="none").mean(-1)
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(-1)


def calibrate(task: Task, logits: NDArray[np.floating], targets: NDArray[Any]) -> tuple[Task, dict[str, Any]]:
    """The task with the thresholds of a sigmoid, or the settings with the temperature of a softmax; scores have none.

    logits [rows, outputs], targets as a batch has them.
    """
    if task.head == SIGMOID:
        return replace(task, thresholds=thresholds(logits, targets, task)), {}
    return task, {} if task.head in SCORES else {"temperature": temperature.fit(logits, targets)}


def thresholds(logits: NDArray[np.floating], targets: NDArray[np.floating], task: Task) -> dict[str, float]:
    """For each label the probability from which giving it has the best F1 on validation rows; of equally good ones the
    nearest to one half. What the task names itself stays, and so does one half where LEAST rows do not tell.

    logits and targets [rows, labels].
    """
    chances = Head(SIGMOID, tuple(task.labels)).values(logits)
    found = dict(task.thresholds)
    for place, label in enumerate(task.labels):
        true = targets[:, place] > 0.5
        if label in found or min(true.sum(), (~true).sum()) < LEAST:
            continue
        sure = np.sort(np.unique(chances[:, place]))
        cuts = np.array([THRESHOLD, *(sure[1:] + sure[:-1]) / 2])
        given = chances[:, place] >= cuts[:, None]
        f1 = 2 * (given & true).sum(1) / (given.sum(1) + true.sum())
        best = cuts[f1 >= f1.max() - 1e-12]
        cut = float(best[np.abs(best - THRESHOLD).argmin()])
        if cut != THRESHOLD:
            found[label] = round(cut, 4)
    return found
