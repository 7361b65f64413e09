"""What a log said, and what became of it: the numbers that `edgestill data logs` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..personal import KINDS, kinds_in
from ..reader import normalise, row_key
from .common import Call, Common
from .conversation import spoken
from .log import Log

PLACES = 3
"""Named for each reason."""


@dataclass(frozen=True)
class LogReport:
    """Numbers of a log and of the rows made of it."""

    records: int
    rows: int
    joined: int
    left_out: dict[str, int]
    """Reason → records; with `rows` and `joined` they make `records`."""
    places: dict[str, list[str]]
    """Where the first of them stand."""
    kinds: dict[str, int]
    tokens_in: int
    tokens_out: int
    metered: int
    cost_usd: float | None
    priced: int
    calling: int
    """Rows whose answer calls tools."""
    repeated: int
    """Rows whose question stands in an earlier row, with the same answer."""
    contradicted: int
    """Questions that were answered in different ways."""
    systems: int
    schemas: int
    labels: int
    unseen_labels: tuple[str, ...]
    names: int
    personal: dict[str, int]
    personal_rows: int

    def to_json(self) -> dict[str, Any]:
        """A dictionary of JSON types."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The report for a terminal."""
        kinds = ", ".join(f"{name} {count}" for name, count in sorted(self.kinds.items()))
        found = [f"{self.records} records ({kinds}): {self.rows} rows"
                 + (f", {self.joined} requests joined to their answers" if self.joined else "")
                 + f", {sum(self.left_out.values())} left out"]
        for reason, count in sorted(self.left_out.items(), key=lambda item: (-item[1], item[0])):
            found.append(f"  {count} {reason}: {', '.join(self.places[reason])}{' …' if count > PLACES else ''}")
        found.append(f"tokens: {self.tokens_in:,} read and {self.tokens_out:,} written, as {self.metered} calls say"
                     if self.metered else "tokens: the log does not say")
        found.append(f"cost: {self.cost_usd:.2f} US dollars, as {self.priced} calls say" if self.cost_usd is not None
                     else "cost: the log does not say")
        found.append(f"questions: {self.contradicted} answered in different ways, {self.repeated} rows repeat an "
                     "earlier question and its answer")
        found += [f"tools: {self.calling} answers call some"] if self.calling else []
        found += [f"system prompts: {self.systems} different ones stay in the rows"] if self.systems > 1 else []
        found += [f"response formats: {self.schemas} different ones, and a task has one: none is written down"] * (
            self.schemas > 1)
        if self.labels:
            found.append(f"labels: {self.labels}, and never answered: {', '.join(self.unseen_labels) or 'none'}; a "
                         "classifier reads the last message alone, so no system prompt is written down")
        found += [f"left out of the rows: {self.names} names of participants"] if self.names else []
        counts = [f"{count} {kind}" for kind, count in self.personal.items() if count]
        return [*found, f"personal data: {', '.join(counts) or 'none found'}"
                + (f" in {self.personal_rows} rows; they stay as they are" if counts else "")]


def report(log: Log, found: Common, labels: bool) -> LogReport:
    """Count what is in a log; `labels`: whether texts and labels are made of it."""
    personal, personal_rows = _personal(log.calls)
    repeated, contradicted = _same_questions(log.calls)
    return LogReport(
        records=log.records, rows=len(log.calls), joined=log.joined,
        left_out={reason: len(places) for reason, places in log.left_out.items()},
        places={reason: [str(place) for place in places[:PLACES]] for reason, places in log.left_out.items()},
        kinds=dict(log.kinds), tokens_in=log.tokens[0], tokens_out=log.tokens[1], metered=log.metered,
        cost_usd=log.cost if log.priced else None, priced=log.priced,
        calling=sum(bool(call.row.messages[-1].get("tool_calls")) for call in log.calls),
        repeated=repeated, contradicted=contradicted, systems=found.systems, schemas=found.schemas,
        labels=len(found.labels) if labels else 0, unseen_labels=found.unseen if labels else (), names=log.names,
        personal=personal, personal_rows=personal_rows)


def _same_questions(calls: Sequence[Call]) -> tuple[int, int]:
    """Rows that say what an earlier one says, and questions with several answers, compared as `data check` does."""
    answers: dict[str, Counter[str]] = {}
    for call in calls:
        answers.setdefault(row_key(call.row), Counter())[normalise(call.row.answer)] += 1
    return (sum(found.total() - len(found) for found in answers.values()),
            sum(len(found) > 1 for found in answers.values()))


def _personal(calls: Sequence[Call]) -> tuple[dict[str, int], int]:
    total = Counter(dict.fromkeys(KINDS, 0))
    rows = 0
    for call in calls:
        found = Counter(kinds_in(spoken(call.row.messages)))
        total.update(found)
        rows += bool(found)
    return dict(total), rows
