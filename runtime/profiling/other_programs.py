"""Which other programs use the processor while a model is measured."""

from __future__ import annotations

import os
import time
from types import TracebackType

_LEAST, _MOST = 0.05, 3
"""Cores from which on a program is named, and how many are."""


class OtherPrograms:
    """A context; after it `busiest` holds the programs that used the processor most, with the cores that they used.

    What ended meanwhile is not known, and so neither is a measured process that began and ended in it.
    """

    def __enter__(self) -> OtherPrograms:
        self._began, self._before = time.perf_counter(), _seconds()
        self.busiest: dict[str, float] = {}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        passed = time.perf_counter() - self._began
        used = {f"{name} ({pid})": (seconds - self._before.get((pid, name), 0.0)) / passed
                for (pid, name), seconds in _seconds().items()}
        order = sorted(used, key=lambda name: -used[name])
        self.busiest = {name: used[name] for name in order[:_MOST] if used[name] >= _LEAST}


def _seconds() -> dict[tuple[int, str], float]:
    """Processor time of every other process that may be looked at, by its number and name; none where the system lists
    no process, as in some sandboxes."""
    import psutil

    found: dict[tuple[int, str], float] = {}
    try:
        listed = list(psutil.process_iter(["pid", "name", "cpu_times"]))
    except (IndexError, OSError):  # psutil takes the first of the numbers for granted
        return found
    for process in listed:
        times = process.info["cpu_times"]
        if times is not None and process.info["pid"] != os.getpid():
            found[process.info["pid"], str(process.info["name"])] = float(times.user + times.system)
    return found
