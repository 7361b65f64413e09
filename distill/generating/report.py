"""What came of new rows: the rows, what was left out, and the numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...models import files
from ...models.errors import EdgestillError
from ..labelling.endpoint import Takes
from ..labelling.ledger import Ledger
from ..labelling.prices import Price
from ..labelling.report import Spent, json_lines, spent
from ..labelling.settings import Settings
from .wanted import Wanted


@dataclass(frozen=True)
class Report(Spent):
    """The numbers of new rows."""

    wanted: int
    written: int
    """Rows in the replies that could be used."""
    kept: int
    left_out: dict[str, int]
    """Rows by the reason why they are not kept."""
    duplicates: int
    """Of these, those that say what another row says, or almost."""
    calls_left_out: dict[str, int]
    """Calls without a reply that could be used."""
    labels: dict[str, int]
    documents: dict[str, int]
    """Rows by the document that they are from."""

    def lines(self) -> list[str]:
        """The report for a terminal."""
        found = [f"new rows: {self.kept} of {self.wanted} that were wanted, out of {self.written} that the teacher "
                 f"wrote; {self.duplicates} of these repeat others"]
        found += [f"  {count} left out: {reason}" for reason, count in sorted(self.left_out.items())]
        found += [f"  {count} calls left out: {reason}" for reason, count in sorted(self.calls_left_out.items())]
        for name, counts in (("labels", self.labels), ("documents", self.documents)):
            if counts:
                found.append(f"{name}: " + ", ".join(f"{count} {key}" for key, count in counts.items()))
        return [*found, *self.spent_lines()]


def report_of(settings: Settings, ledger: Ledger, takes: Takes, price: Price | None, wanted: Wanted,
              rows: Sequence[Mapping[str, Any]], left_out: Sequence[Mapping[str, Any]], duplicates: int,
              calls: Mapping[str, int]) -> Report:
    """The numbers of all runs with one ledger; of rows, those that this one read from it."""
    labels = Counter({label: 0 for label in wanted.labels if any("label" in row for row in rows)})
    labels.update(row["label"] for row in rows if "label" in row)
    return Report(
        wanted=wanted.rows, written=len(rows) + len(left_out), kept=len(rows),
        left_out=dict(Counter(one["reason"] for one in left_out)), duplicates=duplicates, calls_left_out=dict(calls),
        labels=dict(labels), documents=dict(Counter(row["document"] for row in rows if "document" in row)),
        **spent(settings, ledger, takes, price))


@dataclass(frozen=True)
class Generated:
    """What came of new rows."""

    rows: list[dict[str, Any]]
    left_out: list[dict[str, Any]]
    """Each with its call, its reason and, where one was written, the row."""
    report: Report
    stopped: EdgestillError | None
    """Why it ended before there were enough."""

    def write(self, out: Path) -> list[Path]:
        """Write the rows, where there are any, and beside them what was left out and the report."""
        left_out, report = out.with_suffix(".left-out.jsonl"), out.with_suffix(".report.json")
        if self.left_out:
            files.write_text(left_out, json_lines(self.left_out))
        else:
            left_out.unlink(missing_ok=True)
        files.write_json(report, self.report.to_json())
        if self.rows:
            files.write_text(out, json_lines(self.rows))  # the last: where it stands, all of them do
        return [*[out] * bool(self.rows), *[left_out] * bool(self.left_out), report]
