"""How the columns of one record become a row, once its shape is known."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .faults import RowFault
from .formats import parse_inside, parse_json
from .messages import Message, column_weight, compact_json, read_messages, read_tools
from .row import Row
from .targets import targets

BESIDE: dict[str, tuple[str, ...]] = {
    "tools": ("tools", "functions"),
    "system": ("system", "system_prompt"),
    "input": ("input", "context"),
    "history": ("history",),
    "reasoning": ("reasoning", "reasoning_content", "thinking"),
    "weight": ("weight", "train"),
}
"""Columns that may stand beside a conversation and change what it says."""


@dataclass(frozen=True)
class Shape:
    """The columns that a file's rows are read from: our name → the file's name."""

    kind: str
    """messages, pair (prompt and completion), label (or labels), score or text."""
    columns: Mapping[str, str]
    target: str = ""
    """What the column of labels holds."""

    def describe(self) -> str:
        """Such as "text and label"."""
        return " and ".join(repr(name) for key, name in self.columns.items() if key not in BESIDE)


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
    if shape.kind == "text":
        return Row(text=_text(record, shape.columns["text"]), where=where, pair=_pair(record, shape))
    found = targets(record, shape.columns[shape.kind], shape.kind)
    return Row(text=_text(record, shape.columns["text"]), where=where, pair=_pair(record, shape), **found)


def _pair(record: Mapping[str, Any], shape: Shape) -> str:
    return _text(record, shape.columns["pair"]) if "pair" in shape.columns else ""


def _pair_row(record: Mapping[str, Any], shape: Shape, where: str) -> Row:
    prompt_column, completion_column = shape.columns["prompt"], shape.columns["completion"]
    prompt, completion = _listed(record[prompt_column], prompt_column), record[completion_column]
    if isinstance(prompt, list):  # both are parts of a conversation
        completion = _listed(completion, completion_column)
        if not isinstance(completion, list):
            raise RowFault(f"the column {prompt_column!r} holds messages, {completion_column!r} holds none",
                           "write both as text, or both as messages")
        for key in ("input", "history", "reasoning"):
            if record.get(shape.columns.get(key, "")):
                raise RowFault(f"the column {shape.columns[key]!r} stands beside messages",
                               "write it into the messages, or leave it out")
        row = _conversation([*prompt, *completion], prompt_column, record, shape, where)
        asked = len(row.messages) - len(completion)  # what stands in the prompt is read, whoever said it
        return replace(row, unlearned=tuple(sorted({*row.unlearned, *(turn for turn in row.turns if turn < asked)})))
    if _are_messages(completion):
        raise RowFault(f"the column {completion_column!r} holds messages, {prompt_column!r} holds none",
                       f"write both as messages; or read it alone, data.columns.messages = {completion_column!r}")
    if isinstance(completion, (dict, list)):  # a structured answer: the model is to write it as JSON
        completion = compact_json(completion)
    question = _text(record, prompt_column)
    context = _optional(record, shape, "input")
    answer: Message = {"role": "assistant", "content": _text({completion_column: completion}, completion_column)}
    thoughts = _optional(record, shape, "reasoning")
    if thoughts:
        answer["reasoning_content"] = thoughts
    question = f"{question}\n\n{context}" if context else question
    return _conversation([*_history(record, shape), {"role": "user", "content": question}, answer], prompt_column,
                         record, shape, where)


_PRINTED = re.compile(r"\[\s*\{\s*'(role|content|from|value)'\s*:")


def _are_messages(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(
        isinstance(item, dict) and ({"role", "content"} <= item.keys() or {"from", "value"} <= item.keys())
        for item in value)


def _listed(value: Any, column: str) -> Any:
    """A column's value, its messages where it is the JSON of some: tables hold them as text."""
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        try:
            found = parse_json(value)
        except RowFault:
            if _PRINTED.match(value.lstrip()):
                raise RowFault(f"the column {column!r} holds messages as Python prints them, which is no JSON",
                               "write them as JSON, with double quotes: json.dumps(messages)") from None
            return value  # a text that begins with a bracket
        return found if _are_messages(found) else value
    return value


def _messages_row(record: Mapping[str, Any], shape: Shape, where: str) -> Row:
    column = shape.columns["messages"]
    value = record[column]
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        value = parse_inside(value, f"the column {column!r}")
    return _conversation(value, column, record, shape, where)


def _conversation(value: Any, column: str, record: Mapping[str, Any], shape: Shape, where: str) -> Row:
    messages, unlearned = read_messages(value, column)
    system = _optional(record, shape, "system")
    if system:
        if any(message["role"] in ("system", "developer") for message in messages):
            raise RowFault(f"the column {shape.columns['system']!r} stands beside a system message in {column!r}",
                           "keep one of the two")
        messages = ({"role": "system", "content": system}, *messages)
        unlearned = tuple(place + 1 for place in unlearned)
    if messages[-1]["role"] != "assistant":
        raise RowFault(f"the last message is from {messages[-1]['role']!r}: there is no answer to learn from",
                       "end every conversation with the assistant's message")
    if all(message["role"] != "user" for message in messages):
        raise RowFault("the conversation has no user message", "start it with what the user said")
    name = shape.columns.get("weight", "")
    if record.get(name) not in (None, "") and not column_weight(record[name], f"the column {name!r}"):
        unlearned = tuple(place for place, message in enumerate(messages) if message["role"] == "assistant")
    tools = read_tools(record.get(shape.columns.get("tools", "")), shape.columns.get("tools", ""))
    return Row(messages=messages, tools=tools, where=where, unlearned=unlearned)


def _optional(record: Mapping[str, Any], shape: Shape, key: str) -> str:
    """The text of a column that may be missing or empty."""
    column = shape.columns.get(key, "")
    value = record.get(column)
    return "" if value is None or (isinstance(value, str) and not value.strip()) else _text(record, column)


def _history(record: Mapping[str, Any], shape: Shape) -> list[Message]:
    """The turns before, [[question, answer], …]."""
    column = shape.columns.get("history", "")
    turns = record.get(column) or []
    turns = parse_inside(turns, f"the column {column!r}") if isinstance(turns, str) else turns
    if not isinstance(turns, list) or not all(isinstance(turn, list) and len(turn) == 2 for turn in turns):
        raise RowFault(f"the column {column!r} is no list of pairs", "write [[question, answer], …]")
    return [{"role": role, "content": content} for turn in turns
            for role, content in zip(("user", "assistant"), turn, strict=True)]


BUILDERS: dict[str, Callable[[Mapping[str, Any], Shape, str], Row]] = {
    "messages": _messages_row, "pair": _pair_row, "label": _text_row, "score": _text_row, "text": _text_row}
