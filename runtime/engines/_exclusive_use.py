"""Who uses a model: one answer at a time, for it has one cache, and nobody once it is closed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...models.errors import UsageError


class Use:
    """The right to a model's cache, and whether the model is there at all."""

    def __init__(self) -> None:
        self.passing = threading.Lock()
        """Held while the model computes: closing waits for it. `check` after taking it."""
        self._answering = threading.Lock()
        self._closed = self._freed = False

    @contextmanager
    def answer(self) -> Iterator[None]:
        """Make one answer, from its first pass to its last. UsageError while another is being made."""
        if not self._answering.acquire(blocking=False):
            raise UsageError("the model is in the middle of another answer, and it has one cache",
                             "end that answer first (its iterator has a close()), or open several with load_streams")
        try:
            yield
        finally:
            self._answering.release()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Compute something that is no answer and takes the cache too. UsageError as in `answer`, and when closed."""
        with self.answer(), self.passing:
            self.check()
            yield

    def check(self) -> None:
        """UsageError when the model is closed."""
        if self._closed:
            raise closed()

    def end(self) -> bool:
        """Let nobody in any more, and wait for who computes now; whether there is something left to free."""
        self._closed = True  # before the lock: whoever makes an answer takes it again and again
        with self.passing:
            left, self._freed = not self._freed, True
        return left


class Closed:
    """Stands where a library or a session was until the model was closed: whatever is asked of it is a UsageError."""

    def __getattr__(self, name: str) -> Any:
        raise closed()

    def __iter__(self) -> Any:
        raise closed()

    def __getitem__(self, place: Any) -> Any:
        raise closed()


CLOSED: Any = Closed()


def closed() -> UsageError:
    """What whoever uses a closed model is told."""
    return UsageError("the model is closed", "load it again")
