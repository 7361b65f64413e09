"""What a row is, and how the columns of a file become one.

Columns with common names are found without a mapping; everything else is named by `columns`. The first row
that can be used fixes the shape, and a later row of another shape is a fault, never a guess.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..models import kinds
from .row_faults import RowFault
from .row_formats import parse_json

Message = dict[str, Any]

OUR_COLUMNS = ("prompt", "completion", "messages", "tools", "text", "label")
ALIASES: dict[str, tuple[str, ...]] = {
    "messages": ("messages", "conversations"),
    "prompt": ("prompt", "instruction", "question"),
    "completion": ("completion", "response", "output", "answer"),
    "text": ("text", "utterance", "sentence", "query"),
    "label": ("label", "intent", "category"),
    "tools": ("tools",),
}
_ROLES = ("system", "developer", "user", "assistant", "tool")
_OTHER_ROLES = {"human": "user", "gpt": "assistant", "system": "system"}


@dataclass(frozen=True)
class Row:
    """One row of data. Exactly one of `messages` and `text` is filled; `label` goes with `text`."""

    messages: tuple[Message, ...] = ()
    """A conversation as chat templates take it; its last message is the assistant's."""
    tools: tuple[dict[str, Any], ...] = ()
    text: str = ""
    label: str = ""
    where: str = ""
    """"train.jsonl:17", for messages."""

    @property
    def kind(self) -> str:
        """chat, label or text."""
        return "chat" if self.messages else "label" if self.label else "text"

    @property
    def prompt_messages(self) -> tuple[Message, ...]:
        """The conversation up to, and without, the answer."""
        return self.messages[:-1] if self.messages and self.messages[-1]["role"] == "assistant" else self.messages

    @property
    def question(self) -> str:
        """What the last user message says, or the text."""
        users = [message for message in self.messages if message["role"] == "user"]
        return str(users[-1]["content"]) if users else self.text

    @property
    def answer(self) -> str:
        """What the last assistant message says (its tool calls as JSON where it says nothing), or the label."""
        if not self.messages or self.messages[-1]["role"] != "assistant":
            return self.label
        last = self.messages[-1]
        if last["content"] or not last.get("tool_calls"):
            return str(last["content"])
        return compact_json([call["function"] for call in last["tool_calls"]])


def compact_json(value: Any) -> str:
    """JSON without blanks, as a model should write it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True)
class Shape:
    """The columns that a file's rows are read from: our name → the file's name."""

    kind: str
    """messages, pair (prompt and completion), label or text."""
    columns: Mapping[str, str]
    label_type: type | None = None

    def describe(self) -> str:
        """Such as "text and label"."""
        return " and ".join(repr(name) for key, name in self.columns.items() if key not in ("tools", "input"))


class Shaper:
    """Turns the records of one file into rows of one shape."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        """`columns`: our name → the file's. Raises UsageError for a name that is not one of OUR_COLUMNS."""
        for name in columns:
            if name not in OUR_COLUMNS:
                raise kinds.unknown("data.columns", name, list(OUR_COLUMNS))
        self._mapping = columns
        self._shape: Shape | None = None

    def row(self, record: Mapping[str, Any], where: str) -> Row:
        """One record as a row. Raises RowFault when it has not the columns or values that it needs."""
        shape = self._shape or detect(record.keys(), self._mapping)
        for key, name in shape.columns.items():
            if name not in record and key not in ("tools", "input"):
                raise _missing(name, record)
        if self._shape and not self._mapping:
            found = detect(record.keys(), self._mapping)
            if found.kind != shape.kind:
                raise RowFault(f"mixed schemas: this row has {found.describe()}, those before {shape.describe()}",
                               "keep rows of one shape in a file, or say which columns to read in data.columns")
        row = _BUILDERS[shape.kind](record, shape, where)
        if shape.kind == "label":
            shape = _same_label_type(shape, record[shape.columns["label"]])
        self._shape = shape
        return row


