"""What stages read from outside, as JSON values for their keys: rows, models, the task.

A key holds content and no places: a folder that is moved, or rows that stand in another file, redo nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...models import files, runfile
from ...models.runfile import Export, Loop, RunFile
from . import teachers

if TYPE_CHECKING:
    from ...runtime.data.reader import Row

_PLACES = ("dir", "train", "validation", "test", "columns", "route", "private", "validation_share", "test_share",
           "skip_bad")
"""Keys of [data] that say which rows there are; the rows' own digests stand for them."""


class Reads:
    """The parts of the keys of one run."""

    def __init__(self, run: RunFile, rows: Mapping[str, Sequence[Row]], fetch: bool) -> None:
        """`fetch`: download the hub's models that are not here yet; without it their commit stays unknown."""
        self._run, self._rows, self._fetch = run, rows, fetch
        self._models: dict[tuple[str, str], Any] = {}

    @cached_property
    def _digests(self) -> dict[str, str]:
        from ...runtime.data.reader import rows_digest

        return {name: rows_digest(rows) for name, rows in self._rows.items()}

    def rows(self, *splits: str) -> dict[str, Any]:
        """The rows of these splits."""
        return {"rows": {name: self._digests[name] for name in splits}}

    def places(self) -> dict[str, Any]:
        """Where every row was read from, which findings in the data name."""
        lines = [row.where for rows in self._rows.values() for row in rows]
        return {"places": hashlib.sha256("\n".join(lines).encode()).hexdigest()}

    def schema(self) -> dict[str, Any]:
        """The content of the task's schema."""
        path = self._run.task.schema
        return {"schema": files.sha256(Path(path)) if path else ""}

    def task(self) -> dict[str, Any]:
        """The task, its schema by content."""
        return {"task": asdict(self._run.task) | self.schema()}

    def training(self, settings: Loop) -> dict[str, Any]:
        """What any training reads: rows, task, how rows become ids, its own settings."""
        data = {key: value for key, value in asdict(self._run.data).items() if key not in _PLACES}
        numbers = asdict(settings)
        for changes_no_weight in ("checkpoint_seconds", "watchers"):
            numbers.pop(changes_no_weight)
        return {**self.rows("train", "validation"), **self.task(), "data": data, "settings": numbers}

    def teacher(self) -> dict[str, Any]:
        """The [teacher] table, what it names and what the teacher is told by content; of several tables each."""
        return {"teacher": self._teachers[0] if len(self._teachers) == 1 else self._teachers}

    @cached_property
    def _teachers(self) -> list[list[Any]]:
        found = []
        for table, teacher in zip(self._run.teachers, teachers.of(self._run), strict=True):
            told = teacher.told(self._run, self._rows["train"])
            found.append(["in the rows" if teacher.in_rows else _without_places(table), teacher.stands_for(self._fetch),
                          *([told.digest] if told else [])])
        return found

    def student(self) -> dict[str, Any]:
        """The [student] table, its model by content, and the seed that new weights are drawn from."""
        student = self._run.student
        table = {key: value for key, value in asdict(student).items() if key not in ("model", "base")}
        if student.to:  # layers stay that these carry
            table["formats"] = runfile.formats(self._run)
        if student.template:
            from ...distill.student_template import read

            table["template"] = read(student.template, Path())
        base = [self._model(student.base, "", "student.base")] if student.base else []
        return {"student": [table, self._model(student.model, student.revision, "student.model"), *base,
                            self._run.distill.seed]}

    def export(self, export: Export, certify_rows: int) -> dict[str, Any]:
        """One target: its settings, the rows that calibrate and those that judge."""
        from ...quantize.proof.float_answers import held_out
        from ...runtime.data.reader import rows_digest

        judges = held_out(self._rows["train"], self._rows["test"], certify_rows)
        return {**self.rows("train"), "judges": rows_digest(judges), "export": asdict(export),
                "certify_rows": certify_rows}

    def _model(self, name: str, revision: str, key: str) -> Any:
        """What stands for a model: of a folder a digest, of the hub's the commit; with the licence that is passed on.

        Raises what `sources.resolve` raises.
        """
        if not name:
            return ""
        if (name, revision) not in self._models:
            from ...distill.sources import stands_for_model

            self._models[name, revision] = stands_for_model(name, revision, key, self._fetch)
        return self._models[name, revision]


def _without_places(table: Mapping[str, Any]) -> dict[str, Any]:
    """A [teacher] table, and the cache in it, without where things are."""
    return {key: _without_places(value) if isinstance(value, Mapping) else value for key, value in table.items()
            if key not in ("model", "folder", "system", "examples")}
