"""The first stage of a run whose teacher is behind an address: it answers the training rows, which the run learns."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...models.errors import UsageError
from ...models.runfile import RunFile
from ...runtime.data.builders import BESIDE
from . import teachers
from .engine import Stage

if TYPE_CHECKING:
    from ...distill.labelling import Labelling

NAME, ROWS, LEDGER = "label the rows", "labelled.jsonl", "labelled.ledger.jsonl"
BAD = "labelled.bad-rows.jsonl"
"""Rows that could not be asked; those of all files that could not be learned are listed elsewhere."""


class Labels:
    """What is asked for a resolved run in the output folder `folder`."""

    def __init__(self, run: RunFile, folder: Path, say: Callable[[str], None]) -> None:
        """Raises what reading the rows and a Labelling raise; nothing is asked yet."""
        from ...distill.labelling import Labelling
        from ...distill.labelling.items import read_items
        from ...distill.teachers import api
        from ...runtime.data.reader import locate

        (teacher,) = teachers.of(run)
        self.config = teacher.entry.config
        settings = api.settings(self.config, run)
        if not run.data.train:
            raise UsageError("data.train: is required and was not given", "name the file of training rows")
        self._run, self._folder, self._say = run, folder, say
        self._source = Path(locate(run.data.train, Path(run.data.dir)))
        self._check_private()
        items = read_items(self._source, run.data.columns, self.config.private, settings.labels, run.data.skip_bad,
                           folder / BAD)
        self.labelling: Labelling = Labelling(items, settings, folder / LEDGER)
        asked = [[item.record, item.answer, dict(item.private)] for item in items]
        rows = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        self.stage = Stage(NAME, ROWS, {"rows": rows, "asked": api.stands_for_answers(settings)}, (), self._label)

    @property
    def run(self) -> RunFile:
        """The run that learns the labelled rows."""
        return replace(self._run, data=replace(self._run.data, train=str(self._folder / ROWS)))

    def _check_private(self) -> None:
        """UsageError for a column that the teacher alone is to read, and that test or validation rows would be read
        with."""
        data = self._run.data
        read = next((f"{key} = {name!r}" for key, names in BESIDE.items() for name in self.config.private
                     if name in names and key not in data.columns), "")
        if read and (data.test or data.validation):
            raise UsageError(f"teacher.private: rows of data.test and data.validation are read with it as {read}",
                             "rename the column, or leave it out there: an empty name in data.columns")

    def _label(self, path: Path) -> None:
        """Ask, and write the rows; beside them what `data label` writes. Raises what ended the asking early."""
        found = self.labelling.run()
        for line in found.report.lines():
            self._say(f"  {line}")
        if found.stopped is not None:
            raise found.stopped
        theirs = self._run.data.columns
        rows = [{theirs.get(name) or name: value for name, value in row.items()} for row in found.rows]
        for written in replace(found, rows=rows).write(path, self._source)[1:]:
            os.replace(written, self._folder / written.name)
        if not self._run.data.test:
            self._say("  test rows are a share of these: where people gave no answer, students are measured on the "
                      "teacher's; name others in data.test")


def of(run: RunFile, folder: Path, say: Callable[[str], None]) -> Labels | None:
    """The labelling of a run; None for a run whose rows need none."""
    found = teachers.of(run)
    return Labels(run, folder, say) if found and found[0].in_rows else None
