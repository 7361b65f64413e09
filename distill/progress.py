"""What a running training shows (standard error, only on a terminal) and what it writes down."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"
TENSORBOARD = "tensorboard"


class Progress:
    """A progress bar with loss, speed and time left; nothing at all where standard error is no terminal."""

    def __init__(self, name: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self.console = Console(stderr=True)
        self._bar = Bar(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                        TextColumn("{task.fields[text]}"), TimeRemainingColumn(), console=self.console, transient=True,
                        disable=not self.console.is_terminal)
        self._name = name

    @contextmanager
    def running(self, steps: int, done: int = 0, name: str = "") -> Iterator[int]:
        """Show a bar of `steps` steps inside the block; the value is for `advance`."""
        with self._bar:
            task = self._bar.add_task(name or self._name, total=steps, completed=done, text="")
            yield task
            self._bar.remove_task(task)

    def advance(self, task: int, done: int, text: str) -> None:
        """Show that `done` steps are done."""
        self._bar.update(task, completed=done, text=text)  # type: ignore[arg-type]

    def note(self, text: str) -> None:
        """One line on standard error."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)


class Metrics:
    """metrics.jsonl, one line a record, and the same numbers for TensorBoard where that is installed."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """Continue the files of `folder`; records of steps after `first_step` are of a lost attempt and go."""
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
        self._board: Any = None
        if find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / TENSORBOARD), purge_step=first_step + 1)

    def write(self, step: int, **values: float) -> None:
        """One record."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def sync(self) -> None:
        """Make what was written durable: called with every checkpoint."""
        os.fsync(self._file.fileno())
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()
