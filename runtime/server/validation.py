"""Fields of a request, each with its type and limits; what breaks them is refused in OpenAI's form of an error."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ...models.errors import ContextError, UsageError
from ..engines._base import check_ids

BODY_BYTES = 4 * 2**20
TEXT_LENGTH = 2**21
"""Most bytes of a request's body, and most characters of one text in it."""
MESSAGES, TOOLS, INPUTS, ANSWERS, STOPS, STOP_LENGTH, TOKENS = 1024, 128, 2048, 16, 16, 512, 131_072
"""Most messages, tools, texts in one request, answers to each, stop strings and their characters, tokens of answers."""


class Refusal(Exception):
    """A request that is not answered; `status` is HTTP's, `param` the field at fault."""

    def __init__(self, message: str, param: str | None = None, status: int = 400, code: str | None = None,
                 headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message, self.param, self.status, self.code = message, param, status, code
        self.headers = dict(headers or {})

    def renamed(self, names: Mapping[str, str]) -> Refusal:
        """The same of fields that have other `names` where it is said."""
        field, colon, rest = self.message.partition(":")
        param = self.param
        for theirs, ours in names.items():
            field = field.replace(theirs, ours)
            param = param and param.replace(theirs, ours)
        return Refusal(f"{field}{colon}{rest}", param, self.status, self.code, self.headers)

    def body(self) -> dict[str, Any]:
        """The error as OpenAI writes it."""
        kinds = {401: "authentication_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def parse(body: bytes) -> dict[str, Any]:
    """A body as a JSON object."""
    try:
        table = json.loads(body, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise Refusal(f"the body is no JSON in UTF-8: {reason}", code="invalid_json") from None
    if not isinstance(table, dict):
        raise Refusal(f"the body is {_name(table)}, a JSON object was expected")
    return table


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):  # of two values one would be ignored
        twice = next(name for place, (name, _) in enumerate(pairs) if name in dict(pairs[:place]))
        raise ValueError(f"the field {twice[:80]!r} stands twice in one object")
    return table


def number(table: Mapping[str, Any], name: str, least: float, most: float, whole: bool = False) -> Any:
    """A number within limits; None where it is absent or null."""
    value = table.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise Refusal(f"{name}: {_name(value)}, {'a whole' if whole else 'a'} number was expected", name)
    if not least <= value <= most:
        raise Refusal(f"{name}: {str(value)[:40]}, the limits are {least} and {most}", name)
    return value


def flag(table: Mapping[str, Any], name: str) -> bool:
    """True or false; false where it is absent or null."""
    value = table.get(name)
    if value is not None and not isinstance(value, bool):
        raise Refusal(f"{name}: {_name(value)}, true or false was expected", name)
    return bool(value)


def text(table: Mapping[str, Any], name: str, longest: int = TEXT_LENGTH, where: str = "") -> str:
    """A text; empty where it is absent or null."""
    where = where or name
    value = table.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Refusal(f"{where}: {_name(value)}, a string was expected", where)
    if len(value) > longest:
        raise Refusal(f"{where}: {len(value)} characters, the limit is {longest}", where)
    return value


def texts(table: Mapping[str, Any], name: str, most: int, longest: int = TEXT_LENGTH) -> list[str]:
    """Texts, or one; none where it is absent or null."""
    value = table.get(name)
    values = [value] if isinstance(value, str) else items(table, name, most)
    return [text({name: one}, name, longest, f"{name}[{place}]") if one is not None else _missing(f"{name}[{place}]")
            for place, one in enumerate(values)]


def items(table: Mapping[str, Any], name: str, most: int) -> list[Any]:
    """A list; empty where it is absent or null."""
    value = table.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise Refusal(f"{name}: {_name(value)}, a list was expected", name)
    if len(value) > most:
        raise Refusal(f"{name}: {len(value)} entries, the limit is {most}", name)
    return value


def tables(table: Mapping[str, Any], name: str, most: int) -> list[dict[str, Any]]:
    """A list of objects; empty where it is absent or null."""
    return [_object(one, f"{name}[{place}]") for place, one in enumerate(items(table, name, most))]


def object_(table: Mapping[str, Any], name: str, where: str = "") -> dict[str, Any]:
    """An object; empty where it is absent or null."""
    value = table.get(name)
    return {} if value is None else _object(value, where or name)


def inputs(table: Mapping[str, Any], name: str) -> list[str | list[int]]:
    """Texts or lists of token ids, or one of either, as OpenAI takes them; there is at least one."""
    value = table.get(name)
    if isinstance(value, str) or is_ids(value):
        value = [value]
    found = items({name: value}, name, INPUTS)
    if not found:
        raise Refusal(f"{name}: nothing was given; a string, strings, token ids or lists of them", name)
    for place, one in enumerate(found):
        if not is_ids(one):
            text({name: one if one is not None else _missing(name)}, name, TEXT_LENGTH, f"{name}[{place}]")
    return found


def is_ids(value: Any) -> bool:
    """Whether a value is a list of token ids."""
    return (isinstance(value, Sequence) and not isinstance(value, str) and bool(value)
            and all(type(one) is int for one in value))


def token_ids(ids: Sequence[int], where: str, context: int, vocabulary: int) -> None:
    """Refusal for ids that are none, or none of a model's; ContextError for more than its context holds."""
    try:
        check_ids(ids, 0, context, vocabulary)
    except ContextError:
        raise
    except UsageError as error:
        raise Refusal(f"{where}: {error}", where) from None


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refusal(f"{where}: {_name(value)}, an object was expected", where)
    return value


def _missing(where: str) -> Any:
    raise Refusal(f"{where}: null, a string was expected", where)


def _name(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number",
             float: "a number", type(None): "null"}
    return names.get(type(value), type(value).__name__)
