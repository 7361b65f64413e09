"""What a teacher is told beyond what its student reads: a system message, examples, a column of every row.

Nothing of it may stand in what a run writes: there its hash stands for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ...models import files
from ...models.errors import DataError, UsageError
from ...models.runfile import RunFile
from ...runtime.data.calls.common import SYSTEMS
from ...runtime.data.faults import BadRow
from ...runtime.data.messages import Message
from ...runtime.data.private import behind
from ...runtime.data.reader import scan
from ...runtime.data.row import Row

SUFFIXES = (".txt", ".md")
HASH = "sha256:"
"""What a written run file has instead of a text begins so."""
_PUT_BACK = "a run file that was written by a run holds hashes of it: put back what the first one says"


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What the teacher reads and the student does not; no artifact, log or report holds more of it than a hash."""

    system: str = ""
    """A system message for the teacher, or the text file with it (.txt, .md); a row's own stands behind it."""
    examples: int | str = 0
    """Rows with answers that are shown to the teacher as earlier turns: a data file, or how many are drawn from the
    training rows by distill.seed."""
    context: str = ""
    """A column of the rows that the teacher alone reads, such as a passage or a chain of thought; it stands, below its
    name, behind the row's first question."""


@dataclass(frozen=True)
class Told:
    """A prompt, read."""

    system: str
    examples: tuple[Message, ...]
    context: str

    @property
    def digest(self) -> str:
        """SHA-256 of what every row is asked with, in hex."""
        return _digest([self.system, self.examples, self.context])

    def key(self, splits: Mapping[str, Sequence[Row]]) -> str:
        """SHA-256 of that and of the rows' contexts, in hex: what the teacher's word depends on besides its weights and
        what the student reads."""
        told = [[dict(row.private).get(self.context, "") for row in splits[name]] for name in ("train", "validation")]
        return _digest([self.digest, told if self.context else ""])

    def row(self, row: Row) -> Row:
        """A row as the teacher is asked it: one system message, the examples, the row with its context. What is learned
        of it is the same.

        Raises UsageError for a plain text, which is no question, and for a row that was read without its context.
        """
        if not row.messages:
            raise UsageError(f"{row.where}: a plain text is no question that a teacher could be prompted with",
                             "leave system, examples and context out of [teacher], or give rows with a prompt")
        own = [message for message in row.messages[:1] if message["role"] in SYSTEMS]
        asked = list(row.messages[len(own):])
        said = "".join(str(message["content"]) for message in own)
        system = said if said.startswith(self.system) else "\n\n".join(filter(None, (self.system, said)))
        head: list[Message] = [{"role": "system", "content": system}] if system else []
        if self.context:
            if self.context not in dict(row.private):
                raise UsageError(f"{row.where}: was read without the column {self.context!r}, which the teacher reads",
                                 f"read the rows with [data] private = [{self.context!r}]")
            first = next(place for place, message in enumerate(asked) if message["role"] == "user")
            told = {self.context: dict(row.private)[self.context]}
            asked[first] = {**asked[first], "content": behind(str(asked[first]["content"]), told)}
        shown = [len(head) + place for place, message in enumerate(self.examples) if message["role"] == "assistant"]
        shift = len(head) + len(self.examples) - len(own)
        return replace(row, messages=(*head, *self.examples, *asked),
                       unlearned=(*shown, *(place + shift for place in row.unlearned)))


def check(config: Any, task: str, name: str = "teacher") -> None:
    """UsageError for a prompt that the kind of `task` has no place for, or that tuning would not see; `name` is the
    table's."""
    if not is_told(config):
        return
    if task != "generate":
        raise UsageError(f"{name}: system, examples and context are for decoders, and task.kind is {task!r}",
                         "leave them out of [teacher]")
    if getattr(config, "tune", False):
        raise UsageError(f"{name}.tune: the teacher would be tuned on rows without its system, examples and context",
                         "tune it before, with edgestill tune on rows that hold them, and name that folder in "
                         "teacher.model")
    if isinstance(config.examples, int) and config.examples < 0:
        raise UsageError(f"{name}.examples: {config.examples} is below the limit 0", "use 0 or more")


