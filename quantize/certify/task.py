"""The packed file answers the test rows as well as the float model does."""

from __future__ import annotations

import numpy as np

from ...runtime.evaluate import evaluate_answers
from ...runtime.intervals import mcnemar
from ...runtime.rows import rows_digest
from ..certificate import Check
from ..subject import Subject

TASKS = ("generate", "classify")
SIGNIFICANT = 0.01
"""A loss counts when McNemar's exact test gives less: a few flips on a small test are no proof of damage."""


def check(subject: Subject) -> list[Check]:
    """Greedy answers scored by the reference's metric, row by row against the float model's scores."""
    fixtures = subject.reference.fixtures
    rows = subject.test_rows
    if not rows:
        return [Check("task_metric_drop", None, detail="no rows were given that the float model was scored on")]
    expected = np.array([fixtures.scores[rows_digest([row])] for row in rows])
    found = np.array(evaluate_answers(subject.answers(rows), rows, [fixtures.metric]).scores[fixtures.metric])
    drop = float(expected.mean() - found.mean())
    lost, gained, p = mcnemar(expected, found)
    passed = drop <= subject.limits.metric_drop or p >= SIGNIFICANT
    detail = (f"{fixtures.metric} {found.mean():.4f}, float model {expected.mean():.4f}; "
              f"{lost} rows lost, {gained} gained, p = {p:.3g}")
    return [Check("task_metric_drop", passed, "weights", round(drop, 6), subject.limits.metric_drop, len(rows), detail)]
