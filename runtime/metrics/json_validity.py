"""The share of answers that are JSON, and satisfy the schema where the task has one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...models.errors import MissingExtra, UsageError
from ..data.json_answers import is_json, json_value
from ..data.shapes import Row
from . import Context, NoConfig, Scores

KINDS = ("chat",)
SHARE = True
HIGHER_IS_BETTER = True
Config = NoConfig


def score(answers: Sequence[str], rows: Sequence[Row], context: Context) -> Scores:
    """1 for an answer that is one whole JSON value and satisfies the schema, else 0 [rows]."""
    validator = check(rows, context)
    values = [json_value(answer) for answer in answers]
    valid = [is_json(value) and (validator is None or validator.is_valid(value)) for value in values]
    return np.array(valid, np.float64)


def check(rows: Sequence[Row], context: Context) -> Any:
    """The validator of the task's schema, or None where it has none.

    Raises UsageError for a schema that is none, MissingExtra where a schema is to be checked without jsonschema.
    """
    if context.schema is None:
        return None
    try:
        import jsonschema
    except ImportError:
        raise MissingExtra("jsonschema", "structure") from None
    kind = jsonschema.validators.validator_for(context.schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(context.schema)
    except jsonschema.SchemaError as error:
        raise UsageError(f"task.schema: not a JSON schema: {error.message}", "correct the schema file") from None
    return kind(context.schema)
