"""Several answers at a time from one GGUF file: one step of llama.cpp makes the next token of every answer that waits.

Weights are read once a step, so four together cost far less than four times one. Where llama.cpp's kernels for several
rows round otherwise than for one, as for floats, a step computes them one after the other.
Each stream is used by a thread of its own. Prompts are read in passes of their own between the steps, cut exactly as
they would be alone.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from ._base import check_ids
from ._batch_exactness import exact_rows
from ._exclusive_use import closed
from ._gguf_context import Batch, GgufContext
from ._gguf_engine import GgufEngine

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Reply = SimpleQueue[Any]
    """Where an answer is awaited: what was asked for, or the exception that it ended with."""
    Message = tuple[int, tuple[int, int] | Callable[[], Any] | None, Reply | None]
    """A stream, and what it wants: the logits after a token at a place, a pass of its own, or, None, nothing more."""

T = TypeVar("T")
_PATIENCE = 0.01
"""Seconds that a step waits for streams that took part in the last one: longer than choosing a token takes."""


class Steps:
    """What streams ask of the thread that drives their context; it ends when they are gone.

    All of it runs in one thread, what is measured at the start too. OpenMP keeps a team of workers for every thread
    that calls it, and once the teams of a process are more than the cores, its barriers sleep instead of spinning: 100
    switches a token, 15 to 30 % of its time.
    """

    def __init__(self, context: GgufContext, count: int) -> None:
        """`context` is of `count` sequences."""
        inbox: SimpleQueue[Message | None] = SimpleQueue()
        self._inbox = inbox
        self._door = threading.Lock()  # nothing gets into the queue behind its end
        self._open = True
        driver = Driver(context, count, inbox)
        self._thread = threading.Thread(target=driver.run, name="llama.cpp", daemon=True)
        self._thread.start()
        self._end = weakref.finalize(self, inbox.put, None)
        self.alone(0, driver.measure)

    def step(self, stream: int, token: int, place: int) -> NDArray[np.float32]:
        """The logits [vocabulary] after `token` of a stream, computed together with what the others ask for; a view,
        valid until the stream's next step."""
        return self._answer(stream, (token, place))  # type: ignore[no-any-return]

    def alone(self, stream: int, work: Callable[[], T]) -> T:
        """What `work` gives, which uses the context for this stream alone, between two steps of the others."""
        return self._answer(stream, work)  # type: ignore[no-any-return]

    def rest(self, stream: int) -> None:
        """No step waits for this stream any more."""
        with self._door:
            if self._open:
                self._inbox.put((stream, None, None))

    def close(self) -> None:
        """End the thread after what it does now; whoever waits for more is told that the model is closed."""
        with self._door:
            self._open = False
            self._end()
        self._thread.join()

    def _answer(self, stream: int, asked: tuple[int, int] | Callable[[], Any]) -> Any:
        reply: Reply = SimpleQueue()
        with self._door:
            if not self._open:
                raise closed()
            self._inbox.put((stream, asked, reply))
        answer = reply.get()
        if isinstance(answer, Exception):
            raise answer
        return answer


