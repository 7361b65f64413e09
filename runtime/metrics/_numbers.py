"""What metrics of scores share: answers read as numbers, and how they go with the rows'."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...models.errors import DataError
from ..data.json_answers import json_value
from ..data.shapes import Row
from . import Scores


def numbers(answers: Sequence[str], rows: Sequence[Row]) -> Scores:
    """Every answer as a number, and its row's score [rows, 2]. DataError for an answer that is no number."""
    found = [json_value(answer) for answer in answers]
    odd = next((place for place, value in enumerate(found)
                if not isinstance(value, (int, float)) or isinstance(value, bool)), None)
    if odd is not None:
        raise DataError(f"{rows[odd].where or 'a row'}: the answer {answers[odd][:40]!r} is no number",
                        "scores are measured of models that give one score a text")
    return np.array([[value, row.score] for value, row in zip(found, rows, strict=True)], np.float64)


def correlation(scores: Scores) -> Scores:
    """Pearson's, of two columns [repeats, rows, 2] → [repeats]; 0 where a column is constant."""
    apart = scores - scores.mean(axis=1, keepdims=True)
    lengths = np.sqrt((apart**2).sum(axis=1)).prod(axis=-1)
    result: Scores = apart.prod(axis=-1).sum(axis=1) / np.where(lengths > 0, lengths, 1.0)
    return result
