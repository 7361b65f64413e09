"""What new rows are to be like, and whether seeds are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...models.errors import DataError, UsageError
from ...runtime.data.documents.passages import Passage
from ...runtime.data.reader import normalise
from ...runtime.data.row import Row


@dataclass(frozen=True)
class Wanted:
    """New rows."""

    rows: int
    seeds: Sequence[Row] = ()
    """Rows that they are to be like."""
    passages: Sequence[Passage] = ()
    """What they are to ask about and to be answered from; empty: whatever the seeds are about."""
    test: Sequence[Row] = ()
    """Rows that no new one may be like."""
    labels: Sequence[str] = ()
    """Each row is a text with one of these, all as often as the others; empty: a prompt and its completion."""
    schema: Mapping[str, Any] | None = None
    """Completions are JSON that satisfies this JSON schema."""
    answers: bool = True
    """Or else inputs alone."""
    per_call: int = 5
    """Rows that the teacher is asked for at a time."""
    shown: int = 6
    """Seeds that it is shown each time, at most."""
    seed: int = 0
    """Of the draw of seeds and passages."""

    def check(self) -> None:
        """UsageError for a combination that cannot be, DataError for a seed that cannot be shown or that stands in the
        test rows."""
        if not (self.seeds or self.passages):
            raise UsageError("no seeds and no documents", "give a file with a few rows of yours, or --document FILE")
        if self.passages and (self.labels or self.schema is not None or not self.answers):
            raise UsageError("documents give questions with answers in words that are held to the document",
                             "leave labels, --schema and --inputs-only out, or the documents")
        if self.labels and self.rows < len(self.labels):
            raise UsageError(f"--rows {self.rows}: fewer than the {len(self.labels)} labels", "ask for more rows")
        held = {key for row in self.test for key in inputs_of(row)}
        for row in self.seeds:
            if fault := next(self._faults(row), ""):
                raise DataError(f"{row.where}: {fault}", "change it, or leave it out of the seeds")
            if held & set(inputs_of(row)):
                raise DataError(f"{row.where}: this seed stands in the test rows, too: new rows would be like it",
                                "take seeds that are no test rows")

    def _faults(self, row: Row) -> Iterator[str]:
        """Why a row cannot be a seed."""
        if self.labels:
            if row.kind not in ("label", "text") or row.pair:
                yield f"a {row.kind} row among seeds of labelled texts"
            if row.label and row.label not in self.labels:
                yield f"the label {row.label!r} is none of the labels"
        elif row.kind == "text" and not self.answers and not row.pair:
            return
        elif row.kind != "chat":
            yield "no question with its answer: new rows are these, or texts with one label each"
        elif [message["role"] for message in row.messages] != ["user", "assistant"] or row.tools:
            yield "more than a question and its answer: a system message belongs into --task, tools are not generated"


def inputs_of(row: Row) -> list[str]:
    """What is asked in a row, normalised: every message of the user's, or the text."""
    said = [str(message["content"]) for message in row.messages if message["role"] == "user"]
    return [normalise(text) for text in said or [f"{row.text} {row.pair}"]]
