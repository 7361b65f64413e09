"""What the teacher is asked, call by call: each draws its own seeds, or its passage, by its number alone.

A call depends on nothing that was answered before: it is the same in every run, and its answer is found in the ledger.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...runtime.data.documents.passages import Passage
from ...runtime.data.messages import compact_json
from ...runtime.data.row import Row
from ..labelling.items import STAND_IN, Item
from .wanted import Wanted

MORE = 3
"""Times as many calls as rows need where every one can be used, after which no more is asked."""


@dataclass(frozen=True)
class Call:
    """One question to the teacher."""

    item: Item
    number: int
    """From 0, among those of its lane: also the number of its vote, so that no two calls are the same."""
    label: str
    passage: Passage | None


class Lane:
    """The calls for one label, or for all rows where there are none."""

    def __init__(self, wanted: Wanted, label: str, rows: int) -> None:
        self.label, self.rows, self.kept, self.asked = label, rows, 0, 0
        self._wanted = wanted
        self._passages = list(wanted.passages)
        random.Random(wanted.seed).shuffle(self._passages)
        spread = -(-rows // len(self._passages)) if self._passages else wanted.per_call
        self.per_call = min(wanted.per_call, spread)

    @property
    def most(self) -> int:
        """Calls, at most."""
        return MORE * -(-self.rows // self.per_call)

    def due(self) -> list[Call]:
        """The calls that would bring what is missing, if every row can be used."""
        missing = max(0, -(-(self.rows - self.kept) // self.per_call))
        return [self._call(number) for number in range(self.asked, min(self.asked + missing, self.most))]

    def _call(self, number: int) -> Call:
        wanted, label = self._wanted, self.label
        passage = self._passages[number % len(self._passages)] if self._passages else None
        draw = random.Random(f"{wanted.seed}\0{label}\0{number}")
        parts = [_about(passage, self.per_call) if passage else _like_seeds(wanted, label, self.per_call),
                 _shown(_drawn(wanted, label, draw), passage is not None)]
        messages = ({"role": "user", "content": "\n\n".join(filter(None, parts))},
                    {"role": "assistant", "content": STAND_IN})
        where = f"call {number + 1}" + (f" for {label}" if label else f" about {passage.place}" if passage else "")
        return Call(Item({}, Row(messages=messages, where=where), "messages", number + 1), number, label, passage)


def lanes_of(wanted: Wanted) -> list[Lane]:
    """A lane for each label, with as many rows as the others, or one more."""
    labels = list(wanted.labels) or [""]
    each, more = divmod(wanted.rows, len(labels))
    return [Lane(wanted, label, each + (place < more)) for place, label in enumerate(labels)]


def reply_schema(wanted: Wanted) -> dict[str, Any]:
    """What a reply is to be."""
    text: dict[str, Any] = {"type": "string"}
    fields = {"text": text} if wanted.labels else {"prompt": text}
    if wanted.answers and not wanted.labels:
        # References inside a schema hold from its root: such a one is told in words, and each answer is held to it.
        nested = wanted.schema is not None and "$ref" not in str(wanted.schema)
        fields["completion"] = text if wanted.schema is None else dict(wanted.schema) if nested else {}
    row = {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}
    rows = {"type": "array", "items": row, "minItems": 1, "maxItems": wanted.per_call}
    return {"type": "object", "properties": {"rows": rows}, "required": ["rows"], "additionalProperties": False}


def _like_seeds(wanted: Wanted, label: str, count: int) -> str:
    what = "texts" if wanted.labels else "prompts, each with its completion," if wanted.answers else "prompts"
    lines = [f"Write {count} new {what} for a data set, as different people would write them.",
             "They are of the same kind as the examples, in the same language. Each is about something else than the "
             "examples and the other new ones, in other words, shorter or longer."]
    if label:
        lines.append(f"The label of every new text is {label!r}. All labels are: {', '.join(wanted.labels)}. Do not "
                     "write the label into the text.")
    if wanted.schema is not None and wanted.answers:
        lines.append(f"Every completion is JSON that satisfies this JSON schema: {compact_json(dict(wanted.schema))}")
    return "\n".join(lines)


def _about(passage: Passage, count: int) -> str:
    return (f"Write {count} questions (prompt) with their answers (completion) about the text between the lines below, "
            f"which is from {passage.place}. Each question can be understood by somebody who does not see the text, "
            "and does not mention it. Each answer follows from the text alone, and has numbers, names and quotations "
            f"as the text has them. Write in the language of the text.\n-----\n{passage.text.strip()}\n-----")


def _drawn(wanted: Wanted, label: str, draw: random.Random) -> list[Row]:
    """Seeds of the label first, and of others beside them, where there are labels; in a new order."""
    own = [row for row in wanted.seeds if not label or row.label == label]
    others = [row for row in wanted.seeds if label and row.label != label]
    found = draw.sample(own, min(len(own), wanted.shown - min(len(others), wanted.shown // 3)))
    found += draw.sample(others, min(len(others), wanted.shown - len(found)))
    return draw.sample(found, len(found))


def _shown(seeds: Sequence[Row], of_questions: bool) -> str:
    if not seeds:
        return ""
    head = "Examples of such questions, about other things:" if of_questions else "Examples:"
    texts = ["\n".join([f"{'text' if row.text else 'prompt'}: {row.question}",
                        *([f"{'label' if row.text else 'completion'}: {row.answer}"] if row.answer else [])])
             for row in seeds]
    return "\n\n".join([head, *texts])
