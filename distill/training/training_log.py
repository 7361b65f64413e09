"""What a running training says (on standard error) and what it writes down."""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from ...models import progress

METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"


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
    """metrics.jsonl, one line a record, and the same numbers for TensorBoard where that is installed."""

    def __init__(self, folder: Path, first_step: int, writes: bool = True) -> None:
        """Continue the files of `folder`; records of steps after `first_step` are of a lost attempt and go. Of several
        processes that train together one `writes`."""
        self._file: IO[str] | None = None
        self._board: Any = None
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
        if find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / TENSORBOARD), purge_step=first_step + 1)

    def write(self, step: int, **values: float) -> None:
        """One record."""
        if self._file is None:
            return
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def sync(self) -> None:
        """Make what was written durable: called with every checkpoint."""
        if self._file is not None:
            os.fsync(self._file.fileno())
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        """Close the files."""
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()
