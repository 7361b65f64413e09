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
from .row_messages import Message, compact_json, read_messages, read_tools
from .row_targets import PAIRS, kind_of, targets

OUR_COLUMNS = ("prompt", "completion", "messages", "tools", "text", "pair", "label", "score")
ALIASES: dict[str, tuple[str, ...]] = {
    "messages": ("messages", "conversations"),
    "prompt": ("prompt", "instruction", "question"),
    "completion": ("completion", "response", "output", "answer"),
    "text": ("text", "utterance", "sentence", "query", "sentence1", "premise"),
    "label": ("label", "labels", "intent", "category"),
    "score": ("score",),
    "tools": ("tools",),
}


@dataclass(frozen=True)
class Row:
    """One row of data. Exactly one of `messages` and `text` is filled; with `text` goes one of `label`, `labels` and
    `score`, or none."""

    messages: tuple[Message, ...] = ()
    """A conversation as chat templates take it; its last message is the assistant's."""
    tools: tuple[dict[str, Any], ...] = ()
    text: str = ""
    label: str = ""
    where: str = ""
    """"train.jsonl:17", for messages."""
    pair: str = ""
    """The second text of a pair that a model reads together."""
    labels: tuple[str, ...] | None = None
    """Every label that applies, of a text that may have any number of them."""
    score: float | None = None
    """The number that is to be found, such as a rating."""

    @property
    def kind(self) -> str:
        """chat, label, labels, score or text."""
        if self.messages:
            return "chat"
        return "labels" if self.labels is not None else "score" if self.score is not None else (
            "label" if self.label else "text")

    @property
    def texts(self) -> str | tuple[str, str]:
        """The text, or both texts of a pair."""
        return (self.text, self.pair) if self.pair else self.text

    @property
    def named(self) -> tuple[str, ...]:
        """The labels that the row names: one, several or none."""
        return self.labels if self.labels is not None else (self.label,) if self.label else ()

    @property
    def prompt_messages(self) -> tuple[Message, ...]:
        """The conversation up to, and without, the answer."""
        return self.messages[:-1] if self.messages and self.messages[-1]["role"] == "assistant" else self.messages

    @property
    def question(self) -> str:
        """What the last user message says, or the text; of a pair, both."""
        users = [message for message in self.messages if message["role"] == "user"]
        return str(users[-1]["content"]) if users else f"{self.text}\n\n{self.pair}" if self.pair else self.text

    @property
    def answer(self) -> str:
        """What the last assistant message says (its tool calls as JSON where it says nothing), or the label, the list
        of labels or the score as a classifier writes them."""
        if self.labels is not None:
            return json.dumps(list(self.labels), ensure_ascii=False)
        if self.score is not None:
            return repr(self.score)
        if not self.messages or self.messages[-1]["role"] != "assistant":
            return self.label
        last = self.messages[-1]
        if last["content"] or not last.get("tool_calls"):
            return str(last["content"])
        return compact_json([call["function"] for call in last["tool_calls"]])


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
        if shape.kind in ("label", "score"):
            shape = _same_target(shape, record)
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
                       ("label", ("text", "label")), ("score", ("text", "score")), ("text", ("text",))):
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
            if "text" in columns and (pair := _second(columns["text"], known, mapping)):
                columns["pair"] = pair
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
    for name in ("label", "score"):
        if name in mapping:
            return kind == name
    return kind == "text" if "text" in mapping else kind in ("messages", "pair")


def _second(first: str, known: Sequence[str], mapping: Mapping[str, str]) -> str | None:
    """The column with the second text of a pair; where the first one's is mapped, so must be the second's."""
    if "pair" in mapping or "text" in mapping:
        return mapping.get("pair")
    return next((name for name in PAIRS.get(first, ()) if name in known), None)


def _input_as_prompt(names: Sequence[str]) -> str | None:
    return "input" if "input" in names else None


def _missing(name: str, record: Mapping[str, Any]) -> RowFault:
    near = difflib.get_close_matches(name, list(record), n=1)
    suggestion = f"did you mean {near[0]!r}? " if near else ""
    return RowFault(f"the column {name!r} is missing; this row has: {', '.join(map(repr, list(record)[:12]))}",
                    f"{suggestion}every row needs it; name the right one in data.columns")


def _same_target(shape: Shape, record: Mapping[str, Any]) -> Shape:
    value = record[shape.columns[shape.kind]]
    found = kind_of(targets(record, shape.columns[shape.kind], shape.kind))
    if found == "one label":
        found += f" ({type(value).__name__})"
    if shape.target not in ("", found):
        raise RowFault(f"mixed schemas: {shape.columns[shape.kind]!r} holds {found}, in the rows before it holds "
                       f"{shape.target}", "write all labels as text, all as whole numbers, or all as lists; all scores "
                       "with a decimal point")
    return replace(shape, target=found)


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
    completion = record[completion_column]
    if isinstance(record[prompt_column], list):  # both are parts of a conversation
        prompt = read_messages(record[prompt_column], prompt_column)
        return _conversation((*prompt, *read_messages(completion, completion_column)), record, shape, where)
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
    return _conversation(read_messages(record[column], column), record, shape, where)


def _conversation(messages: tuple[Message, ...], record: Mapping[str, Any], shape: Shape, where: str) -> Row:
    if messages[-1]["role"] != "assistant":
        raise RowFault(f"the last message is from {messages[-1]['role']!r}: there is no answer to learn from",
                       "end every conversation with the assistant's message")
    if all(message["role"] != "user" for message in messages):
        raise RowFault("the conversation has no user message", "start it with what the user said")
    return Row(messages=messages, tools=_tools(record, shape), where=where)


def _tools(record: Mapping[str, Any], shape: Shape) -> tuple[dict[str, Any], ...]:
    column = shape.columns.get("tools", "")
    return read_tools(record.get(column), column)


_BUILDERS = {"messages": _messages_row, "pair": _pair_row, "label": _text_row, "score": _text_row, "text": _text_row}
