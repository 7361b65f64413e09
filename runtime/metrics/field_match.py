"""The share of JSON answers in which one field is right, such as the intent of a command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...models.errors import DataError
from ..data.json_answers import is_json, json_value, same_value
from ..data.shapes import Row
from . import Context, Scores

KINDS = ("chat",)
SHARE = True
HIGHER_IS_BETTER = True
_ABSENT = object()


@dataclass(frozen=True)
class Config:
    """Which field of the answer is compared; of a list of objects, that field of each."""

    field: str = "intent"
    """Its name."""


def score(answers: Sequence[str], rows: Sequence[Row], context: Context) -> Scores:
    """1 where the field has the value that it has in the row's answer [rows].

    Two answers without the field are equal, and so are two that are not JSON.
    """
    wanted = check(rows, context)
    found = [_field(json_value(answer), context.config.field) for answer in answers]
    return np.array([same_value(a, b) for a, b in zip(found, wanted, strict=True)], np.float64)


def check(rows: Sequence[Row], context: Context) -> list[Any]:
    """The field of every row's answer; DataError when none has it."""
    field = context.config.field
    wanted = [_field(json_value(row.answer), field) for row in rows]
    if not any(map(_is_there, wanted)):
        raise DataError(f"field_match: no row's answer is JSON with the field {field!r}", "name another field")
    return wanted


def _field(value: Any, field: str) -> Any:
    if isinstance(value, list):
        return [_field(item, field) for item in value]
    if isinstance(value, dict):
        return value.get(field, _ABSENT)
    return _ABSENT if is_json(value) else value


def _is_there(value: Any) -> bool:
    return any(map(_is_there, value)) if isinstance(value, list) else value is not _ABSENT and is_json(value)
