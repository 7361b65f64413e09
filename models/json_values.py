"""Files of one JSON object, and numbers that JSON has no word for: what is no finite number is written as null and read
back as NaN."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from .errors import EdgestillError


def read_object(path: Path, failure: type[EdgestillError], hint: str) -> dict[str, Any]:
    """The JSON object in a file; `failure` with `hint` where there is none."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise failure(f"{path}: no such file", hint) from None
    return object_in(content, str(path), failure, hint)


def object_in(content: bytes, name: str, failure: type[EdgestillError], hint: str) -> dict[str, Any]:
    """The JSON object that stands in UTF-8 in what is called `name`; `failure` with `hint` where none does."""
    try:
        value = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise failure(f"{name}: no valid JSON: {error}", hint) from error
    return checked_object(value, name, failure, hint)


def checked_object(value: Any, name: str, failure: type[EdgestillError], hint: str) -> dict[str, Any]:
    """`value` where it is a JSON object."""
    if not isinstance(value, dict):
        raise failure(f"{name}: a JSON object was expected, found {type(value).__name__}", hint)
    return value


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
