"""What a running training says (on standard error) and what it writes down."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import IO, Any

from ...models import kinds, progress
from ...models.errors import UsageError
from ...models.runfile import kind_config

METRICS = "metrics.jsonl"
WATCHERS = "distill.watchers"


class Progress:
    """Where a training stands, and its notes; all of it goes to standard error."""

    def __init__(self, name: str, speaks: bool = True) -> None:
        """Of several processes one `speaks`."""
        self._name, self._speaks = name, speaks

    def at(self, done: int, total: int, text: str, name: str = "") -> None:
        """Say that `done` of `total` steps (or of what `name` counts) are done."""
        if self._speaks:
            progress.at(name or self._name, done, total, text)

    def note(self, text: str) -> None:
        """One line on standard error."""
        if self._speaks:
            sys.stderr.write(text + "\n")


class Metrics:
    """metrics.jsonl, one line a record, and the same numbers for every watcher."""

    def __init__(self, folder: Path, first_step: int, writes: bool = True,
                 watchers: Sequence[Mapping[str, Any]] = (), note: Callable[[str], None] = print) -> None:
        """Continue the files of `folder`; records of steps after `first_step` are of a lost attempt and go. Of several
        processes that train together one `writes`. `watchers` are tables of kinds; `note` is told of one that cannot
        work here. Errors as of `watchers_of`."""
        self._file: IO[str] | None = None
        self._watchers: list[Any] = []
        if not writes:
            return
        self._path = folder / METRICS
        kept = []
        if self._path.is_file():
            for line in self._path.read_text(encoding="utf-8").splitlines():
                try:
                    record = json.loads(line)
                except ValueError:
                    break  # the process was killed while it wrote this line
                if record["step"] <= first_step:
                    kept.append(line)
        self._path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        self._file = self._path.open("a", encoding="utf-8")
        for name, kind, config in watchers_of(watchers, "watchers"):
            if (watcher := kind.open(config, folder / name, first_step)) is None:
                note(f"{name} is not installed, so nothing is written for it")
            else:
                self._watchers.append(watcher)

    def write(self, step: int, **values: float) -> None:
        """One record."""
        if self._file is None:
            return
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for watcher in self._watchers:
            watcher.write(step, values)

    def sync(self) -> None:
        """Make what was written durable: called with every checkpoint."""
        if self._file is not None:
            os.fsync(self._file.fileno())
        for watcher in self._watchers:
            watcher.sync()

    def close(self) -> None:
        """Close the files."""
        if self._file is not None:
            self._file.close()
        for watcher in self._watchers:
            watcher.close()


def watchers_of(tables: Sequence[Mapping[str, Any]], name: str) -> list[tuple[str, ModuleType, Any]]:
    """Name, kind and config of the watchers of a run file's key `name`. UsageError for an unknown kind or key, and for
    one that is named twice."""
    found: dict[str, tuple[str, ModuleType, Any]] = {}
    for index, table in enumerate(tables):
        config = kind_config(WATCHERS, table, f"{name}[{index}]")
        if table["kind"] in found:
            raise UsageError(f"{name}[{index}]: {table['kind']} is named twice", "keep one of them")
        found[table["kind"]] = table["kind"], kinds.load(WATCHERS, table["kind"]), config
    return [*found.values()]
