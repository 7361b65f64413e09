"""What a sweep has measured, in a file that only grows: a killed sweep goes on where it was, and loses no round."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ...models import files
from ...models.errors import DataError, EdgestillError, UsageError


class RoundsFile:
    """JSON lines: the settings, and every round once it was measured, each on the disk before the next is begun."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Begin a file, or go on with one; `rounds` are those that stand in it. EdgestillError where another process
        has it open, DataError for a line that is none of its own, UsageError where it was begun with other settings."""
        self._path = path
        self.rounds: list[dict[str, Any]] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b", buffering=0)
        try:
            files.lock(self._file)
            self._read(json.loads(json.dumps(settings)))
        except OSError as error:
            self._file.close()
            raise EdgestillError(f"{path}: another process is measuring into it",
                                 "wait for it to end, or choose another -o/--out") from error
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> RoundsFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._file.close()

    def add(self, entry: dict[str, Any]) -> None:
        """Keep a round; it is on the disk when this returns."""
        self._write(entry)
        self.rounds.append(entry)

    def _write(self, entry: Mapping[str, Any]) -> None:
        line = memoryview(json.dumps(entry, allow_nan=False).encode() + b"\n")
        while line:
            line = line[self._file.write(line):]
        os.fsync(self._file.fileno())

    def _read(self, settings: Mapping[str, Any]) -> None:
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        os.ftruncate(self._file.fileno(), whole)  # what a crash tore off was not yet kept, and is measured again
        lines = content[:whole].splitlines()
        try:
            known, *self.rounds = map(json.loads, lines) if lines else [{"settings": settings}]
            begun = known["settings"]
        except (ValueError, LookupError, TypeError) as error:
            raise DataError(f"{self._path}: holds lines that are no sweep's",
                            "choose another -o/--out, or remove the file") from error
        if changed := [name for name in settings if begun.get(name) != settings[name]]:
            raise UsageError(f"{self._path}: was begun with other {', '.join(changed)}",
                             "go on with the same, choose another -o/--out, or remove the file")
        if not lines:
            self._write({"settings": settings})
            files.sync_folder(self._path.parent)
