"""The share of answers that are the teacher's, right or wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...models.errors import UsageError
from ..data.json_answers import names, same_answer
from ..data.shapes import Row
from . import Context, NoConfig, Scores

KINDS = ("chat", "label", "labels")
SHARE = True
HIGHER_IS_BETTER = True
Config = NoConfig


def score(answers: Sequence[str], rows: Sequence[Row], context: Context) -> Scores:
    """1 where the answer equals the teacher's (as in exact_match), else 0 [rows]."""
    reference = check(rows, context)
    if rows and rows[0].kind == "labels":
        return np.array([names(a) == names(b) for a, b in zip(answers, reference, strict=True)], np.float64)
    return np.array([same_answer(a, b) for a, b in zip(answers, reference, strict=True)], np.float64)


def check(rows: Sequence[Row], context: Context) -> list[str]:
    """The teacher's answers; UsageError when there are none, or not one a row."""
    if context.reference is None:
        raise UsageError("agreement: the teacher's answers were not given", "evaluate the teacher first")
    if len(context.reference) != len(rows):
        raise UsageError(f"agreement: {len(context.reference)} teacher's answers for {len(rows)} rows",
                         "evaluate the teacher on the same rows")
    return context.reference
