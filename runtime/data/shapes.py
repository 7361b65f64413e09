"""What a row is, and how the columns of a file become one.

Columns with common names are found without a mapping; everything else is named by `columns`. The first row
that can be used fixes the shape, and a later row of another shape is a fault, never a guess.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ...models import kinds
from ...models.errors import UsageError
from .builders import BESIDE, BUILDERS, Shape
from .faults import RowFault
from .messages import Message, compact_json
from .row import Row
from .targets import FRACTION, PAIRS, kind_of, targets

__all__ = ["Message", "Row", "Shaper", "compact_json", "detect"]

ALIASES: dict[str, tuple[str, ...]] = {
    "messages": ("messages", "conversations"),
    "prompt": ("prompt", "instruction", "question", "query"),
    "completion": ("completion", "response", "output", "answer"),
    "text": ("text", "utterance", "sentence", "query", "sentence1", "premise"),
    "label": ("label", "labels", "intent", "category", "label_text", "label_name"),
    "score": ("score",),
}
MOST_COLUMNS = 10_000
_NAMES_OF = {**ALIASES, **BESIDE}
_NAMES = ("label_text", "label_name")
"""What the numbers in a column of labels mean; where both stand in a row, these are read."""
_OF_PAIRS = ("input", "history", "reasoning")
OUR_COLUMNS = (*ALIASES, "pair", *BESIDE)
_PAIRS = "pairs of preferences are not learned from: map the better answer, data.columns.completion = 'chosen'"
_TEXT = "models here read text only"
REFUSED = {
    "chosen": _PAIRS, "rejected": _PAIRS, "image": _TEXT, "images": _TEXT, "audio": _TEXT, "audios": _TEXT,
    "video": _TEXT, "videos": _TEXT, "documents": "write them into the message that they belong to",
    "chat_template_kwargs": "write them as [task] template_options, which hold for every row",
    **dict.fromkeys(("loss_weight", "sample_weight"), "write 0 (read alone) or 1 (learned) in a column 'weight'"),
}
"""Columns that would change what a row says, and are not read: they are refused, unless data.columns says which are."""
_CHAT_ONLY = {
    **dict.fromkeys(BESIDE["system"], "a {} row has no system message: leave the column out"),
    "weight": "every {} row is learned alike: leave the column out, with the rows that are not to be learned",
    **dict.fromkeys((*ALIASES["prompt"], *ALIASES["completion"], *ALIASES["messages"]),
                    "rename it, or say what to read in data.columns, such as text = 'sentence'"),
}
"""Columns of conversations, and what to do about one beside a text or a label."""


class Shaper:
    """Turns the records of one file into rows of one shape."""

    def __init__(self, columns: Mapping[str, str], unread: dict[str, None], unseen: set[str], route: str = "") -> None:
        """`columns`: our name → the file's; `unread` takes the columns that no row was made from, in the order they
        came in; of our names in `unseen` those go whose columns are there; `route` is the column of Row.route. Raises
        UsageError for a name that is not one of OUR_COLUMNS, and for a column that is to be read as two of them."""
        for name in columns:
            if name not in OUR_COLUMNS:
                raise kinds.unknown("data.columns", name, list(OUR_COLUMNS))
        named = [name for name in columns.values() if name]
        twice = next((name for name in named if named.count(name) > 1), None)
        if twice is not None:
            ours = " and ".join(key for key, name in columns.items() if name == twice)
            raise UsageError(f"data.columns: {ours} are both read from {twice!r}", "name a column of its own for each")
        self._mapping = columns
        self._shape: Shape | None = None
        self._unread = unread
        self._unseen = unseen
        self._route = route

    def row(self, record: Mapping[str, Any], where: str) -> Row:
        """One record as a row. Raises RowFault when it has not the columns or values that it needs, or others that
        would be lost."""
        if len(record) > MOST_COLUMNS:
            raise RowFault(f"{len(record):,} columns, the limit is {MOST_COLUMNS:,}",
                           "write the columns that are read, alone")
        shape = self._shape or detect(record.keys(), self._mapping)
        for key, name in shape.columns.items():
            if name not in record and key not in BESIDE:
                raise _missing(name, record)
        if self._shape:
            if not self._mapping:
                found = detect(record.keys(), self._mapping)
                if found.kind != shape.kind:
                    raise RowFault(f"mixed schemas: this row has {found.describe()}, those before {shape.describe()}",
                                   "keep rows of one shape in a file, or say which columns to read in data.columns")
            # What stands beside a conversation may be there in some rows only.
            shape = replace(shape, columns={**shape.columns, **_beside(shape, record, self._mapping)})
        self._unseen -= {key for key in self._unseen if shape.columns.get(key) in record}
        self._leave_out(record, shape)
        row = BUILDERS[shape.kind](record, shape, where)
        if shape.kind in ("label", "score"):
            shape = _same_target(shape, record)
            number = next((name for name in row.named if FRACTION.fullmatch(name.strip())), None)
            if number is not None and "label" not in self._mapping:
                column = shape.columns["label"]
                raise RowFault(f"the column {column!r} holds {number!r}, a number with a fraction, which is no name",
                               f"data.columns.score = {column!r} reads scores; data.columns.label = {column!r} takes "
                               "such numbers for names all the same")
        self._shape = shape
        return replace(row, route=_route(record, self._route)) if self._route else row

    def _leave_out(self, record: Mapping[str, Any], shape: Shape) -> None:
        """Note the columns that are not read; RowFault for those that would change what the row says."""
        read = {*shape.columns.values(), *filter(None, [self._route])}
        for name, value in record.items():
            if name in read or value is None or value in ("", [], {}):
                continue
            if not self._mapping and (remedy := _remedy(name, value, shape)):
                raise RowFault(f"the column {name!r} is not read, and would change what the row says", remedy)
            if not self._mapping and shape.kind == "text" and name in getattr(record, "classes", ()):
                raise RowFault(f"the column {name!r} holds names of classes, and is not read",
                               f"data.columns.label = {name!r} reads them as labels; data.columns.text = "
                               f"{shape.columns['text']!r} reads the text alone")
            meant = "" if self._mapping else _nearly(name, shape)
            if meant:
                raise RowFault(f"the column {name!r} is not read, and is {meant!r} but for blanks and capitals",
                               f"rename it, or say what to read in data.columns: {meant} = {name!r}")
            self._unread[name or "(one without a name)"] = None


def _remedy(name: str, value: Any, shape: Shape) -> str:
    """What to do about a column without which the row would say something else; empty for another."""
    if name in REFUSED:
        return REFUSED[name]
    if shape.kind not in ("messages", "pair"):
        return _CHAT_ONLY.get(name, "").format(shape.kind)
    if name == "label" and str(value).lower() in ("true", "false"):
        return "it says whether the answer is a good one: keep the rows whose label is true, and leave the column out"
    key = next((key for key, names in BESIDE.items() if name in names), "")
    if shape.kind == "messages" and key in _OF_PAIRS:
        return "write it into the message that it belongs to"
    return f"{shape.columns[key]!r} is read as the {key}: say which one, data.columns.{key}" if key in shape.columns \
        else ""


def _nearly(name: str, shape: Shape) -> str:
    """Our name for a column that would be read as it, were it written so; empty where nothing would be lost."""
    plain = name.strip().casefold()
    keys = {"text": ("label", "score"), "messages": tuple(BESIDE), "pair": tuple(BESIDE)}.get(shape.kind, ())
    return next((key for key in keys if key not in shape.columns and plain in _NAMES_OF[key]), "")


def detect(names: Iterable[str], mapping: Mapping[str, str]) -> Shape:
    """The shape of a record with the columns `names`. Raises RowFault when they say nothing, or two things."""
    known = list(names)

    def find(key: str) -> str | None:
        if key in mapping:
            return mapping[key]
        found = [alias for alias in ALIASES[key] if alias in known]
        if key == "label" and (named := next((alias for alias in _NAMES if alias in found), None)):
            return named
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
            if "text" in columns and (pair := _second(columns["text"], known, mapping)):
                columns["pair"] = pair
            shape = Shape(kind, columns)
            return replace(shape, columns={**columns, **_beside(shape, known, mapping)})
    refused = next((REFUSED[name] for name in known if name in REFUSED), "")
    raise RowFault(f"no column that can be used among: {', '.join(map(repr, known[:12]))}",
                   (f"{refused}; or " if refused else "") + "name the columns in data.columns, such as prompt = 'their "
                   "name'; "
                   f"found without: {', '.join(alias for names in ALIASES.values() for alias in names)}")


def _beside(shape: Shape, names: Iterable[str], mapping: Mapping[str, str]) -> dict[str, str]:
    """The columns beside a conversation, ours → the file's; an empty name in `mapping` leaves one out."""
    if shape.kind not in ("messages", "pair"):
        return {}
    taken = {shape.columns.get(key) for key in ALIASES}
    free = [name for name in names if name not in taken]
    found = {key: mapping.get(key, next((alias for alias in aliases if alias in free), ""))
             for key, aliases in BESIDE.items() if shape.kind == "pair" or key not in _OF_PAIRS}
    return {key: name for key, name in found.items() if name}


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


def _route(record: Mapping[str, Any], column: str) -> str:
    """What says who teaches the row. Raises RowFault where it is no text and no whole number."""
    if column not in record:
        raise _missing(column, record)
    if not isinstance(record[column], (str, int)):
        raise RowFault(f"the column {column!r} holds {type(record[column]).__name__}, and data.route reads texts",
                       "write it as text, in quotes")
    return str(record[column])


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
