"""What can be wrong with rows that read well: duplicates, leakage, balance, lengths.

`check_data` looks at the files of a [data] table, `check_splits` at rows that are read already. The result is
numbers and findings; a finding is an error where a figure measured on these rows would be false.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...models.errors import DataError
from ...models.runfile import Data
from .faults import EXAMPLES, BadRow, Finding
from .label_checks import label_findings
from .near_duplicates import near_pairs
from .reader import SPLITS, Row, check_seen, locate, normalise, optional, row_key, scan
from .token_checks import Counted, count

if TYPE_CHECKING:
    from ..text.codec import Codec


@dataclass(frozen=True)
class SplitReport:
    """The numbers of one split."""

    rows: int
    kind: str
    bad_rows: int
    characters: dict[str, float]
    """p50, p95, max of the whole row."""
    tokens: dict[str, float]
    """p50, p95, max and over_limit; empty without a codec."""
    exact_duplicates: int
    """Rows whose normalised input an earlier row has."""
    near_duplicates: int
    """Pairs of different inputs that share at least 80 % of their 5-grams."""
    empty_rows: int
    labels: dict[str, int]
    """Rows of each label, most frequent first; classify only."""


@dataclass(frozen=True)
class DataReport:
    """What a check of data found."""

    splits: dict[str, SplitReport]
    findings: list[Finding]

    @property
    def failed(self) -> bool:
        """Whether any finding is an error."""
        return any(finding.level == "error" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """A dictionary of JSON types."""
        return asdict(self) | {"failed": self.failed}

    def lines(self) -> list[str]:
        """The report for a terminal."""
        lines = []
        for name, split in self.splits.items():
            lines.append(f"{name}: {split.rows} {split.kind} rows, {split.bad_rows} bad, {split.empty_rows} empty, "
                         f"{split.exact_duplicates} exact and {split.near_duplicates} near duplicates"
                         + (f", {len(split.labels)} labels" if split.labels else ""))
            for unit, numbers in (("characters", split.characters), ("tokens", split.tokens)):
                if numbers:
                    lines.append(f"  {unit}: " + ", ".join(f"{key} {value:g}" for key, value in numbers.items()))
        for finding in self.findings:
            lines.append(f"{finding.level}: {finding.split}: {finding.message}")
            lines += [f"  {example}" for example in finding.examples]
        return lines or ["no rows"]


def check_data(data: Data, base: Path, codec_of: Callable[[Sequence[Row]], Codec | None] = lambda rows: None,
               ) -> DataReport:
    """Read and check the files of a run file's [data] table; bad rows become findings instead of errors. `codec_of`
    gives the tokenizer for the training rows.

    Shares of the training rows are not made here: their rows are checked as training rows. Raises DataError only for
    what keeps a whole file from being read, or leaves no row in it.
    """
    splits: dict[str, list[Row]] = {}
    bad, unread = dict[str, list[BadRow]](), dict[str, dict[str, None]]()
    unseen = optional(data.columns)
    for name in SPLITS:
        if getattr(data, name):
            unread[name] = {}
            source = locate(getattr(data, name), base / data.dir)
            found = list(scan(source, data.columns, unread[name], unseen, data.route, data.private))
            splits[name] = [row for row in found if isinstance(row, Row)]
            bad[name] = [row for row in found if isinstance(row, BadRow)]
            if not splits[name]:
                raise bad[name][0].error() if bad[name] else DataError(
                    f"{getattr(data, name)}: the file is empty: there are no rows in it", "give a file with rows")
    check_seen(data.columns, unseen)
    report = check_splits(splits, codec_of(splits.get("train", [])), data.max_tokens, bad, data.learn)
    notes = [Finding("note", "unread", name, f"columns that are not read: {', '.join(columns)}")
             for name, columns in unread.items() if columns]
    return DataReport(report.splits, [*report.findings, *notes])


def check_splits(splits: Mapping[str, Sequence[Row]], codec: Codec | None = None, max_tokens: int = 0,
                 bad: Mapping[str, Sequence[BadRow]] | None = None, learn: str = "all") -> DataReport:
    """Check rows that are read already; `splits` maps "train", "validation", "test" to rows.

    With a `codec` the tokens of every row are counted, with `max_tokens` above 0 those over it, and it is proved that
    every part of a conversation reaches the ids.
    """
    findings: list[Finding] = []
    keys = {name: [row_key(row) for row in rows] for name, rows in splits.items()}
    near = _near_by_split(keys)
    reports = {}
    for name, rows in splits.items():
        faults = list((bad or {}).get(name, ()))
        counted = count(rows, codec, max_tokens, learn) if codec else Counted()
        labels = dict(Counter(name for row in rows for name in row.named).most_common())
        empty = [row for row in rows if not row.question.strip() or (row.turns and not row.answer.strip())]
        kinds = sorted({row.kind for row in rows})
        reports[name] = SplitReport(
            rows=len(rows), kind="+".join(kinds), bad_rows=len(faults), characters=_quantiles(list(map(_length, rows))),
            tokens=_tokens(counted, max_tokens), exact_duplicates=len(rows) - len(set(keys[name])),
            near_duplicates=len(near[name, name]),
            empty_rows=len(empty), labels=labels)
        findings += _bad_findings(name, faults, len(rows))
        if len(kinds) > 1:
            findings.append(Finding("error", "mixed_kinds", name, f"rows of mixed kinds: {' and '.join(kinds)}"))
        findings += _named("error", "empty", name, "rows have an empty question or answer", empty)
        findings += _token_findings(name, counted, max_tokens)
        findings += _duplicate_findings(name, rows, keys[name], near[name, name])
    findings += _leak_findings(splits, keys, near)
    findings += label_findings(splits.get("train", ()), {name: report.labels for name, report in reports.items()})
    return DataReport(reports, findings)


Near = dict[tuple[str, str], list[tuple[str, str, float]]]


def _near_by_split(keys: Mapping[str, Sequence[str]]) -> Near:
    """Pairs of near-duplicate keys (key in the first split, key in the second), by pair of splits."""
    owner: dict[str, set[str]] = defaultdict(set)
    for name, found in keys.items():
        for key in found:
            owner[key].add(name)
    texts = [key for key in owner if key]
    near: Near = defaultdict(list)
    for i, j, similarity in near_pairs(texts):
        for first in owner[texts[i]]:
            for second in owner[texts[j]]:
                near[first, second].append((texts[i], texts[j], similarity))
                if first != second:
                    near[second, first].append((texts[j], texts[i], similarity))
    return near


def _quantiles(values: Sequence[int]) -> dict[str, float]:
    if not values:
        return {}
    p50, p95 = np.quantile(values, [0.5, 0.95])
    return {"p50": float(p50), "p95": float(p95), "max": float(max(values))}


def _length(row: Row) -> int:
    return len(row.text) + sum(len(str(message["content"])) for message in row.messages)


def _tokens(counted: Counted, limit: int) -> dict[str, float]:
    over = {"over_limit": float(len(counted.long))} if limit and counted.tokens else {}
    return _quantiles(counted.tokens) | over


def _token_findings(name: str, counted: Counted, limit: int) -> list[Finding]:
    reasons: dict[str, list[str]] = defaultdict(list)
    for lost in counted.lost:
        place, _, reason = lost.partition(": ")
        reasons[reason].append(place)
    findings = [Finding("error", "lost", name, f"{len(places)} rows cannot be learned: {reason}", places[:EXAMPLES])
                for reason, places in reasons.items()]
    return [*findings, *_named("warning", "unlearned", name, "rows have nothing to learn (weight 0)", counted.silent),
            *_named("warning", "over_long", name, f"rows are longer than {limit} tokens and would be left out of "
                    "training", counted.long)]


def _named(level: str, check: str, split: str, what: str, rows: Sequence[Row]) -> list[Finding]:
    if not rows:
        return []
    return [Finding(level, check, split, f"{len(rows)} {what}", [row.where for row in rows[:EXAMPLES]])]


def _bad_findings(name: str, faults: Sequence[BadRow], good: int) -> list[Finding]:
    by_reason: dict[str, list[BadRow]] = defaultdict(list)
    for fault in faults:
        by_reason[re.sub(r"\d+", "0", fault.reason)].append(fault)  # one finding, whatever the byte or column
    return [Finding("error", "bad_rows", name, f"{len(found)} of {good + len(faults)} rows are bad: {found[0].reason} "
                    f"(remedy: {found[0].remedy})", [f"{fault.file}:{fault.line}" for fault in found[:EXAMPLES]])
            for found in by_reason.values()]


def _duplicate_findings(name: str, rows: Sequence[Row], keys: Sequence[str],
                        near: Sequence[tuple[str, str, float]]) -> list[Finding]:
    groups: dict[str, list[Row]] = defaultdict(list)
    for row, key in zip(rows, keys, strict=True):
        groups[key].append(row)
    repeated = [group for group in groups.values() if len(group) > 1]
    findings = []
    if repeated:
        extra = sum(len(group) - 1 for group in repeated)
        findings.append(Finding("warning", "duplicates", name, f"{extra} rows repeat the input of an earlier row",
                                [_both(group[0], group[1]) for group in repeated[:EXAMPLES]]))
    split = [group for group in repeated if len({normalise(row.answer) for row in group}) > 1]
    if split:
        pairs = [(group[0], next(row for row in group if row.answer != group[0].answer)) for group in split[:EXAMPLES]]
        examples = [f"{_both(a, b)}: {a.answer[:60]!r} and {b.answer[:60]!r}" for a, b in pairs]
        findings.append(Finding("warning", "contradictions", name,
                                f"{len(split)} inputs stand more than once with different answers", examples))
    if near:
        findings.append(Finding("warning", "near_duplicates", name, f"{len(near)} pairs of inputs are almost the same",
                                [f"{groups[a][0].where} and {groups[b][0].where}: {s:.0%} of {a[:60]!r}"
                                 for a, b, s in near[:EXAMPLES]]))
    return findings


def _both(first: Row, second: Row) -> str:
    return f"{first.where} and {second.where}"


def _leak_findings(splits: Mapping[str, Sequence[Row]], keys: Mapping[str, Sequence[str]],
                   near: Near) -> list[Finding]:
    """Rows of a later split whose input an earlier split holds: what is measured on them is memory."""
    findings = []
    names = list(splits)
    for position, later in enumerate(names):
        for earlier in names[:position]:
            known = {key: row.where for row, key in zip(splits[earlier], keys[earlier], strict=True)}
            leaked = [(row, key) for row, key in zip(splits[later], keys[later], strict=True) if key in known]
            if leaked:
                findings.append(Finding(
                    "error", "leakage_exact", later,
                    f"{len(leaked)} of {len(splits[later])} rows stand in {earlier} too",
                    [f"{row.where} is {known[key]}: {row.question[:60]!r}" for row, key in leaked[:EXAMPLES]]))
            found = {key: (other, similarity) for other, key, similarity in near[earlier, later]}
            close = [(row, *found[key]) for row, key in zip(splits[later], keys[later], strict=True)
                     if key in found and key not in known]
            if close:
                findings.append(Finding(
                    "warning", "leakage_near", later,
                    f"{len(close)} of {len(splits[later])} rows are almost the same as one in {earlier}",
                    [f"{row.where} is {similarity:.0%} of {known[other]}: {row.question[:60]!r}"
                     for row, other, similarity in close[:EXAMPLES]]))
    return findings
