"""Rows as a classifier's head answers them: what is the same in another form is rewritten, what is not is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...models.errors import UsageError
from ...models.outputs import SIGMOID, SOFTMAX
from ..data.shapes import Row
from ..encoders.head import Head

_GIVES = {SOFTMAX: "chooses one label", SIGMOID: "gives any number of labels"}


def fit(rows: Sequence[Row], head: Head) -> list[Row]:
    """The rows as `head` answers them: one label is a list of one where any number is given, and the number that it
    writes where scores are. Rows without a target stay as they are.

    Raises UsageError for a row that asks for what the head does not give.
    """
    return [_fit(row, head) for row in rows]


def _fit(row: Row, head: Head) -> Row:
    if row.kind in ("chat", "text"):
        return row
    if head.kind == SIGMOID and row.kind == "label":
        return replace(row, label="", labels=(row.label,))
    if head.scores and row.kind == "label" and len(head.labels) == 1 and (number := _number(row.label)) is not None:
        return replace(row, label="", score=number)
    wanted = {SOFTMAX: "label", SIGMOID: "labels"}.get(head.kind, "score")
    if row.kind != wanted or (head.scores and len(head.labels) != 1):
        gives = _GIVES.get(head.kind, f"gives {len(head.labels)} score{'s' * (len(head.labels) > 1)} a text")
        holds = {"label": f"the label {row.label!r}", "labels": "a list of labels", "score": "a score"}[row.kind]
        raise UsageError(f"{row.where or 'a row'} holds {holds}, and the model {gives} (its head is {head.kind})",
                         "give rows that hold what the model answers, or say in [task] head what its outputs mean")
    return row


def _number(label: str) -> float | None:
    try:
        return float(label)
    except ValueError:
        return None
