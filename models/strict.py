"""One strict builder from a table (TOML, JSON) to a frozen dataclass.

Unknown keys, wrong types and values out of range are refused with the key's full name, the value, the
limit and the nearest known key. Limits stand beside the field they belong to: `limited(3, minimum=1)`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from .errors import UsageError

T = TypeVar("T")
_BITS = 128
"""Whole numbers of so many bits are none that anybody means: they may have no float, and cannot even be printed."""


def limited(
    default: Any = dataclasses.MISSING,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: Sequence[Any] | None = None,
    null_is_nan: bool = False,
) -> Any:
    """A dataclass field whose value `build` checks; both bounds are inclusive.

    `null_is_nan`: a number that JSON, which has no word for NaN, holds as null.
    """
    metadata = {"minimum": minimum, "maximum": maximum, "choices": choices, "null_is_nan": null_is_nan}
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def build(cls: type[T], table: Mapping[str, Any], name: str = "") -> T:
    """Build the dataclass `cls` from `table`; `name` is the table's full name, used in messages.

    Raises UsageError for the first key that is unknown, missing, of the wrong type or out of range.
    """
    if not isinstance(table, Mapping):
        raise UsageError(f"{name}: a table was expected, got {table!r}", "write it as [table] with keys below it")
    hints = _hints(typing.cast(Any, cls))
    fields = {field.name: field for field in dataclasses.fields(typing.cast(Any, cls))}
    for key in table:
        if key not in fields:
            import difflib

            near = difflib.get_close_matches(key, fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(fields)}"
            raise UsageError(f"{_join(name, key)}: unknown key (value {table[key]!r})", hint)
    values = {}
    for key, field in fields.items():
        full = _join(name, key)
        if key in table:
            if table[key] is None and field.metadata.get("null_is_nan"):
                values[key] = math.nan
                continue
            values[key] = convert(hints[key], table[key], full)
            _check_limits(field, values[key], full)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UsageError(f"{full}: is required and was not given", f"add {key} = … below [{name}]")
    return cls(**values)


@functools.cache
def _hints(cls: Any) -> dict[str, Any]:
    """The types of a class's fields; resolving them takes 1.5 ms, and options are built for every answer."""
    return typing.get_type_hints(cls)


def convert(expected: Any, value: Any, name: str) -> Any:
    """Return `value` as the type `expected`, converting only tables, lists and int → float."""
    origin = typing.get_origin(expected)
    arguments = typing.get_args(expected)
    if expected is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        known = [a for a in arguments if a is not type(None)]
        fitting = [a for a in known if (typing.get_origin(a) or a) is type(value)]
        return convert((fitting or known)[0], value, name)
    if dataclasses.is_dataclass(expected):
        return build(typing.cast(type, expected), value, name)
    if origin in (list, tuple):
        if not isinstance(value, (list, tuple)):
            raise _wrong_type(name, value, "a list")
        items = [convert(arguments[0], item, f"{name}[{index}]") for index, item in enumerate(value)]
        return tuple(items) if origin is tuple else items
    if origin is dict or expected is dict:
        if not isinstance(value, Mapping):
            raise _wrong_type(name, value, "a table")
        return {str(k): convert(arguments[1], v, _join(name, str(k))) if arguments else v for k, v in value.items()}
    if isinstance(value, int) and value.bit_length() >= _BITS:
        raise UsageError(f"{name}: a whole number of {value.bit_length()} bits, the limit is {_BITS - 1}",
                         "write a smaller one")
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise _wrong_type(name, value, {"str": "text", "int": "a whole number", "float": "a number"}.get(
            expected.__name__, "true or false"))
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong_type(name, value, "a finite number")
    return value


def _check_limits(field: dataclasses.Field[Any], value: Any, name: str) -> None:
    if value is None:
        return
    minimum, maximum, choices = (field.metadata.get(key) for key in ("minimum", "maximum", "choices"))
    if choices is not None and value not in choices:
        import difflib

        near = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        known = ", ".join(map(str, choices))
        raise UsageError(f"{name}: {value!r} is not one of the choices", f"{hint}choices: {known}")
    if minimum is not None and value < minimum:
        raise UsageError(f"{name}: {value!r} is below the limit {minimum}", f"use {minimum} or more")
    if maximum is not None and value > maximum:
        raise UsageError(f"{name}: {value!r} is above the limit {maximum}", f"use {maximum} or less")


def _wrong_type(name: str, value: Any, wanted: str) -> UsageError:
    return UsageError(f"{name}: {value!r} is {type(value).__name__}, not {wanted}", f"write {wanted} there")


def _join(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key
