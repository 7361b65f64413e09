"""The packed file's vectors point where the float model's do."""

from __future__ import annotations

import numpy as np

from ..certificate import Check, at_most
from ..packed_file import Subject

TASKS = ("embed",)
CAUSE = "weights"
WORST = 5.0
"""The worst text may lie as many times as far away as all may on average."""


def check(subject: Subject) -> list[Check]:
    """1 - cosine between both vectors of every text: on average, and for the worst text."""
    expected, found = subject.reference.outputs.astype(np.float64), subject.outputs.astype(np.float64)
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    distance = np.maximum(1.0 - (expected * found).sum(axis=1) / np.maximum(lengths, 1e-12), 0.0)
    limit, why = subject.limits.cosine_distance, "away from the float model"
    return [at_most("cosine_distance", float(distance.mean()), limit, len(distance), why),
            at_most("cosine_distance_worst", float(distance.max()), WORST * limit, len(distance), why)]
