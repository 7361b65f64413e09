"""What came of a labelling: rows, votes, what was left out, and the numbers, with no word that the teacher alone sees.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...models import files
from ...models.errors import EdgestillError
from .endpoint import Takes
from .items import Item
from .ledger import Ledger
from .prices import Price
from .prompt import digest
from .settings import Settings


@dataclass(frozen=True)
class Agreement:
    """How often the teacher says the same, from 0 to 1."""

    rows: int
    with_rows: float | None
    """As the rows' own answers; None where no row has one."""
    with_itself: float
    """As it said before: the mean over rows of the share of pairs of votes."""


@dataclass(frozen=True)
class Vote:
    """How a row was answered."""

    line: int
    votes: int
    agreeing: int
    logprob: float | None
    """Of the answer that was taken, where the endpoint gives it."""


@dataclass(frozen=True)
class LeftOut:
    """A row without an answer."""

    line: int
    reason: str


@dataclass(frozen=True)
class Spent:
    """Whom all runs with one ledger asked, and what it came to. What the teacher alone sees stands in it as SHA-256."""

    model: str
    endpoint: str
    system: str | None
    calls: dict[str, int]
    """By what came of them: answered, unusable, failed."""
    in_flight: int
    """Calls that were in flight when an earlier run ended: paid for, perhaps, and made again."""
    unusable: dict[str, int]
    """Replies by the reason why they could not be used."""
    tokens_read: int
    tokens_written: int
    cost: float | None
    """US dollars; None where no price is known."""
    price: str | None
    takes: dict[str, bool]
    """What the endpoint was found to take."""

    def to_json(self) -> dict[str, Any]:
        """A dictionary of JSON types."""
        return asdict(self)

    def spent_lines(self) -> list[str]:
        """Calls, tokens and money, for a terminal."""
        calls = ", ".join(f"{count} {name}" for name, count in sorted(self.calls.items()))
        cost = "" if self.cost is None else f", {self.cost:.4f} US dollars ({self.price})"
        return [f"calls: {calls or 'none'}, and {self.in_flight} were in flight when an earlier run ended",
                *(f"  {count} replies not used: {reason}" for reason, count in sorted(self.unusable.items())),
                f"tokens: {self.tokens_read:,} read and {self.tokens_written:,} written{cost}"]


def spent(settings: Settings, ledger: Ledger, takes: Takes, price: Price | None) -> dict[str, Any]:
    """The fields of Spent."""
    return {
        "model": settings.model, "endpoint": digest(settings.url.rstrip("/")),
        "system": digest(settings.system) if settings.system else None, "calls": dict(ledger.calls),
        "in_flight": ledger.lost,
        "unusable": dict(Counter(entry["reason"] for found in ledger.unusable.values() for entry in found)),
        "tokens_read": ledger.read, "tokens_written": ledger.written, "cost": float(ledger.cost) if price else None,
        "price": price.source if price else None, "takes": asdict(takes)}


@dataclass(frozen=True)
class Report(Spent):
    """The numbers of a labelling."""

    examples: str | None
    private: str | None
    rows: int
    own: int
    """Rows that had an answer."""
    labelled: int
    left_out: dict[str, int]
    agreement: Agreement | None

    @classmethod
    def of(cls, settings: Settings, items: Sequence[Item], ledger: Ledger, takes: Takes, agreement: Agreement | None,
           price: Price | None, left_out: Sequence[LeftOut]) -> Report:
        """The numbers of all runs with one ledger."""
        own = sum(bool(item.answer) for item in items)
        examples = [[row.question, row.answer] for row in settings.examples]
        private = [dict(item.private) for item in items if item.private]
        return cls(
            examples=digest(examples) if examples else None, private=digest(private) if private else None,
            rows=len(items), own=own, labelled=len(items) - (0 if settings.all else own) - len(left_out),
            left_out=dict(Counter(one.reason for one in left_out)), agreement=agreement,
            **spent(settings, ledger, takes, price))

    def lines(self) -> list[str]:
        """The report for a terminal."""
        found = [f"rows: {self.rows}, of which {self.own} had an answer, {self.labelled} were labelled and "
                 f"{sum(self.left_out.values())} left out"]
        found += [f"  {count} {reason}" for reason, count in sorted(self.left_out.items())]
        found += self.spent_lines()
        if self.agreement is not None:
            own = self.agreement.with_rows
            told = "not known, none has one that it was not shown" if own is None else f"{100 * own:.1f} %"
            found.append(f"agreement of the teacher over {self.agreement.rows} rows: with the rows' own answers "
                         f"{told}, with itself {100 * self.agreement.with_itself:.1f} %")
        return found


@dataclass(frozen=True)
class Labelled:
    """What came of a labelling."""

    rows: list[dict[str, Any]]
    """In the order of the file; those that had an answer have it still."""
    votes: list[Vote]
    left_out: list[LeftOut]
    report: Report
    stopped: EdgestillError | None
    """Why it ended before all rows were asked."""

    def write(self, out: Path, source: Path) -> list[Path]:
        """Write the rows, and beside them the votes, the rows that were left out and the report."""
        beside = {"votes": map(asdict, self.votes), "left-out": ({"file": source.name, **asdict(one)}
                                                                 for one in self.left_out)}
        written = []
        for name, records in beside.items():
            path = out.with_suffix(f".{name}.jsonl")
            if content := json_lines(records):
                files.write_text(path, content)
                written.append(path)
            else:
                path.unlink(missing_ok=True)
        files.write_json(out.with_suffix(".report.json"), self.report.to_json())
        files.write_text(out, json_lines(self.rows))  # the last: where it stands, all of them do
        return [out, *written, out.with_suffix(".report.json")]


def json_lines(records: Iterable[Mapping[str, Any]]) -> str:
    """Records as JSON lines, characters as they are."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