def detect(names: Iterable[str], mapping: Mapping[str, str]) -> Shape:
    """The shape of a record with the columns `names`. Raises RowFault when they say nothing, or two things."""
    known = list(names)

    def find(key: str) -> str | None:
        if key in mapping:
            return mapping[key]
        found = [alias for alias in ALIASES[key] if alias in known]
        if len(found) > 1 and found[0] != key:
            raise RowFault(f"the columns {' and '.join(map(repr, found))} could both be the {key}",
                           f"say which one: data.columns.{key} = {found[0]!r}")
        return found[0] if found else None

    for kind, keys in (("messages", ("messages",)), ("pair", ("prompt", "completion")),
                       ("label", ("text", "label")), ("text", ("text",))):
        if mapping and not _wanted(kind, mapping):
            continue
        columns = {}
        for key in keys:
            name = _input_as_prompt(known) if key == "prompt" and not find(key) else find(key)
            if name is None:
                break
            columns[key] = name
        else:
            if kind in ("messages", "pair") and ("tools" in known or "tools" in mapping):
                columns["tools"] = mapping.get("tools", "tools")
            if columns.get("prompt") == "instruction" and "input" in known:
                columns["input"] = "input"
            return Shape(kind, columns)
    raise RowFault(f"no column that can be used among: {', '.join(map(repr, known[:12]))}",
                   "name the columns in data.columns, such as prompt = 'their name'; "
                   f"found without: {', '.join(alias for names in ALIASES.values() for alias in names)}")


def _wanted(kind: str, mapping: Mapping[str, str]) -> bool:
    """A mapping decides the shape: mapping `text` alone reads text even where a label column stands beside it."""
    if "messages" in mapping:
        return kind == "messages"
    if "prompt" in mapping or "completion" in mapping:
        return kind == "pair"
    if "label" in mapping:
        return kind == "label"
    return kind == "text" if "text" in mapping else kind in ("messages", "pair")


def _input_as_prompt(names: Sequence[str]) -> str | None:
    return "input" if "input" in names else None


def _missing(name: str, record: Mapping[str, Any]) -> RowFault:
    near = difflib.get_close_matches(name, list(record), n=1)
    suggestion = f"did you mean {near[0]!r}? " if near else ""
    return RowFault(f"the column {name!r} is missing; this row has: {', '.join(map(repr, list(record)[:12]))}",
                    f"{suggestion}every row needs it; name the right one in data.columns")


def _same_label_type(shape: Shape, value: Any) -> Shape:
    if shape.label_type is not None and shape.label_type is not type(value):
        raise RowFault(f"mixed schemas: the label is {type(value).__name__}, in the rows before it is "
                       f"{shape.label_type.__name__}", "write all labels as text, or all as numbers")
    return replace(shape, label_type=type(value))


def _text(record: Mapping[str, Any], column: str) -> str:
    value = record[column]
    if value is None:
        raise RowFault(f"the column {column!r} is null", "fill it or remove the row")
    if not isinstance(value, str):
        raise RowFault(f"the column {column!r} holds {type(value).__name__}, not text", "write it as text, in quotes")
    if not value.strip():
        raise RowFault(f"the column {column!r} is empty", "fill it or remove the row")
    return value


def _text_row(record: Mapping[str, Any], shape: Shape, where: str) -> Row:
    return Row(text=_text(record, shape.columns["text"]), where=where)


def _label_row(record: Mapping[str, Any], shape: Shape, where: str) -> Row:
    column = shape.columns["label"]
    value = record[column]
    if isinstance(value, list):
        raise RowFault(f"the column {column!r} holds a list; a row has one label", "keep one label a row")
    if isinstance(value, (bool, int)):
        value = str(value).lower()
    label = _text({column: value}, column)
    return Row(text=_text(record, shape.columns["text"]), label=label, where=where)


