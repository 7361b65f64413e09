"""What the calls of a log had in common, beside the rows that were made of them: a [task] table that `init` takes up.

It is `rows.task.toml` beside `rows.jsonl`, with the keys `system`, `schema` and `labels` of a run file.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ....models import files
from ....models.errors import UsageError
from ....models.strict import build
from ....models.task import Task
from ..formats import PACKED

KEYS = ("system", "schema", "labels")


def path_of(rows: Path) -> Path:
    """The table that belongs to a file of rows."""
    return _beside(rows, ".task.toml")


def schema_of(rows: Path) -> Path:
    """The JSON schema that belongs to a file of rows."""
    return _beside(rows, ".schema.json")


def lines(task: Mapping[str, Any]) -> list[str]:
    """The table's keys as TOML; DEL is the one character that JSON leaves as it is and TOML forbids."""
    return [f"{key} = {json.dumps(task[key], ensure_ascii=False)}".replace("\x7f", "\\u007f")
            for key in KEYS if task.get(key)]


def write(rows: Path, task: Mapping[str, Any], schema: Mapping[str, Any] | None) -> list[Path]:
    """Write the table and the schema, where there is anything to say; the files that were written. A schema's keys stay
    in their order, which is the order in which a model writes them."""
    written = []
    if schema is not None:
        written.append(schema_of(rows))
        files.write_text(written[-1], json.dumps(schema, indent=2, ensure_ascii=False) + "\n")
    if task:
        written.append(path_of(rows))
        files.write_text(written[-1], "\n".join(["[task]", *lines(task)]) + "\n")
    return written


def read(rows: Path) -> Task | None:
    """The table beside a file of rows, its schema's path made whole; None where there is none.

    Raises UsageError for a file that holds anything but KEYS of [task].
    """
    path = path_of(rows)
    if not path.is_file():
        return None
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not valid TOML: {error}", "correct it, or remove it") from None
    given = table.pop("task", None)
    odd = [*table, *(key for key in given if key not in KEYS)] if isinstance(given, dict) else ["task", *table][-1:]
    if odd or not isinstance(given, dict):
        raise UsageError(f"{path}: {odd[0]!r} is not read here",
                         f"it holds one table, [task], with {', '.join(KEYS)}; other keys belong in the run file")
    if "schema" in given:
        given["schema"] = str(path.parent / str(given["schema"]))
    return build(Task, given, "task")


def _beside(rows: Path, suffix: str) -> Path:
    plain = rows.with_suffix("") if rows.suffix.lower() in PACKED else rows
    return plain.parent / f"{plain.stem}{suffix}"
