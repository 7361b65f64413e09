"""How many threads to compute with while other programs compute, too.

Threads that wait for each other at barriers are as slow as the one whose core another program has: two threads beside
one busy loop on two cores made .28 of their tokens, one thread makes more than half. So an engine takes no more threads
than others leave cores. Linux says what they leave; elsewhere all threads are used.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from .cores import allowed_cpus

_LOOK, _STALE = 0.25, 2.0
"""Seconds between two looks at the machine, and after which what was counted before says nothing of now."""
_SPARE = 0.35
"""A core that others use no more of counts as free: two threads beside a busy loop leave it two thirds of one."""

Counts = tuple[float, float]
"""Seconds of processor time that went to anybody on the cores allowed to this process, and to this process."""


class Width:
    """The threads of one engine, from time to time set anew."""

    def __init__(self, most: int, apply: Callable[[int], object], counts: Callable[[], Counts | None] | None = None,
                 cores: int = 0, clock: Callable[[], float] = time.perf_counter) -> None:
        """`apply` takes another number of threads, `most` at first; `counts`, `cores` and `clock` are the machine's
        where they are not given."""
        self.threads = self._most = most
        self._apply, self._counts, self._clock = apply, counts or processor_seconds, clock
        self._cores = cores or len(allowed_cpus())
        self._looked, self._before = clock(), self._counts() if most > 1 else None

    def fit(self, free: bool = True) -> None:
        """Before a pass: as many threads as others leave cores, if it is time to look; all of them where the number is
        not `free`, since the last bits would depend on it."""
        if self._before is None:
            return
        if not free:
            self._set(self._most)
            return
        now = self._clock()
        seconds = now - self._looked
        if seconds < _LOOK:
            return
        counts, before = self._counts(), self._before
        self._looked, self._before = now, counts
        if counts is None or seconds > _STALE:
            return
        others = ((counts[0] - before[0]) - (counts[1] - before[1])) / seconds
        self._set(max(1, min(self._most, int(self._cores - others + _SPARE))))

    def _set(self, threads: int) -> None:
        if threads != self.threads:
            self._apply(threads)
            self.threads = threads


def processor_seconds(root: Path = Path("/")) -> Counts | None:
    """See `Counts`; None where the system does not say it."""
    seconds = core_seconds(root)
    own = os.times()
    return None if seconds is None else (sum(seconds), own.user + own.system)


def core_seconds(root: Path = Path("/")) -> tuple[float, float] | None:
    """Seconds of processor time on the cores allowed to this process that anybody used, and those that the hypervisor
    gave to other machines; None where the system does not say it."""
    try:
        lines = (root / "proc/stat").read_text().splitlines()
    except OSError:
        return None
    tick = 1 / os.sysconf("SC_CLK_TCK")
    allowed, busy, stolen = {f"cpu{number}" for number in allowed_cpus()}, 0, 0
    for line in lines:
        name, *fields = line.split()
        if name in allowed:
            user, nice, system, _, _, interrupts, soft, steal = map(int, fields[:8])
            busy += user + nice + system + interrupts + soft
            stolen += steal
    return busy * tick, stolen * tick
