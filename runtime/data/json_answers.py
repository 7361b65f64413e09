"""Answers read as JSON values, and when two of them are the same."""

from __future__ import annotations

from typing import Any

from .faults import RowFault
from .formats import parse_json

_NOT_JSON = object()


def json_value(answer: str) -> Any:
    """The answer parsed as strict JSON, or the marker that `is_json` knows."""
    try:
        return parse_json(answer.strip())
    except RowFault:
        return _NOT_JSON


def is_json(value: Any) -> bool:
    """Whether `json_value` could parse the answer."""
    return value is not _NOT_JSON


def names(answer: str) -> set[str] | None:
    """The labels of an answer that is a JSON list of them; None for another answer, which is never right."""
    value = json_value(answer)
    return set(value) if isinstance(value, list) and all(isinstance(item, str) for item in value) else None


def same_answer(answer: str, wanted: str) -> bool:
    """Equal without surrounding blanks, or equal as JSON values (key order and blanks aside) where both are JSON."""
    if answer.strip() == wanted.strip():
        return True
    left, right = json_value(answer), json_value(wanted)
    return is_json(left) and is_json(right) and same_value(left, right)


def same_value(left: Any, right: Any) -> bool:
    """Equality of JSON values; unlike Python's, true is not 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same_value(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same_value, left, right))
    return bool(left == right)
