"""Several answers at a time from one ONNX graph: caches of their own over the same weights, in turns."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .onnx import OnnxEngine

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

_SLICE = 0.05
"""Seconds that a stream computes before others have their turn."""
_PATIENCE = 0.01
"""Seconds after which a stream that has not come back has lost its turn: longer than choosing a token takes."""


class Turns:
    """Who computes: streams in the order they came, each for a slice of time.

    A stream keeps its turn while it chooses its next token. Another's run in that time would share the cores with the
    choosing, and a run is as slow as the slowest of its threads: four streams that changed at every token made .86 of
    the tokens that one alone makes.
    """

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._waiting: deque[object] = deque()
        self._holder: object = None
        self._computes = False
        self._taken = self._left = 0.0

    @contextmanager
    def of(self, stream: object) -> Iterator[None]:
        """Compute, when it is the turn of `stream`."""
        with self._change:
            if self._holder is not stream:
                self._waiting.append(stream)
                while self._waiting[0] is not stream or not self._free():
                    self._change.wait(_PATIENCE if self._waiting[0] is stream else None)
                self._waiting.popleft()
                self._change.notify_all()  # the next in the row begins to watch
                self._holder, self._taken = stream, time.perf_counter()
            self._computes = True
        try:
            yield
        finally:
            with self._change:
                self._computes, self._left = False, time.perf_counter()
                if self._waiting and self._left - self._taken >= _SLICE:
                    self._hand_on()

    def rest(self, stream: object) -> None:
        """End the turn of `stream` now, if it has it."""
        with self._change:
            if self._holder is stream:
                self._hand_on()

    def _free(self) -> bool:
        return self._holder is None or (not self._computes and time.perf_counter() - self._left >= _PATIENCE)

    def _hand_on(self) -> None:
        self._holder = None
        self._change.notify_all()


class OnnxStream(OnnxEngine):
    """One cache over a shared session; see `Engine`."""

    def __init__(self, first: OnnxEngine, turns: Turns, path: Path, folder: Path) -> None:
        """`first` holds the session."""
        self._turns = turns
        super().__init__(path, folder, first.threads, first.context_length, first._session)

    def decode(self, token: int) -> NDArray[np.float32]:
        """See `Engine.decode`."""
        with self._turns.of(self):
            return super().decode(token)

    def rest(self) -> None:
        """See `Engine.rest`."""
        self._turns.rest(self)

    def _pass(self, ids: Sequence[int], out: NDArray[np.float32]) -> None:
        with self._turns.of(self):
            super()._pass(ids, out)


def streams(first: OnnxEngine, path: Path, folder: Path, count: int) -> list[OnnxEngine]:
    """`count` engines over the session of `first`."""
    turns = Turns()
    return [OnnxStream(first, turns, path, folder) for _ in range(count)]
