"""What the measured process notes between its requests: who else computed, how hot it was, whether it had to wait.

A look takes 0.2 ms and lies between two requests, so it is in none of their times. On systems that are not Linux most
of it is unknown, and left out.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from ..machine import sensors
from ..machine.busy_cores import core_seconds
from ..machine.cores import allowed_cpus, group_folders

EVERY = 0.25
"""Seconds between two looks at least: the kernel counts processor time in hundredths."""


class Watch:
    """Looks at the machine, at most every EVERY seconds; `looks` are what it saw, counters in seconds since some
    time."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root, self._cpus = root, allowed_cpus()
        self.looks: list[dict[str, Any]] = [self._look()]

    @property
    def window(self) -> int:
        """The number of the window that now is in: of the look before it."""
        return len(self.looks) - 1

    def look(self, last: bool = False) -> None:
        """Look again if it is time to, or if it is the `last` time."""
        if last or time.perf_counter() - self.looks[-1]["at_s"] >= EVERY:
            self.looks.append(self._look())

    def _look(self) -> dict[str, Any]:
        root, own = self._root, os.times()
        cores = core_seconds(root)
        found: dict[str, Any] = {"at_s": time.perf_counter(), "own_s": own.user + own.system}
        if cores is not None:
            found |= {"busy_s": cores[0], "steal_s": cores[1]}
        waited, faults, held = _waited(root), _major_faults(root), _held_back(root)
        known = {"waited_s": waited, "major_faults": faults, "quota_holds": held, "running": _running(root),
                 "mhz": sensors.megahertz(self._cpus, root), "throttles": sensors.throttle_count(root),
                 "throttled_now": sensors.throttled_now(root)}
        found |= {name: value for name, value in known.items() if value is not None}
        for name, several in (("celsius", sensors.celsius(root)), ("joules", sensors.joules(root)),
                              ("watts", sensors.watts(root))):
            if several:
                found[name] = several
        return found


def _waited(root: Path) -> float | None:
    """Seconds for which threads of this process were ready and had no core."""
    total, known = 0, False
    for path in (root / "proc/self/task").glob("*/schedstat"):
        try:
            total += int(path.read_text().split()[1])
            known = True
        except (OSError, ValueError, IndexError):  # the thread has just ended, or the kernel keeps no such numbers
            continue
    return total / 1e9 if known else None


def _major_faults(root: Path) -> int | None:
    """Pages of this process that had to be read from the disk."""
    try:
        return int((root / "proc/self/stat").read_text().rpartition(")")[2].split()[9])
    except (OSError, ValueError, IndexError):
        return None


def _held_back(root: Path) -> int | None:
    """How often the control group's share of the processor was used up."""
    for folder in group_folders("cpu", root)[:1]:
        try:
            counts = dict(line.split() for line in (folder / "cpu.stat").read_text().splitlines())
        except OSError:
            return None
        return int(counts["nr_throttled"]) if "nr_throttled" in counts else None
    return None


def _running(root: Path) -> int | None:
    """Threads of the whole machine that are running or ready to."""
    try:
        return int((root / "proc/loadavg").read_text().split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError):
        return None
