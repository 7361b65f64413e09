"""The packed file answers the test rows as well as the float model does."""

from __future__ import annotations

import numpy as np

from ...runtime.evaluate import evaluate_answers
from ...runtime.intervals import bootstrap, mcnemar, paired
from ...runtime.rows import rows_digest
from ..certificate import Check, rounded
from ..subject import Subject

TASKS = ("generate", "classify", "embed")
CAUSE = "weights"
SIGNIFICANT = 0.01
"""A loss counts when McNemar's exact test gives less: a few flips on a small test are no proof of damage."""


def check(subject: Subject) -> list[Check]:
    """Greedy answers scored by the reference's metric, row by row against the float model's scores."""
    if subject.head is not None and subject.head.scores:
        return [Check("task_metric_drop", None, detail="scores are no right or wrong answers: see score_error")]
    fixtures = subject.reference.fixtures
    rows = subject.test_rows
    if not rows:
        return [Check("task_metric_drop", None, detail="no rows were given that the float model was scored on")]
    if subject.embeds and len(rows) < len(fixtures.scores):
        return [Check("task_metric_drop", None, detail=f"{len(rows)} rows were given of the {len(fixtures.scores)} "
                      "that neighbours were looked for among")]
    expected = np.array([fixtures.scores[rows_digest([row])] for row in rows])
    found = np.array(evaluate_answers(subject.answers(rows), rows, [fixtures.metric]).scores[fixtures.metric])
    metric, before, drop = bootstrap(found), bootstrap(expected), paired(expected, found)
    lost, gained, p = mcnemar(expected, found)
    passed = drop.value <= subject.limits.metric_drop or p >= SIGNIFICANT
    n = len(rows)
    return [
        Check("task_metric", True, "weights", rounded(metric.value), None, n, f"{fixtures.metric}; the float model has "
              f"{before.value:.4f} ({before.low:.4f} to {before.high:.4f})", rounded(metric.low), rounded(metric.high)),
        Check("task_metric_drop", passed, "weights", rounded(drop.value), subject.limits.metric_drop, n,
              "" if passed else f"{drop.value:.4f}, McNemar p = {p:.3g}", rounded(drop.low), rounded(drop.high)),
        Check("flips_to_wrong", True, "weights", float(lost), None, n, "rows that only the float model has right"),
        Check("flips_to_right", True, "weights", float(gained), None, n, "rows that only the packed file has right"),
        Check("flips_p", True, "weights", rounded(p), None, n, "McNemar's exact test"),
    ]