def read(config: Any, run: RunFile, base: Path, train: Sequence[Row]) -> Told | None:
    """What a teacher's Config says it is told; None where that is nothing.

    Raises UsageError for a file that cannot be read and for more examples than there are rows, DataError for one that
    is no question with an answer.
    """
    check(config, run.task.kind)
    if not is_told(config):
        return None
    unprompted = Told("", (), config.context)
    turns = [message for row in _examples(config.examples, run, base, train)
             for message in unprompted.row(_of_example(row)).messages if message["role"] not in SYSTEMS]
    return Told(system_of(config.system, base), tuple(turns), config.context)


def system_of(given: str, base: Path) -> str:
    """The system message that is meant by [teacher] system: the text, or that of the file."""
    if given.startswith(HASH):
        raise UsageError("teacher.system: a hash, and no system message", _PUT_BACK)
    if _is_file(given):
        try:
            text = (base / given).read_text(encoding="utf-8-sig").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"teacher.system: {given} cannot be read: {error}",
                             "give a text file in UTF-8; its path is relative to the run file") from None
    else:
        text = given.strip()
    if given and not text:
        raise UsageError("teacher.system: is blank", "write the system message, or leave it out")
    return text


def absolute(table: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """A [teacher] table with the paths of its prompt made absolute from `base`."""
    system, examples = table.get("system"), table.get("examples")
    found = dict(table)
    if isinstance(system, str) and _is_file(system):
        found["system"] = str((base / system).resolve())
    if isinstance(examples, str) and not examples.startswith(HASH):
        found["examples"] = str((base / examples).resolve())
    return found


def hidden(tables: dict[str, Any] | list[dict[str, Any]], base: Path) -> dict[str, Any] | list[dict[str, Any]]:
    """The table of a teacher, or those of several, as they may be shown: hashes instead of addresses, texts and
    files."""
    return [_hidden(table, base) for table in tables] if isinstance(tables, list) else _hidden(tables, base)


def _hidden(table: Mapping[str, Any], base: Path) -> dict[str, Any]:
    found = dict(table)
    system, examples, url = table.get("system"), table.get("examples"), table.get("url")
    if isinstance(url, str):
        found["url"] = HASH + hashlib.sha256(url.rstrip("/").encode()).hexdigest()
    if isinstance(system, str) and system and not system.startswith(HASH):
        found["system"] = HASH + hashlib.sha256(system_of(system, base).encode()).hexdigest()
    if isinstance(examples, str) and examples and not examples.startswith(HASH):
        found["examples"] = HASH + files.sha256(base / examples)
    return found


def is_told(config: Any) -> bool:
    """Whether a teacher's Config tells it anything."""
    return isinstance(config, Prompt) and any(getattr(config, item.name) for item in fields(Prompt))


def _is_file(text: str) -> bool:
    return text.endswith(SUFFIXES) and "\n" not in text


def _examples(given: int | str, run: RunFile, base: Path, train: Sequence[Row]) -> Sequence[Row]:
    if isinstance(given, int):
        import numpy as np

        answered = [row for row in train if row.turns]
        if given > len(answered):
            raise UsageError(f"teacher.examples: {given}, and {len(answered)} training rows have an answer to learn",
                             f"use {len(answered)} or fewer")
        drawn = np.random.default_rng(run.distill.seed).choice(len(answered), given, replace=False)
        return [answered[place] for place in drawn]
    if given.startswith(HASH):
        raise UsageError("teacher.examples: a hash, and no file", _PUT_BACK)
    found: list[Row] = []
    for row in scan(base / given, run.data.columns, private=run.data.private):
        if isinstance(row, BadRow):
            raise row.error()
        found.append(row)
    return found


def _of_example(row: Row) -> Row:
    """A row up to its answer."""
    if not row.turns:
        raise DataError(f"{row.where}: an example for the teacher needs a question and an answer",
                        "give rows with prompt and completion, or with messages")
    return replace(row, messages=row.messages[:row.place + 1])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
