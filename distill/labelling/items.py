"""The rows of a file that a teacher is to answer: each is read as our reader will read it once it has an answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...models.errors import DataError
from ...runtime.data.builders import BESIDE
from ...runtime.data.faults import BadRow, RowFault
from ...runtime.data.formats import parse_inside
from ...runtime.data.messages import OTHER_ROLES, Message
from ...runtime.data.private import parted
from ...runtime.data.reader import records, write_ledger
from ...runtime.data.row import Row
from ...runtime.data.shapes import ALIASES, Shaper

STAND_IN = "?"
"""Stands for the answer that is still to come."""


@dataclass(frozen=True)
class Item:
    """One row."""

    record: Mapping[str, Any]
    """Its columns, but for those that the teacher alone reads; the answer is missing where there is none."""
    row: Row
    """The same as our reader reads it, with STAND_IN where the answer is missing."""
    column: str
    """Where the answer goes; of a conversation, that of the messages."""
    line: int
    answer: str = ""
    """The row's own; empty where it has none."""
    private: Mapping[str, str] = field(default_factory=dict)
    """Columns that the teacher alone reads."""

    def answered(self, text: str, message: Message) -> dict[str, Any]:
        """The record with an answer: a text, or the message of a conversation."""
        if self.column in ALIASES["messages"]:
            asked = _messages(self.record, self.column)
            return {**self.record, self.column: [*(asked[:-1] if self.answer else asked), message]}
        question = next((self.record[name] for name in ALIASES["prompt"] if name in self.record), None)
        return {**self.record, self.column: [message] if isinstance(question, list) else text}


def read_items(path: Path, columns: Mapping[str, str], private: Sequence[str], labels: Sequence[str],
               skip_bad: bool = False, ledger: Path | None = None) -> list[Item]:
    """The rows of a file, with or without answers, in their order; with `labels`, texts to label.

    `columns` maps our names to the file's; an empty name leaves a column out. Raises DataError as `read_rows` does, and
    for a row without a column in `private` or with a label of its own that is none of `labels`.
    """
    shaper = Shaper({} if labels else {name: "" for name, theirs in columns.items() if not theirs}, {}, set())
    items: list[Item] = []
    bad: list[BadRow] = []
    for line, record in records(str(path)):
        try:
            if isinstance(record, BadRow):
                raise RowFault(record.reason, record.remedy)
            items.append(_item(record, f"{path.name}:{line}", line, shaper, columns, private, labels))
        except RowFault as fault:
            bad.append(BadRow(str(path), line, fault.reason, fault.remedy))
            if not skip_bad:
                raise bad[0].error() from None
    if skip_bad:
        write_ledger(bad, ledger)
    if not items:
        raise DataError(f"{path}: there are no rows to label in it", "give a file with at least one row")
    return items


def _item(record: dict[str, Any], where: str, line: int, shaper: Shaper, columns: Mapping[str, str],
          private: Sequence[str], labels: Sequence[str]) -> Item:
    _check_json(record)
    rest, told = parted(record, private)
    hidden = {name: text for name, text in told.items() if text}
    given = _renamed(rest, columns)
    asks, answers = ("text", "label") if labels else ("prompt", "completion")
    talk = next((name for name in ALIASES["messages"] if name in given), "")
    if talk:
        if labels:
            raise RowFault("labels are given to texts, and this row is a conversation", "leave the labels out")
        messages = _messages(given, talk)
        last = messages[-1] if isinstance(messages[-1], dict) else {}
        said = last.get("role", last.get("from"))
        if OTHER_ROLES.get(str(said), said) == "assistant":
            row = shaper.row(given, where)
            return Item(given, row, talk, line, row.answer, hidden)
        return Item(given, shaper.row({**given, talk: [*messages, {"role": "assistant", "content": STAND_IN}]}, where),
                    talk, line, private=hidden)
    if not any(name in given for name in ALIASES[asks]):
        other = "prompt" if labels else "text"
        found = next((name for name in (*ALIASES[other], "input") if name in given), None)
        if found is None:
            raise RowFault(f"no question among the columns: {', '.join(map(repr, list(given)[:12]))}",
                           f"name its column: --column {asks}=THEIRS")
        given = {asks if name == found else name: value for name, value in given.items()}
    named = [name for name in ALIASES[answers] if name in given]
    if any(given[name] not in (None, "", []) for name in named):
        row = shaper.row(given, where)
        if labels and row.answer not in labels:
            raise RowFault(f"the row's own label {row.answer!r} is none of the labels", "correct it, or add it")
        return Item(given, row, named[0], line, row.answer, hidden)
    column = named[0] if named else answers
    given = {name: value for name, value in given.items() if name not in named}
    question = next((given[name] for name in ALIASES[asks] if name in given), None)
    stand_in: Any = [{"role": "assistant", "content": STAND_IN}] if isinstance(question, list) else STAND_IN
    row = shaper.row({**given, column: stand_in}, where)
    if row.tools:
        raise RowFault("tools stand beside a prompt: an answer that calls one would have no place",
                       "write the row as a conversation, in a column 'messages'")
    return Item(given, row, column, line, private=hidden)


def _renamed(record: dict[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The columns that have a name of ours under it."""
    ours = {theirs: name for name, theirs in columns.items()}
    optional = (*BESIDE, "label", "completion")
    missing = next((theirs for theirs, name in ours.items() if theirs not in record and name not in optional), None)
    if missing is not None:
        raise RowFault(f"the column {missing!r} is missing", "every row needs it; name the right one with --column")
    return {ours.get(name, name): value for name, value in record.items()}


def _check_json(record: Mapping[str, Any]) -> None:
    """Dates, decimals and bytes, which tables hold, could not be written once their answer was paid for."""
    for name, value in record.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise RowFault(f"the column {name!r} cannot be written as JSON: {error}",
                           "write it as text or a number, or leave it out") from None


def _messages(record: Mapping[str, Any], column: str) -> list[Any]:
    """The messages of a conversation, which tables hold as text."""
    value = record[column]
    value = parse_inside(value, f"the column {column!r}") if isinstance(value, str) else value
    if not isinstance(value, list) or not value:
        raise RowFault(f"the column {column!r} must hold a list of messages", 'write [{"role": "user", "content": …}]')
    return value
