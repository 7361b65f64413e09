"""Where long work stands: the work says it with `at`, and whoever waits has it told once a minute, or draws a bar.

One place for the whole process, since one command does one thing at a time; where nobody looks, `at` costs nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

EVERY_SECONDS = 60.0


@dataclass(frozen=True)
class Status:
    """What is being done, and how far it is."""

    task: str
    done: int
    total: int
    """0 where it is not known."""
    text: str
    started: float
    """time.monotonic() when `task` began, with `start` of it done."""
    start: int

    def seconds_left(self, now: float) -> float | None:
        """At the pace so far; None before anything is done, or without a known end."""
        if not self.total or self.done <= self.start:
            return None
        return (self.total - self.done) * (now - self.started) / (self.done - self.start)

    def line(self, now: float) -> str:
        """Such as `tune: 12 of 25, loss 1.2, 6 min so far, about 7 min left`."""
        left = self.seconds_left(now)
        parts = [f"{self.done:,} of {self.total:,}" if self.total else "", self.text,
                 f"{duration(now - self.started)} so far", "" if left is None else f"about {duration(left)} left"]
        return f"{self.task}: " + ", ".join(part for part in parts if part)


_status: Status | None = None
_told = threading.Lock()


def at(task: str, done: int = 0, total: int = 0, text: str = "") -> None:
    """Say that `done` of `total` of `task` are done; another task, or fewer done than before, begins anew."""
    global _status
    before, now = _status, time.monotonic()
    if before is None or before.task != task or done < before.done:
        _status = Status(task, done, total, text, now, done)
    else:
        _status = Status(task, done, total, text, before.started, before.start)


def status() -> Status | None:
    """What was said last; None while nothing goes on."""
    return _status


@contextmanager
def told(say: Callable[[str], None], every: float = EVERY_SECONDS) -> Iterator[None]:
    """Give `say` a line every `every` seconds while the block runs; inside another such block nothing is added."""
    if not _told.acquire(blocking=False):
        yield
        return
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(every):
            if _status is not None:
                say(_status.line(time.monotonic()))

    thread = threading.Thread(target=tell, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        forget()
        _told.release()


def forget() -> None:
    """Nothing goes on any more."""
    global _status
    _status = None


def duration(seconds: float) -> str:
    """For a human: `40 s`, `6 min`, `2 h 5 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
