"""Several answers at a time from one ONNX graph: caches of their own over the same weights, on the cores there are.

Streams take turns with all threads, until they are as many as the threads. Then each takes one, and as many compute at
once: such runs wait for nobody, and together they make 1.2 to 1.3 times the tokens (135M parameters, 2 threads).
onnxruntime gives a session its threads for good, so there are two, which hold the weights twice. Streams of small
models always take turns.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ._onnx_engine import OnnxEngine

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

_SLICE = 0.05
"""Seconds that a stream computes before others have its cores."""
_PATIENCE = 0.01
"""Seconds after which a stream that has not come back has lost its cores: longer than choosing a token takes."""
_TRIED = 32
"""Tokens over which the two sessions are compared and the second is timed."""
_WORTH = 0.002
"""Seconds that a token must take one thread for streams to share the cores. Below, Python's part of a token is what
they would compete for: with .3 ms a token four streams made no more answers, and refusals came 300 ms late."""


@dataclass
class _Hold:
    cores: int
    since: float
    left: float = math.inf
    """When its stream computed last; infinity while it does."""


class Cores:
    """Who computes, and with how many threads: streams in the order they came, each for a slice of time.

    A stream keeps its cores while it chooses its next token: small models that changed hands at every token answered
    30 % fewer requests.
    """

    def __init__(self, count: int, shared: bool = True) -> None:
        """There are `count`; unless they are `shared`, every run takes all of them."""
        self._count, self._shared = count, shared
        self._change = threading.Condition()
        self._waiting: deque[object] = deque()
        self._holds: dict[object, _Hold] = {}

    @contextmanager
    def of(self, stream: object) -> Iterator[bool]:
        """Compute when it is the turn of `stream`, with one thread or, False, with all."""
        with self._change:
            hold = self._holds.get(stream)
            if hold is None or hold.cores != self._wanted(stream):
                hold = self._taken(stream)
            hold.left = math.inf
        try:
            yield hold.cores < self._count
        finally:
            with self._change:
                hold.left = time.perf_counter()
                if self._waiting and (hold.left - hold.since >= _SLICE or hold.cores != self._wanted(stream)):
                    self._leave(stream)

    def rest(self, stream: object) -> None:
        """`stream` does not come back soon."""
        with self._change:
            self._leave(stream)

    def _wanted(self, stream: object) -> int:
        here = {stream, *self._holds, *self._waiting}
        return 1 if self._shared and len(here) >= self._count else self._count

    def _taken(self, stream: object) -> _Hold:
        self._leave(stream)
        self._waiting.append(stream)
        while self._waiting[0] is not stream or not self._room(stream):
            self._change.wait(_PATIENCE if self._waiting[0] is stream else None)
        self._waiting.popleft()
        hold = self._holds[stream] = _Hold(self._wanted(stream), time.perf_counter())
        self._change.notify_all()  # the next in the row begins to watch
        return hold

    def _room(self, stream: object) -> bool:
        gone = time.perf_counter() - _PATIENCE
        for other in [other for other, hold in self._holds.items() if hold.left <= gone]:
            del self._holds[other]
        return sum(hold.cores for hold in self._holds.values()) + self._wanted(stream) <= self._count

    def _leave(self, stream: object) -> None:
        self._holds.pop(stream, None)
        self._change.notify_all()


class OnnxStream(OnnxEngine):
    """One cache over shared sessions; see `Engine`."""

    def __init__(self, first: OnnxEngine, sessions: Sequence[Any], cores: Cores, path: Path, folder: Path) -> None:
        """`sessions` have all threads and, where there is a second, one."""
        self._cores = cores
        super().__init__(path, folder, first.threads, first.context_length, sessions)

    def decode(self, token: int) -> NDArray[np.float32]:
        """See `Engine.decode`."""
        with self._cores.of(self) as narrow:
            self._runs = self._all_runs[narrow]
            return super().decode(token)

    def rest(self) -> None:
        """See `Engine.rest`."""
        self._cores.rest(self)

    def _pass(self, ids: Sequence[int], out: NDArray[np.float32]) -> None:
        with self._cores.of(self) as narrow:
            self._runs = self._all_runs[narrow]
            super()._pass(ids, out)


def streams(first: OnnxEngine, path: Path, folder: Path, count: int) -> list[OnnxEngine]:
    """`count` engines over the session of `first`; and over a second one of one thread where that gives the same bits,
    for an answer may not depend on how many others are made at the same time, and where it is worth it."""
    sessions = [*first.sessions]
    if 1 < first.threads <= count:
        narrow = OnnxEngine(path, folder, 1, first.context_length)
        if seconds_a_token(narrow) >= _WORTH and same_bits(first, narrow):
            sessions += narrow.sessions
    cores = Cores(first.threads, len(sessions) > 1)
    return [OnnxStream(first, sessions, cores, path, folder) for _ in range(count)]


def seconds_a_token(engine: OnnxEngine) -> float:
    """How long a run over one token takes, the quickest of a few. Empties the cache."""
    found = []
    engine.truncate(0)
    for token in range(min(_TRIED, engine.context_length, engine.vocabulary_size)):
        started = time.perf_counter()
        engine.decode(token)
        found.append(time.perf_counter() - started)
    engine.truncate(0)
    return min(found)


def same_bits(one: OnnxEngine, other: OnnxEngine) -> bool:
    """Whether two engines give the very same logits for a pass over several tokens and for one over the next. Empties
    their caches."""
    ids = [place % one.vocabulary_size for place in range(min(_TRIED, one.context_length))]
    found = []
    for engine in (one, other):
        engine.truncate(0)
        found.append(b"".join(logits.tobytes() for logits in (engine.prefill(ids[:-1]), engine.decode(ids[-1]))))
        engine.truncate(0)
    return found[0] == found[1]
