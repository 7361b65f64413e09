"""Calibration of a classifier with several labels a text: a threshold for each, fitted on validation rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...models.outputs import SIGMOID
from ...models.task import Task
from ...runtime.encoders.head import THRESHOLD, Head

LEAST = 5
"""Validation rows with a label, and without it, that a threshold is fitted on; below, it stays THRESHOLD."""


def fit(logits: NDArray[np.floating], targets: NDArray[np.floating], task: Task) -> dict[str, float]:
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
