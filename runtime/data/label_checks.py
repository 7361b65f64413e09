"""What can be wrong with labels: all the same, rare, in no training row, one of them spelt in several ways."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Mapping, Sequence

from .faults import EXAMPLES, Finding
from .reader import normalise
from .row import Row
from .targets import one_answer

THIN_LABEL = 5
"""Fewer training rows than this for one label are reported."""
RARE_SHARE = 0.02
"""So is a label with less than this share of the rows of the most frequent label."""


def label_findings(rows: Sequence[Row], labels: Mapping[str, Mapping[str, int]]) -> list[Finding]:
    """What is wrong with the labels of the training rows `rows`, and of other splits; `labels` are their counts."""
    train = labels.get("train", {})
    if not train:
        return []
    findings = []
    alike = one_answer(rows)
    if alike:
        findings.append(Finding("error", "one_label", "train", f"every row has the same label, {alike}"))
    spellings: dict[str, list[str]] = defaultdict(list)
    for label in train:
        spellings[normalise(label)].append(label)
    twins = [" and ".join(map(repr, found)) for found in spellings.values() if len(found) > 1]
    if twins:
        findings.append(Finding("warning", "label_spelling", "train", f"{len(twins)} labels are written in several "
                                "ways, which are learned as different ones", twins[:EXAMPLES]))
    largest = max(train.values())
    rare = [label for label, count in train.items() if count < max(THIN_LABEL, RARE_SHARE * largest)]
    if rare:
        findings.append(Finding("warning", "label_balance", "train",
                                f"{len(rare)} of {len(train)} labels are rare (the most frequent has {largest} rows)",
                                [f"{label}: {train[label]}" for label in rare[-EXAMPLES:]]))
    for name, found in labels.items():
        unknown = [label for label in found if label not in train]
        if unknown:
            near = {label: difflib.get_close_matches(label, train, n=1) for label in unknown[:EXAMPLES]}
            findings.append(Finding("error", "unknown_labels", name, f"{len(unknown)} labels stand in no training row",
                                    [f"{label}: did you mean {match[0]!r}?" if match else label
                                     for label, match in near.items()]))
    return findings