class Driver:
    """Reads what streams want from a queue, and drives the context: steps of all that decode, and passes of one."""

    def __init__(self, context: GgufContext, count: int, inbox: SimpleQueue[Message | None]) -> None:
        import numpy as np

        self._context, self._inbox = context, inbox
        self._together = 1
        self._batch = Batch(context.c, range(count))
        self._batch.wanted[:] = [1] * count
        self._rows = np.empty((count, context.vocabulary_size), np.float32)
        self._asked: dict[int, tuple[tuple[int, int], Reply]] = {}
        self._expected: set[int] = set()
        self._works: deque[tuple[Callable[[], Any], Reply]] = deque()
        self._passed = False

    def measure(self) -> None:
        """Find out how many tokens a step may take: an answer may not depend on how many others are made meanwhile."""
        self._together = exact_rows(GgufEngine(self._context), len(self._rows))

    def run(self) -> None:
        """Until it is told to end."""
        while True:
            able = self._next()
            if able is not None and self._inbox.empty():
                able()
                continue
            try:
                message = self._inbox.get(timeout=_PATIENCE if self._asked else None)
            except Empty:
                self._expected &= self._asked.keys()  # whoever has not come has left
                continue
            if message is None:
                for reply in (*(reply for _, reply in self._asked.values()), *(reply for _, reply in self._works)):
                    reply.put(closed())
                return
            self._take(*message)

    def _take(self, stream: int, wanted: Any, reply: Any) -> None:
        if isinstance(wanted, tuple):
            self._asked[stream] = wanted, reply
            self._expected.add(stream)
            return
        self._expected.discard(stream)
        self._asked.pop(stream, None)  # whoever asks for something else waits no longer: he was interrupted
        if wanted is not None:
            self._works.append((wanted, reply))

    def _next(self) -> Callable[[], None] | None:
        """What can be done now. After a pass comes a step, if one is asked for."""
        if self._works and not (self._passed and self._asked):
            return self._pass
        return self._step if self._asked and self._expected <= self._asked.keys() else None

    def _pass(self) -> None:
        self._passed = True
        work, reply = self._works.popleft()
        try:
            reply.put(work())
        except Exception as error:
            reply.put(error)

    def _step(self) -> None:
        """Give everyone who asked the logits after his token."""
        self._passed = False
        asked, self._asked = self._asked, {}
        streams = sorted(asked)
        try:
            for part in range(0, len(streams), self._together):
                self._decode(asked, streams[part:part + self._together])
        except Exception as error:  # all of them wait for this step, so all of them must know
            for _, reply in asked.values():
                reply.put(error)
            return
        for stream, (_, reply) in asked.items():
            reply.put(self._rows[stream])

    def _decode(self, asked: dict[int, Any], streams: Sequence[int]) -> None:
        """llama.cpp over the tokens of `streams`; their logits are copied, for the next call overwrites them."""
        batch = self._batch
        for index, stream in enumerate(streams):
            batch.tokens[index], batch.places[index] = asked[stream][0]
            batch.sequences[index] = stream
        batch.whole.n_tokens = len(streams)
        self._context.run(batch, max(batch.places[:len(streams)]))
        self._rows[streams] = self._context.logits(len(streams))


class GgufStream(GgufEngine):
    """One sequence of a shared context; see `Engine`."""

    def __init__(self, context: GgufContext, sequence: int, steps: Steps) -> None:
        """Streams of one context have their `steps` in common."""
        super().__init__(context, sequence)
        self._steps = steps

    def prefill(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """See `Engine.prefill`."""
        return self._steps.alone(self._sequence, lambda: super(GgufStream, self).prefill(ids).copy())

    def decode(self, token: int) -> NDArray[np.float32]:
        """See `Engine.decode`."""
        check_ids([token], len(self.held), self.context_length, self.vocabulary_size)
        logits = self._steps.step(self._sequence, token, len(self.held))
        self.held.append(token)
        return logits

    def extend(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """See `Engine.extend`."""
        return self._steps.alone(self._sequence, lambda: super(GgufStream, self).extend(ids).copy())

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """See `Engine.logits`."""
        check_ids(ids, 0, self.context_length, self.vocabulary_size)
        self.truncate(0)
        return self._steps.alone(self._sequence, lambda: self._all_logits(ids))

    def truncate(self, length: int) -> None:
        """See `Engine.truncate`."""
        self._steps.alone(self._sequence, lambda: super(GgufStream, self).truncate(length))

    def rest(self) -> None:
        """See `Engine.rest`."""
        self._steps.rest(self._sequence)

    def saved(self) -> list[NDArray[Any]]:
        """See `Engine.saved`."""
        return self._steps.alone(self._sequence, super().saved)

    def restore(self, ids: Sequence[int], arrays: Sequence[NDArray[Any]]) -> None:
        """See `Engine.restore`."""
        check_ids(ids, 0, self.context_length, self.vocabulary_size)
        self.truncate(0)
        self._steps.alone(self._sequence, lambda: self._restore(ids, arrays))

    def close(self) -> None:
        """See `Engine.close`; the model goes with the first stream that is closed, so all are closed together."""
        if self.use.end():
            self._steps.close()
            self._context.close()


def streams(context: GgufContext, count: int) -> list[GgufEngine]:
    """The `count` sequences of a context."""
    steps = Steps(context, count)
    return [GgufStream(context, index, steps) for index in range(count)]
