"""The share of answers that are the teacher's, right or wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...models.errors import UsageError
from ..row_shapes import Row
from ._common import Context, NoConfig, Scores, same_answer

KINDS = ("chat", "label")
Config = NoConfig


def score(answers: Sequence[str], rows: Sequence[Row], context: Context) -> Scores:
    """1 where the answer equals the teacher's (as in exact_match), else 0 [rows]. UsageError without a teacher's."""
    if context.reference is None:
        raise UsageError("agreement: the teacher's answers were not given", "evaluate the teacher first")
    if len(context.reference) != len(rows):
        raise UsageError(f"agreement: {len(context.reference)} teacher's answers for {len(rows)} rows",
                         "evaluate the teacher on the same rows")
    return np.array([same_answer(a, b) for a, b in zip(answers, context.reference, strict=True)], np.float64)
