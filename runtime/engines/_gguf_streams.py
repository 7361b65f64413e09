"""Several answers at a time from one GGUF file: one step of llama.cpp makes the next token of every answer that waits.

Weights are read once a step, whatever the number of answers, so four together cost far less than four times one.
Each stream is used by a thread of its own. Prompts are read in passes of their own between the steps, cut exactly as
they would be alone.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..engine import check_ids
from .gguf import GgufEngine, batch_of, failed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PATIENCE = 0.01
"""Seconds that a step waits for streams that took part in the last one: longer than choosing a token takes."""


class Steps:
    """Takes turns at one context: steps of all streams that decode, and passes over one stream's prompt."""

    def __init__(self, engine: GgufEngine, count: int) -> None:
        """`engine` has a context of `count` sequences."""
        self._engine = engine
        self._tokens, self._places = (ctypes.c_int32 * count)(), (ctypes.c_int32 * count)()
        self._wanted = (ctypes.c_int8 * count)(*[1] * count)
        self._batch = batch_of(engine._c, self._tokens, self._places, self._wanted, range(count))
        self._owners = [self._batch.seq_id[index][0] for index in range(count)]
        self._change = threading.Condition()
        self._asked: dict[int, tuple[int, int]] = {}
        self._made: dict[int, Any] = {}
        self._expected: set[int] = set()
        self._busy = self._passed = False
        self._readers = 0

    def step(self, stream: int, token: int, place: int) -> NDArray[np.float32]:
        """The logits [vocabulary] after `token` of a stream, computed together with what the others ask for."""
        with self._change:
            self._asked[stream] = token, place
            self._expected.add(stream)
            self._change.notify_all()
            while stream not in self._made:
                if self._busy or (self._readers and not self._passed):
                    self._change.wait()
                elif self._expected <= self._asked.keys() or not self._change.wait(_PATIENCE):
                    if self._busy or stream in self._made:
                        continue
                    self._expected &= self._asked.keys()  # whoever has not come has left
                    asked, self._asked, self._busy, self._passed = self._asked, {}, True, False
                    break
            else:
                return self._result(stream)
        try:
            made: dict[int, Any] = self._decode(asked)
        except Exception as error:  # all of them wait for this step, so all of them must know
            made = dict.fromkeys(asked, error)
        with self._change:
            self._made |= made
            self._busy = False
            self._change.notify_all()
            return self._result(stream)

    def rest(self, stream: int) -> None:
        """No step waits for this stream any more."""
        with self._change:
            self._expected.discard(stream)
            self._change.notify_all()

    def __enter__(self) -> None:
        """Begin to use the context for one stream alone, between two steps of the others."""
        with self._change:
            self._readers += 1
            while self._busy or (self._passed and self._asked):
                self._change.wait()
            self._readers -= 1
            self._busy = self._passed = True

    def __exit__(self, *error: object) -> None:
        """Let the others go on."""
        with self._change:
            self._busy = False
            self._change.notify_all()

    def _result(self, stream: int) -> NDArray[np.float32]:
        made = self._made.pop(stream)
        if isinstance(made, Exception):
            raise made
        row: NDArray[np.float32] = made
        return row

    def _decode(self, asked: dict[int, tuple[int, int]]) -> dict[int, NDArray[np.float32]]:
        """One step of llama.cpp over tokens and places by stream; copies of their logits, for the next step
        overwrites them."""
        import numpy as np

        engine, streams = self._engine, sorted(asked)
        for index, stream in enumerate(streams):
            self._tokens[index], self._places[index] = asked[stream]
            self._batch.seq_id[index][0] = stream
        self._batch.n_tokens = len(streams)
        if engine._c.llama_decode(engine._context, self._batch):
            raise failed(engine)
        rows = np.ctypeslib.as_array(engine._c.llama_get_logits(engine._context),
                                     (len(streams), engine.vocabulary_size))
        return {stream: rows[index].copy() for index, stream in enumerate(streams)}


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
        with self._steps:
            return super().prefill(ids).copy()

    def decode(self, token: int) -> NDArray[np.float32]:
        """See `Engine.decode`."""
        check_ids([token], len(self.held), self.context_length, self.vocabulary_size)
        logits = self._steps.step(self._sequence, token, len(self.held))
        self.held.append(token)
        return logits

    def extend(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """See `Engine.extend`."""
        with self._steps:
            return super().extend(ids).copy()

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """See `Engine.logits`."""
        check_ids(ids, 0, self.context_length, self.vocabulary_size)
        self.truncate(0)
        with self._steps:
            return self._all_logits(ids)

    def truncate(self, length: int) -> None:
        """See `Engine.truncate`."""
        with self._steps:
            super().truncate(length)

    def rest(self) -> None:
        """See `Engine.rest`."""
        self._steps.rest(self._sequence)

    def saved(self) -> list[NDArray[Any]]:
        """See `Engine.saved`."""
        with self._steps:
            return super().saved()

    def restore(self, ids: Sequence[int], arrays: Sequence[NDArray[Any]]) -> None:
        """See `Engine.restore`."""
        check_ids(ids, 0, self.context_length, self.vocabulary_size)
        self.truncate(0)
        with self._steps:
            self._restore(ids, arrays)

    def close(self) -> None:
        """See `Engine.close`; the model goes with the first stream that is closed, so all are closed together."""
        self._owner.close()


def streams(owner: GgufEngine, count: int) -> list[GgufEngine]:
    """The `count` sequences of an engine's context."""
    steps = Steps(owner, count)
    return [GgufStream(owner, steps, index) for index in range(count)]