def _pair_row(record: Mapping[str, Any], shape: Shape, where: str) -> Row:
    prompt_column, completion_column = shape.columns["prompt"], shape.columns["completion"]
    completion = record[completion_column]
    if isinstance(record[prompt_column], list):  # both are parts of a conversation
        prompt = _messages(record[prompt_column], prompt_column)
        return _conversation((*prompt, *_messages(completion, completion_column)), record, shape, where)
    if isinstance(completion, (dict, list)):  # a structured answer: the model is to write it as JSON
        completion = compact_json(completion)
    question = _text(record, prompt_column)
    context = record.get(shape.columns.get("input", ""))
    if isinstance(context, str) and context.strip():
        question = f"{question}\n\n{context}"
    answer = _text({completion_column: completion}, completion_column)
    messages = ({"role": "user", "content": question}, {"role": "assistant", "content": answer})
    return Row(messages=messages, tools=_tools(record, shape), where=where)


def _messages_row(record: Mapping[str, Any], shape: Shape, where: str) -> Row:
    column = shape.columns["messages"]
    return _conversation(_messages(record[column], column), record, shape, where)


def _conversation(messages: tuple[Message, ...], record: Mapping[str, Any], shape: Shape, where: str) -> Row:
    if messages[-1]["role"] != "assistant":
        raise RowFault(f"the last message is from {messages[-1]['role']!r}: there is no answer to learn from",
                       "end every conversation with the assistant's message")
    if all(message["role"] != "user" for message in messages):
        raise RowFault("the conversation has no user message", "start it with what the user said")
    return Row(messages=messages, tools=_tools(record, shape), where=where)


def _messages(value: Any, column: str) -> tuple[Message, ...]:
    value = parse_json(value) if isinstance(value, str) and value.lstrip()[:1] == "[" else value
    if not isinstance(value, list) or not value:
        raise RowFault(f"the column {column!r} must hold a list of messages",
                       'write [{"role": "user", "content": …}, …]')
    return tuple(_message(item, f"{column}[{index}]") for index, item in enumerate(value))


def _message(item: Any, name: str) -> Message:
    if not isinstance(item, dict):
        raise RowFault(f"{name} is {type(item).__name__}, not an object", 'write {"role": "user", "content": "…"}')
    message = {key: value for key, value in item.items() if value is not None}
    if "from" in message and "value" in message and "role" not in message:
        message = {"role": _OTHER_ROLES.get(str(message["from"]), message["from"]), "content": message["value"]}
    role = message.get("role")
    if role not in _ROLES:
        raise RowFault(f"{name}.role is {role!r}", f"write one of: {', '.join(_ROLES)}")
    calls = message.get("tool_calls")
    if calls is not None:
        message["tool_calls"] = _tool_calls(calls, name)
        if not message["tool_calls"]:
            del message["tool_calls"]
    content = message.setdefault("content", "" if message.get("tool_calls") else None)
    if not isinstance(content, str):
        raise RowFault(f"{name}.content is {type(content).__name__}, not text", "write the content as one text")
    if not content.strip() and not message.get("tool_calls") and role != "tool":
        raise RowFault(f"{name}.content is empty", "fill it or remove the message")
    return message


def _tool_calls(calls: Any, name: str) -> list[dict[str, Any]]:
    """Tool calls with arguments as objects: chat templates write them as JSON, and text would be quoted twice."""
    checked = []
    for call in calls if isinstance(calls, list) else [None]:
        call = call if isinstance(call, dict) else {}
        function = call.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise RowFault(f"{name}.tool_calls must be a list of calls with a function name",
                           'write [{"type": "function", "function": {"name": …, "arguments": {…}}}]')
        arguments = function.get("arguments", {})
        arguments = parse_json(arguments) if isinstance(arguments, str) else arguments
        if not isinstance(arguments, dict):
            raise RowFault(f"{name}.tool_calls: the arguments of {function['name']!r} are no object",
                           'write "arguments": {"name": value, …}')
        checked.append({**call, "function": {**function, "arguments": arguments}})
    return checked


def _tools(record: Mapping[str, Any], shape: Shape) -> tuple[dict[str, Any], ...]:
    column = shape.columns.get("tools", "")
    value = record.get(column)
    if value is None or value == "":
        return ()
    value = parse_json(value) if isinstance(value, str) else value
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise RowFault(f"the column {column!r} must hold a list of tools", "write each tool as a JSON schema object")
    return tuple(value)


_BUILDERS = {"messages": _messages_row, "pair": _pair_row, "label": _label_row, "text": _text_row}
