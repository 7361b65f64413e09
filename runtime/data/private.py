"""Columns of rows that a teacher alone reads: a passage that was found, a chain of thought."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

from .faults import RowFault
from .messages import compact_json


def parted(record: dict[str, Any], names: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """A record without the columns `names`, and their texts; empty where a row holds null. RowFault for one that a row
    lacks."""
    if not names:
        return record, {}
    lacking = next((name for name in names if name not in record), None)
    if lacking is not None:
        raise RowFault(f"the column {lacking!r}, which the teacher alone reads, is missing", "every row needs it")
    told = {name: "" if (value := record[name]) is None else value if isinstance(value, str) else compact_json(value)
            for name in names}
    rest = copy(record)
    for name in told:
        del rest[name]
    return rest, told


def behind(question: str, told: Mapping[str, str]) -> str:
    """A question with texts behind it, each below the name of its column; empty ones are left out."""
    return "\n\n".join([question, *(f"{name}:\n{text}" for name, text in told.items() if text)])
