"""Numbers that JSON has no word for: what is no finite number is written as null and read back as NaN."""

from __future__ import annotations

import math
from typing import Any


def with_nulls(value: Any) -> Any:
    """`value`, of JSON types, with null in place of NaN and infinity."""
    if isinstance(value, dict):
        return {key: with_nulls(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_nulls(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def with_nan(value: Any) -> Any:
    """`value` with NaN in place of null."""
    if isinstance(value, dict):
        return {key: with_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_nan(item) for item in value]
    return math.nan if value is None else value
