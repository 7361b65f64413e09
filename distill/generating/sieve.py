"""Which of the rows that a teacher wrote are kept, and why the others are not."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...runtime.data.documents.support import unsupported
from ...runtime.data.faults import RowFault, check_strings
from ...runtime.data.messages import compact_json
from ...runtime.data.near_duplicates import near_pairs
from ...runtime.data.reader import normalise
from ...runtime.data.row import Row
from ...runtime.data.shapes import Shaper
from ...runtime.metrics import Context, json_validity
from ..labelling.items import STAND_IN
from ..labelling.reply import BREAKS
from .calls import Call
from .wanted import Wanted, inputs_of

SEED, TEST, NEW = "a seed", "a test row", "another new row"
FAR = 4
"""Times as long as the longest seed, or as short as the shortest, at which a row is none of their kind."""
_LETTERS = 0.2
"""The share of letters of a script that no seed or document has, above which a row is in another language."""
_MARKS = re.compile(r"<[|｜][^<>|｜\n]{1,40}[|｜]>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|\{\{[^{}\n]{0,80}\}\}|"
                    r"\[(?:your|insert|name|company|date|placeholder)\b[^\]\n]{0,40}\]", re.IGNORECASE)
"""What chat templates and forms that were not filled in leave in a text."""
_OF_THE_PASSAGE = re.compile(r"\b(?:the|this|given|provided|above) (?:passage|excerpt|text)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Candidate:
    """A row that the teacher wrote."""

    record: dict[str, Any]
    call: Call
    reason: str = ""
    """Why it is left out; empty where it is kept."""
    repeats: bool = False
    """Whether it is left out because another says the same, or almost."""


class Sieve:
    """Judges rows in the order in which they come, and remembers those that it kept."""

    def __init__(self, wanted: Wanted) -> None:
        """UsageError for a schema that is none."""
        schema = wanted.schema
        self._wanted = wanted
        self._validator = json_validity.check((), Context(schema=dict(schema))) if schema is not None else None
        self._known = {key: source for rows, source in ((wanted.seeds, SEED), (wanted.test, TEST))
                       for row in rows for key in inputs_of(row)}
        given = [*(text for row in wanted.seeds for text in (row.question, row.answer)),
                 *(passage.text for passage in wanted.passages)]
        self._scripts = set(map(_script, set("".join(map(_letters, given)))))
        self._marked = any(map(_MARKS.search, given))
        self._lengths = sorted(len(row.question) for row in wanted.seeds)
        self._longest = FAR * max((len(row.answer) for row in wanted.seeds), default=0)

    def judged(self, written: Sequence[tuple[Call, Any]]) -> list[Candidate]:
        """Rows of replies, each with its reason for being left out, where there is one."""
        found = [self._read(call, value) for call, value in written]
        repeats = self._repeats([normalise(_input(one)) if not one.reason else "" for one in found])
        return [Candidate(one.record, one.call, reason, True) if reason else one
                for one, reason in zip(found, repeats, strict=True)]

    def _read(self, call: Call, value: Any) -> Candidate:
        record: dict[str, Any] = value if isinstance(value, dict) else {"row": value}
        try:
            check_strings(record)
            record = self._record(call, record)
            row = Shaper({}, {}, set()).row(
                {**record, "completion": record.get("completion", STAND_IN)} if "prompt" in record else record, "")
        except RowFault as fault:
            return Candidate(record, call, fault.reason)
        return Candidate(record, call, next(self._faults(call, row), ""))

    def _record(self, call: Call, value: Mapping[str, Any]) -> dict[str, Any]:
        """The row as it is written. RowFault where the teacher wrote something else."""
        wanted = self._wanted
        fields = ["text"] if wanted.labels else ["prompt", "completion"][:1 + wanted.answers]
        found = {name: value.get(name) for name in fields}
        if self._validator is not None and wanted.answers:
            if not self._validator.is_valid(found["completion"]):
                raise RowFault(BREAKS, "")
            found["completion"] = compact_json(found["completion"])
        if not all(isinstance(text, str) and text.strip() for text in found.values()):
            raise RowFault("a text that is empty or missing", "")
        found = {name: text.strip() for name, text in found.items() if isinstance(text, str)}
        return {**found, **({"label": call.label} if call.label and wanted.answers else {}),
                **(call.passage.source() if call.passage else {})}

    def _faults(self, call: Call, row: Row) -> Iterator[str]:
        """What is wrong with a row by itself."""
        said = f"{row.question} {row.answer if row.messages else ''}"
        letters = _letters(said)
        foreign = set(map(_script, set(letters))) - self._scripts
        if self._scripts and sum(letter in foreign for letter in map(_script, letters)) > _LETTERS * len(letters):
            yield "another script than the seeds and documents"
        if not self._marked and _MARKS.search(said):
            yield "marks of a template"
        if call.passage is not None:
            if normalise(row.question) in normalise(row.answer):
                yield "an answer that repeats its question"
            if _OF_THE_PASSAGE.search(row.question):
                yield "speaks of the text that its reader does not see"
            if reason := unsupported(call.passage.text, row.question, row.answer):
                yield reason
        elif not self._lengths[0] <= FAR * len(row.question) <= FAR * FAR * self._lengths[-1]:
            yield "far longer or shorter than any seed"
        elif self._longest and len(row.answer) > self._longest and row.messages:
            yield "an answer far longer than any seed's"

    def _repeats(self, keys: Sequence[str]) -> list[str]:
        """For each key what it repeats; empty where nothing is, and those keys are remembered. Empty keys are left."""
        fresh: dict[str, None] = {}
        reasons = []
        for key in keys:
            other = self._known.get(key, NEW if key in fresh else "")
            reasons.append(f"repeats {other}" if key and other else "")
            if key and not other:
                fresh[key] = None
        texts = [*self._known, *fresh]
        near: dict[str, list[str]] = {}
        for first, second, _ in near_pairs(texts):
            near.setdefault(texts[second], []).append(texts[first])
        for place, key in enumerate(keys):
            if key and not reasons[place]:
                like = next((self._known[other] for other in near.get(key, ()) if other in self._known), "")
                if like:
                    reasons[place] = f"nearly repeats {like}"
                else:
                    self._known[key] = NEW
        return reasons


def _input(candidate: Candidate) -> str:
    return str(candidate.record["text" if "text" in candidate.record else "prompt"])


def _letters(text: str) -> str:
    return "".join(filter(str.isalpha, unicodedata.normalize("NFKC", text)))


def _script(letter: str) -> str:
    """The first word of its name, such as LATIN, CYRILLIC, CJK."""
    return unicodedata.name(letter, "").partition(" ")[0]

