"""A model at work: its worker threads, and the requests that wait for one in the order they came."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..loading.load import load_streams
from .validation import Refusal

Work = Callable[[Any, threading.Event], Iterator[Any]]
"""What is done with a model, in one of its threads; the event says that nobody waits for it any more."""
_END = object()
_FADE = 0.9
_FRAME = 1 / 30
"""How often the loop looks at what an answer has become, in seconds: text that grows so often flows, and a look takes
.6 ms from the model. What comes after a longer silence is looked at as soon as it comes."""


class Job:
    """A request's work; iterating it yields what the work yields, and raises what it raises."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._loop = asyncio.get_running_loop()
        self._items: deque[Any] = deque()
        self._called = self._ended = False  # whether the loop has been told to look, and will look again by itself
        self._came = asyncio.Event()
        self.asked, self.begun = time.perf_counter(), 0.0
        self.cancel = threading.Event()

    @property
    def queue_ms(self) -> float:
        """How long it waited for a worker."""
        return max(0.0, self.begun - self.asked) * 1000

    async def __aiter__(self) -> AsyncIterator[Any]:
        while True:
            while self._items:
                item = self._items.popleft()
                if item is _END:
                    return
                if isinstance(item, Exception):
                    raise item
                yield item
            self._came.clear()
            await self._came.wait()

    @property
    def ready(self) -> bool:
        """Whether the next item has come already."""
        return bool(self._items)

    def run(self, model: Any) -> Exception | None:
        """In a worker: do it; gives back the error that is to end it."""
        self.begun = time.perf_counter()
        try:
            for item in self._work(model, self.cancel):
                self._hand_over(item)
                if self.cancel.is_set():
                    break
        except Exception as error:  # the request's, not the worker's: it is raised where the answer is awaited
            return error
        return None

    def end(self, error: Exception | None = None) -> None:
        """Nothing more comes."""
        self._ended = True
        self._items.append(error or _END)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._came.set)

    def _hand_over(self, item: Any) -> None:
        self._items.append(item)
        if not self._called and not self._loop.is_closed():
            self._called = True
            self._loop.call_soon_threadsafe(self._look)

    def _look(self) -> None:
        if self._items and not self._ended:
            self._loop.call_later(_FRAME, self._look)
        else:
            self._called = False  # the next item calls; one that came in this moment is seen below
        if self._items:
            self._came.set()


class Station:
    """A served model, opened once for every stream that it answers at a time."""

    def __init__(self, name: str, models: Sequence[Any], places: int) -> None:
        """`places` requests may wait; `models` are the same model, each with a cache of its own."""
        self.name, self.model = name, models[0]
        self.streams, self.places = len(models), places
        self.created = int(time.time())
        self.active = 0
        self._seconds = 1.0
        self._waiting: deque[Job] = deque()
        self._change = threading.Condition()
        self._open = True
        self._models = list(models)
        self._threads = [threading.Thread(target=self._serve, args=(model,), name=f"{name}-{index}", daemon=True)
                         for index, model in enumerate(models)]
        for thread in self._threads:
            thread.start()

    @classmethod
    def open(cls, name: str, path: Path, places: int, streams: int, threads: int, context: int = 0) -> Station:
        """Load a model; errors as in `load`."""
        return cls(name, load_streams(path, streams, threads, context), places)

    @property
    def works(self) -> bool:
        """Whether a worker takes requests."""
        return self._open and any(thread.is_alive() for thread in self._threads)

    @property
    def waiting(self) -> int:
        """Requests that wait for a worker."""
        return len(self._waiting)

    @property
    def refusal(self) -> Refusal | None:
        """429 when the queue is full."""
        waiting = len(self._waiting)
        if self.active + waiting < self.streams + self.places:
            return None
        wait = max(1, math.ceil(self._seconds * (waiting + 1) / self.streams))
        return Refusal(f"{self.name}: {waiting} requests are waiting, the limit is {self.places}",
                       status=429, code="queue_full", headers={"Retry-After": str(wait)})

    def submit(self, work: Work) -> Job:
        """Put work at the end of the queue; Refusal 429 when it is full."""
        job = Job(work)
        with self._change:
            if (refusal := self.refusal) is not None:
                raise refusal
            self._waiting.append(job)
            self._change.notify()
        return job

    def leave(self, job: Job) -> None:
        """Nobody waits for `job` any more: it gives up its place, or ends after its next token."""
        job.cancel.set()
        with self._change:
            if job in self._waiting:
                self._waiting.remove(job)
                job.end()

    def close(self, patience: float | None = None) -> None:
        """End the workers after what they do now, and free the model; `patience` is how long that is waited for, in
        seconds, None without end."""
        with self._change:
            self._open = False
            for job in self._waiting:
                job.end()
            self._waiting.clear()
            self._change.notify_all()
        for thread in self._threads:
            thread.join(patience)
        for model in self._models:
            model.close()

    def _serve(self, model: Any) -> None:
        while True:
            with self._change:
                while self._open and not self._waiting:
                    self._change.wait()
                if not self._open:
                    return
                job = self._waiting.popleft()
                self.active += 1
            error = job.run(model)
            with self._change:
                self.active -= 1
                self._seconds = _FADE * self._seconds + (1 - _FADE) * (time.perf_counter() - job.begun)
            job.end(error)  # whoever asks again at once finds the worker free
