"""Long work on stderr: a bar on a terminal, a line a minute elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from ..models import progress
from . import output

REDRAW_SECONDS = 0.25


@contextmanager
def shown() -> Iterator[None]:
    """Show where the work of the block stands, as it says by `models.progress.at`."""
    if not sys.stderr.isatty():
        with progress.told(output.note):
            yield
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"),
               TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, visible=False, text="")
        drawn = ""

        def draw(_line: str) -> None:
            nonlocal drawn
            now = progress.status()
            if now is None:
                return
            if now.task != drawn:
                bar.reset(task, description=now.task, visible=True)
                drawn = now.task
            bar.update(task, completed=now.done, total=now.total or None, text=now.text)

        with progress.told(draw, REDRAW_SECONDS):
            yield


@contextmanager
def bar(text: str) -> Iterator[Callable[[int, int], None]]:
    """Show the block's work; the value is a function of (done, all) that says how far it is."""
    with shown():
        yield partial(progress.at, text)
