"""One call of a log: what was asked and what came back, in the words of OpenAI's API, whoever kept it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..faults import RowFault
from ..formats import parse_json

FAILED = "failed call"
NO_ANSWER = "no answer in the log"
_CODE = re.compile(r"[\w. -]{1,40}")


class Unusable(Exception):
    """There is no row in this record; the reason holds nothing that a user or a model said."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Place:
    """Where a record stands: a file's name and the line, or in tables and arrays the row, from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Exchange:
    """A request's body and its response's, or one of the two with the `key` that the other one has, too."""

    place: Place
    request: Mapping[str, Any] | None = None
    """Of /v1/chat/completions or /v1/responses."""
    response: Any = None
    failure: str = ""
    """Why there is no answer, where the log says so."""
    usage: Mapping[str, Any] = field(default_factory=dict)
    """Tokens, under OpenAI's names, where the response does not name them."""
    cost: float | None = None
    """Of the call in US dollars, where the log says so."""
    key: str = ""

    @property
    def tokens(self) -> tuple[int, int] | None:
        """Tokens read and written; None where the log does not say."""
        told = self.response.get("usage") if isinstance(self.response, Mapping) else None
        for usage in (told, self.usage):
            if isinstance(usage, Mapping):
                found = [next((usage[name] for name in names if isinstance(usage.get(name), int)), None)
                         for names in (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))]
                if any(found):
                    return found[0] or 0, found[1] or 0
        return None


def unpacked(value: Any) -> Any:
    """What a text says that is the JSON of an object or a list, as tables hold them; another value as it is."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "["):
        return value
    try:
        return parse_json(value)
    except RowFault:
        return value  # a text that begins with a bracket


def table(value: Any) -> Mapping[str, Any]:
    """`unpacked`, or nothing where that is no object."""
    value = unpacked(value)
    return value if isinstance(value, Mapping) else {}


def number(value: Any) -> float | None:
    """A price or a count, which tables hold as text; None for what is none."""
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def failed(code: Any = None) -> str:
    """The reason for a call that failed, with the code that the log gives: messages of errors quote what was sent."""
    said = str(code) if isinstance(code, (str, int)) and _CODE.fullmatch(str(code)) else ""
    return f"{FAILED} ({said})" if said else FAILED
