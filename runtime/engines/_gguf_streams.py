"""Several answers at a time from one GGUF file: one step of llama.cpp makes the next token of every answer that waits.

Weights are read once a step, so four together cost far less than four times one. Where llama.cpp's kernels for several
rows round otherwise than for one, as for floats, a step computes them one after the other.
Each stream is used by a thread of its own. Prompts are read in passes of their own between the steps, cut exactly as
they would be alone.
"""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from ..engine import check_ids
from ..exactness import exact_rows
from .gguf import GgufEngine, batch_of, failed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Asked = tuple[int, int, Future[NDArray[np.float32]]]
    """A token, its place, and where its logits are awaited."""

T = TypeVar("T")
_PATIENCE = 0.01
"""Seconds that a step waits for streams that took part in the last one: longer than choosing a token takes."""


class Steps:
    """Drives one context: steps of all streams that decode, and passes over one stream's prompt.

    All of it runs in one thread. OpenMP keeps a team of workers for every thread that calls it, and once the teams of
    a process are more than the cores, its barriers sleep instead of spinning: 100 switches a token, 15 % of its time.
    """

    def __init__(self, engine: GgufEngine, count: int) -> None:
        """`engine` has a context of `count` sequences."""
        self._engine = engine
        # An answer may not depend on how many others are made at the same time.
        self._together = exact_rows(engine, count)
        self._tokens, self._places = (ctypes.c_int32 * count)(), (ctypes.c_int32 * count)()
        self._wanted = (ctypes.c_int8 * count)(*[1] * count)
        self._batch = batch_of(engine._c, self._tokens, self._places, self._wanted, range(count))
        self._change = threading.Condition()
        self._asked: dict[int, Asked] = {}
        self._expected: set[int] = set()
        self._works: deque[Callable[[], None]] = deque()
        self._open = True
        self._thread = threading.Thread(target=self._serve, name="llama.cpp", daemon=True)
        self._thread.start()

    def step(self, stream: int, token: int, place: int) -> NDArray[np.float32]:
        """The logits [vocabulary] after `token` of a stream, computed together with what the others ask for."""
        future: Future[NDArray[np.float32]] = Future()
        with self._change:
            self._asked[stream] = token, place, future
            self._expected.add(stream)
            self._change.notify()
        return future.result()

    def alone(self, stream: int, work: Callable[[], T]) -> T:
        """What `work` gives, which uses the context for this stream alone, between two steps of the others."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(work())
            except Exception as error:
                future.set_exception(error)

        with self._change:
            self._works.append(run)
            self._expected.discard(stream)
            self._change.notify()
        return future.result()

    def rest(self, stream: int) -> None:
        """No step waits for this stream any more."""
        with self._change:
            self._expected.discard(stream)
            self._change.notify()

    def close(self) -> None:
        """End the thread after what it does now."""
        with self._change:
            self._open = False
            self._change.notify()
        self._thread.join()

    def _serve(self) -> None:
        passed: bool | None = False
        while True:
            with self._change:
                passed = self._next(passed)
                if passed is None:
                    return
                if passed:
                    work = self._works.popleft()
                else:
                    asked, self._asked = self._asked, {}
            if passed:
                work()
            else:
                self._step(asked)

    def _next(self, passed: bool | None) -> bool | None:
        """Wait for what is done next: a pass, True, a step, False, or the end, None. After a pass comes a step, if one
        is asked for."""
        while self._open:
            if self._works and not (passed and self._asked):
                return True
            if self._asked and self._expected <= self._asked.keys():
                return False
            if not self._change.wait(_PATIENCE if self._asked else None):
                self._expected &= self._asked.keys()  # whoever has not come has left
        return None

    def _step(self, asked: dict[int, Asked]) -> None:
        """Give everyone who asked the logits after his token."""
        streams = sorted(asked)
        try:
            rows = [row for part in range(0, len(streams), self._together)
                    for row in self._decode(asked, streams[part:part + self._together])]
        except Exception as error:  # all of them wait for this step, so all of them must know
            for *_, future in asked.values():
                future.set_exception(error)
            return
        for stream, row in zip(streams, rows, strict=True):
            asked[stream][2].set_result(row)

    def _decode(self, asked: dict[int, Asked], streams: Sequence[int]) -> NDArray[np.float32]:
        """llama.cpp over the tokens of `streams`; a copy of their logits [streams, vocabulary], for the next call
        overwrites them."""
        import numpy as np

        engine = self._engine
        for index, stream in enumerate(streams):
            self._tokens[index], self._places[index] = asked[stream][:2]
            self._batch.seq_id[index][0] = stream
        self._batch.n_tokens = len(streams)
        if engine._c.llama_decode(engine._context, self._batch):
            raise failed(engine)
        return np.ctypeslib.as_array(engine._c.llama_get_logits(engine._context),
                                     (len(streams), engine.vocabulary_size)).copy()


class GgufStream(GgufEngine):
    """One sequence of a shared context; see `Engine`. Arrays it returns are its own."""

    def __init__(self, owner: GgufEngine, steps: Steps, sequence: int) -> None:
        """`owner` holds the model and the context, which live as long as any stream does."""
        vars(self).update(vars(owner))
        self.held = []
        self._settled, self._sequence, self._owner, self._steps = 0, sequence, owner, steps
        size = len(owner._tokens)
        self._tokens, self._places = (ctypes.c_int32 * size)(), (ctypes.c_int32 * size)()
        self._wanted = (ctypes.c_int8 * size)()
        self._batch = batch_of(owner._c, self._tokens, self._places, self._wanted, [sequence] * size)

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
        self._steps.close()
        self._owner.close()


def streams(owner: GgufEngine, count: int) -> list[GgufEngine]:
    """The `count` sequences of an engine's context."""
    steps = Steps(owner, count)
    return [GgufStream(owner, steps, index) for index in range(count)]
