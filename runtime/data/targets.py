"""What a row of texts to classify is to be: one label, several, or a score."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .faults import RowFault
from .formats import parse_json

if TYPE_CHECKING:
    from .row import Row

PAIRS: Mapping[str, tuple[str, ...]] = {
    "text": ("text_pair",), "sentence1": ("sentence2",), "premise": ("hypothesis",), "query": ("passage", "document")}
"""Column of a first text → columns that hold the second of a pair."""


FRACTION = re.compile(r"[-+]?(\d*[.,]\d+(e[-+]?\d+)?|\d+e[-+]?\d+)", re.IGNORECASE)
"""A text that says a number which is not whole."""
_APPLY = "list the names of the labels that apply, every one once; zeros and ones are no names"
_PRINTED = re.compile(r"""\[\s*(['"].*['"]|[-\d.][-\d.\s]*)\s*\]""", re.DOTALL)
"""A list as Python and NumPy print it."""


def targets(record: Mapping[str, Any], column: str, key: str) -> dict[str, Any]:
    """What `column` says, as the fields of a Row: {label}, {labels} for a list, or {score} for a number with a
    fraction, and for any number where the column is a `score`. RowFault for what is none of them."""
    value = record[column]
    if value is None:
        raise RowFault(f"the column {column!r} is null", "fill it or remove the row")
    if isinstance(value, str) and value.lstrip()[:1] == "[":  # tables hold lists as text
        try:
            value = parse_json(value)
        except RowFault:
            if _PRINTED.fullmatch(value.strip()):
                raise RowFault(f"the column {column!r} holds {value[:60]!r}, which looks like a printed list and is no "
                               "JSON", 'write lists of labels as JSON, ["a", "b"]: json.dumps(labels)') from None
            return {"label": _name(value, column)}  # a label that begins with a bracket
    if isinstance(value, list):
        return {"labels": _names(value, column)}
    if key == "score" or isinstance(value, float):
        return {"score": _number(value, column)}
    return {"label": _name(value, column)}


def kind_of(found: Mapping[str, Any]) -> str:
    """What a column holds, for the comparison with the rows before."""
    return {"label": "one label", "labels": "a list of labels", "score": "a number"}[next(iter(found))]


def one_answer(rows: Sequence[Row]) -> str:
    """The labels of all rows where every row has the same, as a text; empty where they differ, or where there are
    none to learn."""
    found = {frozenset(row.named) for row in rows if row.kind in ("label", "labels")}
    return " and ".join(map(repr, sorted(*found))) or "none at all" if len(found) == 1 else ""


def _names(values: list[Any], column: str) -> tuple[str, ...]:
    if any(isinstance(value, bool) for value in values):
        raise RowFault(f"the column {column!r} lists true or false, which are no names", _APPLY)
    names = tuple(_name(value, column) for value in values)
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None:
        raise RowFault(f"the column {column!r} lists the label {twice!r} twice",
                       _APPLY)
    return names


def _name(value: Any, column: str) -> str:
    if isinstance(value, (bool, int)):
        return str(value).lower()
    if not isinstance(value, str):
        raise RowFault(f"the column {column!r} holds {type(value).__name__}, where a label was expected",
                       "write labels as text or whole numbers, several as a list of them, scores as numbers")
    if not value.strip():
        raise RowFault(f"the column {column!r} is empty", "fill it or remove the row")
    return value


def _number(value: Any, column: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise RowFault(f"the column {column!r} holds {value!r}, where a number was expected",
                       "write a finite number, or remove the row")
    return number
