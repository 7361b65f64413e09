"""The packed file answers the test rows as well as the float model does."""

from __future__ import annotations

import numpy as np

from ....runtime.data.reader import rows_digest
from ....runtime.evaluation.evaluate import evaluate_answers
from ....runtime.evaluation.intervals import matched, mcnemar, share
from .. import grade
from ..certificate import Check, rounded
from ..packed_file import Subject

TASKS = ("generate", "classify", "embed")
CAUSE = "weights"
QUICK = False
NAME = grade.LOSS


def check(subject: Subject) -> list[Check]:
    """Greedy answers scored by the reference's metric, row by row against the float model's scores.

    Not run, since nothing would follow from it, on rows that are too few, or that the float model has wrong.
    """
    if subject.head is not None and subject.head.scores:
        return [Check(NAME, None, detail="scores are no right or wrong answers: see score_error")]
    fixtures = subject.reference.fixtures
    rows = subject.test_rows
    if not rows:
        return [Check(NAME, None, detail="no rows were given that the float model was scored on")]
    if subject.embeds and len(rows) < len(fixtures.scores):
        return [Check(NAME, None, detail=f"{len(rows)} rows were given of the {len(fixtures.scores)} "
                      "that neighbours were looked for among")]
    expected = np.array([fixtures.scores[rows_digest([row])] for row in rows])
    why = grade.shows_loss(len(rows), float(expected.sum()))
    if why:
        return [Check(NAME, None, n=len(rows), detail=why)]
    found = np.array(evaluate_answers(subject.answers(rows), rows, [fixtures.metric]).scores[fixtures.metric])
    metric, before, drop = share(found), share(expected), matched(expected, found)
    lost, gained, p = mcnemar(expected, found)
    n, limit = len(rows), subject.limits.metric_loss
    passed, told = judged(drop.low, drop.high, limit)
    return [
        Check("task_metric", True, "weights", rounded(metric.value), None, n, f"{fixtures.metric}; the float model has "
              f"{before.value:.4f} ({before.low:.4f} to {before.high:.4f})", rounded(metric.low), rounded(metric.high)),
        Check(NAME, passed, "weights", rounded(drop.value), limit, n, told, rounded(drop.low), rounded(drop.high)),
        Check("flips_to_wrong", True, "weights", float(lost), None, n, "rows that only the float model has right"),
        Check("flips_to_right", True, "weights", float(gained), None, n, "rows that only the packed file has right"),
        Check("flips_p", True, "weights", rounded(p), None, n, "McNemar's exact test"),
    ]


def judged(low: float, high: float, limit: float | None) -> tuple[bool | None, str]:
    """Whether a loss with the 95 % bounds `low` and `high` keeps within `limit`, and what to say of it.

    True where the upper bound does, False where not even the lower one does; in between nothing was shown. Without a
    limit the loss is a matter of the grade.
    """
    if limit is None:
        return True, "no limit for this type: see the grade"
    if high <= limit:
        return True, ""
    if low > limit:
        return False, f"at least {low:.4f} is lost, at most {limit:g} is allowed"
    return None, f"undecided: between {low:.4f} and {high:.4f} is lost, {limit:g} is allowed; more rows would tell"
