"""From log files to the files that `edgestill data logs` writes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...models import files
from ...models.errors import UsageError
from ...runtime.data.calls import task_file
from ...runtime.data.calls.common import common, rows
from ...runtime.data.calls.log import Log, read_logs
from ...runtime.data.calls.report import LogReport, report
from ...runtime.data.formats import format_of

SHOWN = 160
"""Characters of a system prompt."""


@dataclass(frozen=True)
class Made:
    """Rows and what goes beside them."""

    log: Log
    rows: list[dict[str, Any]]
    task: dict[str, Any]
    """Keys of [task]: system, labels; the schema stands apart."""
    schema: Mapping[str, Any] | None
    report: LogReport

    def write(self, out: Path) -> list[Path]:
        """Write the rows, the task and the list of what was left out; UsageError where one of these files is there."""
        check_name(out)
        left_out = out.with_suffix(".left-out.jsonl")
        for path in (out, left_out, task_file.path_of(out), task_file.schema_of(out)):
            if path.exists():
                raise UsageError(f"{path}: already exists", "choose another -o/--out, or remove it first")
        files.write_text(out, _lines(self.rows))
        places = [(place, reason) for reason, found in self.log.left_out.items() for place in found]
        if places:
            files.write_text(left_out, _lines({"file": place.file, "line": place.line, "reason": reason}
                                              for place, reason in places))
        task = {**self.task, **({"schema": task_file.schema_of(out).name} if self.schema is not None else {})}
        return [out, *[left_out] * bool(places), *task_file.write(out, task, self.schema)]

    def told(self) -> list[str]:
        """What all calls have in common, for a terminal."""
        system = self.task.get("system", "")
        shown = {**self.task, "system": system[:SHOWN] + ("…" if len(system) > SHOWN else "")}
        lines = task_file.lines(shown) + ["schema: the response format of all calls"] * (self.schema is not None)
        return ["[task], which `edgestill init` takes up:", *(f"  {line}" for line in lines)] if lines else []


def check_name(out: Path) -> None:
    """UsageError where a file of rows is not named as what we write."""
    if format_of(out) not in (".jsonl", ".ndjson") or out.suffix != format_of(out):
        raise UsageError(f"{out}: rows are written as JSON lines", "let the name end in .jsonl")


def rows_of(paths: Sequence[Path], chat: bool) -> Made:
    """Read logs and make rows of them: texts with labels where every answer is one of a few, unless `chat`."""
    log = read_logs(paths)
    found = common(log.calls)
    labels = bool(found.labels) and not chat
    task: dict[str, Any] = {"labels": list(found.labels)} if labels else {"system": found.system}
    return Made(log, rows(log.calls, found, labels), {key: value for key, value in task.items() if value},
                None if labels else found.schema, report(log, found, labels))


def _lines(records: Any) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
