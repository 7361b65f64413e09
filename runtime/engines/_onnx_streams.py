"""Several answers at a time from one ONNX graph: caches of their own over the same weights, in turns."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .onnx import OnnxEngine

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


class Turns:
    """A lock that those who wait get in the order they came: a plain one goes to whoever asks at the right moment."""

    def __init__(self) -> None:
        self._mutex, self._waiting, self._taken = threading.Lock(), deque[threading.Lock](), False

    def __enter__(self) -> None:
        with self._mutex:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        mine.acquire()

    def __exit__(self, *error: object) -> None:
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().release()  # it stays taken
            else:
                self._taken = False


class OnnxStream(OnnxEngine):
    """One cache over a shared session; see `Engine`."""

    def __init__(self, first: OnnxEngine, turns: Turns, path: Path, folder: Path) -> None:
        """`first` holds the session."""
        self._turns = turns
        super().__init__(path, folder, first.threads, first.context_length, first._session)

    def decode(self, token: int) -> NDArray[np.float32]:
        """See `Engine.decode`."""
        with self._turns:
            return super().decode(token)

    def _pass(self, ids: Sequence[int], out: NDArray[np.float32]) -> None:
        with self._turns:
            super()._pass(ids, out)


def streams(first: OnnxEngine, path: Path, folder: Path, count: int) -> list[OnnxEngine]:
    """`count` engines over the session of `first`."""
    turns = Turns()
    return [OnnxStream(first, turns, path, folder) for _ in range(count)]
