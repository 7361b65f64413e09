"""Tool calls in answers, read in the form that the model's own chat template writes them in."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ...models.errors import DataError, UsageError

NAME, CALL_ID = "edgestill_tool", "abcdefghi"
"""Function and id of the call that templates are asked to write."""
_KEY, _VALUE = "edgestill_key", "edgestill value"
TOOL = {"type": "function", "function": {"name": NAME, "description": "a tool", "parameters": {
    "type": "object", "properties": {_KEY: {"type": "string", "description": "a value"}}, "required": [_KEY]}}}
CALL = {"type": "function", "id": CALL_ID, "function": {"name": NAME, "arguments": {_KEY: _VALUE}}}
QUESTION = {"role": "user", "content": "question"}
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class ToolCall:
    """A function that the model wants called."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class ToolFormat:
    """How a model writes calls: one JSON object a call, or a name and its arguments as JSON."""

    before: str
    """What stands before a call, or before a list of calls; empty where an answer is nothing but a call."""
    name_key: str = ""
    """The object's key of the name; empty where the name stands before the arguments."""
    arguments_key: str = ""
    between: str = ""
    """What stands between a name and its arguments."""
    written: tuple[str, str] = field(default=("", ""), compare=False, repr=False)
    """What the template makes of a turn of one call, and of two; empty where it refuses so many."""

    @classmethod
    def of(cls, render: Callable[..., str]) -> ToolFormat:
        """Found by rendering a call with the chat template, by a codec's `render`. UsageError for a template that
        writes none, or in a form that is not known here."""
        written = _written(render, 1)
        if _VALUE not in written or NAME not in written:
            raise UsageError(f"tools: the chat template writes no tool calls, but {written[:80]!r}",
                             "use a model that was made for tools")
        twice = _written(render, 2)
        start, end, call = _object(written)
        if NAME in call.values():
            before = written[:start]
            keys = {key for key, value in call.items() if value in ({_KEY: _VALUE}, json.dumps({_KEY: _VALUE}))}
            if keys:
                name_key = next(key for key, value in call.items() if value == NAME)
                return cls(_marker(before, twice, written[:end]), name_key, keys.pop(), written=(written, twice))
        name = written.find(NAME)
        marker, between = _marker(written[:name], twice, written[:end]), written[name + len(NAME):start].strip()
        if call != {_KEY: _VALUE} or not 0 <= name < start or not marker or "=" in between:
            raise UsageError(f"tools: the chat template writes calls in a form that is not known: {written[:200]!r}",
                             "read the calls from Generation.ids")
        return cls(marker, between=between, written=(written, twice))

    def parse(self, text: str) -> tuple[str, list[ToolCall]]:
        """The words before the first call, and the calls. DataError for a call that cannot be read."""
        if not self.before:
            value = _value(text, 0)[0] if text.lstrip().startswith("{") else None
            is_call = isinstance(value, dict) and self.name_key in value and self.arguments_key in value
            return ("", [self._call(value, text)]) if is_call else (text, [])
        first = text.find(self.before)
        return (text, []) if first < 0 else (text[:first].rstrip(), list(self._calls(text, first)))

    def _calls(self, text: str, place: int) -> Iterator[ToolCall]:
        while place >= 0:
            place += len(self.before)
            name = ""
            if not self.name_key:
                found = re.compile(r"\s*([\w.-]+)\s*" + re.escape(self.between)).match(text, place)
                if found is None:
                    raise _unreadable(text[place:])
                name, place = found[1], found.end()
            value, end = _value(text, place)
            if end < 0:
                raise _unreadable(text[place:])
            for one in value if isinstance(value, list) else [value]:
                yield self._call(one, text[place:end], name)
            place = text.find(self.before, end)

    def _call(self, value: Any, text: str, name: str = "") -> ToolCall:
        """One call out of what its JSON says."""
        arguments = value
        if self.name_key:
            table = value if isinstance(value, dict) else {}
            name, arguments = table.get(self.name_key, ""), table.get(self.arguments_key)
        if isinstance(arguments, str):
            arguments = _value(arguments, 0)[0]
        if not name or not isinstance(name, str) or not isinstance(arguments, dict):
            raise _unreadable(text)
        return ToolCall(name, arguments)


def _written(render: Callable[..., str], count: int) -> str:
    """What the template makes of an assistant's turn of `count` calls; empty when it refuses so many."""
    answer = {"role": "assistant", "content": "", "tool_calls": [CALL] * count}
    try:
        whole = render([QUESTION, answer], [TOOL], add_generation_prompt=False)
        asked = render([QUESTION], [TOOL])
    except DataError:
        return ""
    return whole[len(os.path.commonprefix([whole, asked])):]


def _object(text: str) -> tuple[int, int, dict[str, Any]]:
    """Place and content of the first JSON object that holds the marked argument; an empty one where there is none."""
    for found in re.finditer(r"\{", text):
        value, end = _value(text, found.start())
        if isinstance(value, dict) and _VALUE in text[found.start():end]:
            return found.start(), end, value
    return len(text), len(text), {}


def arguments_in(text: str, place: int) -> tuple[int, int]:
    """Where the marked arguments begin and end behind `place`; -1 as the end where they stand there as no JSON."""
    for found in re.finditer(r"\{", text[place:]):
        start = place + found.start()
        value, end = _value(text, start)
        if value == {_KEY: _VALUE}:
            return start, end
    return len(text), -1


def _marker(before: str, twice: str, once: str) -> str:
    """The part of what stands before a call that stands before every call: before the second one too, or else the
    last line."""
    listed = before.rstrip()
    if listed.endswith("["):
        return listed[:-1].strip()
    second = twice[len(once):]
    place = second.find(NAME)
    opening = second[:second.rfind("{", 0, place)] if "{" in second[:max(place, 0)] else second[:max(place, 0)]
    shared = os.path.commonprefix([before[::-1], opening[::-1]])[::-1].strip() if place >= 0 else ""
    shared = re.sub(r"^[^<\[]*[>\]]", "", shared)  # the end of a mark that both happen to share
    return shared or (before.strip().splitlines() or [""])[-1]


def _value(text: str, place: int) -> tuple[Any, int]:
    """The JSON value that begins at `place`, blanks aside, and where it ends; None and -1 where there is none."""
    while place < len(text) and text[place].isspace():
        place += 1
    try:
        value, end = _DECODER.raw_decode(text, place)
    except (ValueError, RecursionError):
        return None, -1
    return value, end


def _unreadable(text: str) -> DataError:
    return DataError(f"the model wrote a tool call that cannot be read: {text[:120]!r}",
                     "ask again, or bind the answer by a schema")
