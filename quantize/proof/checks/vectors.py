"""The packed file's vectors point where the float model's do."""

from __future__ import annotations

import numpy as np

from ..certificate import Check, rounded
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
    limit = subject.limits.cosine_distance
    return [_at_most("cosine_distance", float(distance.mean()), limit, len(distance)),
            _at_most("cosine_distance_worst", float(distance.max()), WORST * limit, len(distance))]


def _at_most(name: str, value: float, limit: float, n: int) -> Check:
    passed = value <= limit  # not so for a vector that holds no numbers
    detail = "" if passed else f"{value:.3g} away from the float model, at most {limit:g} is allowed"
    return Check(name, passed, "weights", rounded(value), limit, n, detail)
