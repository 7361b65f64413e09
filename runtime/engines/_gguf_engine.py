"""llama.cpp over a GGUF file, driven through its C interface with a batch of our own."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...models.errors import ArtifactError, EdgestillError
from ._base import Cache, check_ids, check_length
from ._gguf_context import BATCH, Batch, GgufContext
from ._llama import MESSAGES, piece, special, tokenize

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class GgufEngine(Cache):
    """See `Engine`."""

    block = 64
    """From this many rows on llama.cpp attends in tiles; below, its kernels compute the same bits for any number."""

    def __init__(self, context: GgufContext, sequence: int = 0) -> None:
        """One of a context's sequences, which goes with the engine when it is closed."""
        super().__init__()
        self._context, self._sequence = context, sequence
        self.vocabulary_size, self.context_length = context.vocabulary_size, context.context_length
        self.threads, self.rewinds = context.threads, context.rewinds
        self._rows, self._batch = context.rows, Batch(context.c, [sequence] * BATCH)
        self._pieces: dict[int, bytes] = {}

    def prefill(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """See `Engine.prefill`."""
        check_ids(ids, self.position, self.context_length, self.vocabulary_size)
        last = len(self.held) + len(ids)
        for part in self._passes(ids, BATCH):
            self._pass(part, False, len(self.held) + len(part) == last)
        return self._context.last()

    def decode(self, token: int) -> NDArray[np.float32]:
        """See `Engine.decode`."""
        position = len(self.held)
        if position >= self.context_length or not 0 <= token < self.vocabulary_size:
            check_ids([token], position, self.context_length, self.vocabulary_size)
        batch, context = self._batch, self._context
        batch.tokens[0], batch.places[0], batch.wanted[0], batch.whole.n_tokens = token, position, 1, 1
        context.run(batch, position)
        self.held.append(token)
        return context.last()

    def extend(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """See `Engine.extend`."""
        check_ids(ids, self.position, self.context_length, self.vocabulary_size)
        self._pass(ids)
        return self._context.logits(len(ids))

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """See `Engine.logits`."""
        check_ids(ids, 0, self.context_length, self.vocabulary_size)
        self.truncate(0)
        return self._all_logits(ids)

    def _all_logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Logits of every token, from an empty cache."""
        import numpy as np

        result = np.empty((len(ids), self.vocabulary_size), np.float32)
        for start in range(0, len(ids), self._rows):
            part = ids[start:start + self._rows]
            self._pass(part)
            result[start:start + len(part)] = self._context.logits(len(part))
        return result

    def truncate(self, length: int) -> None:
        """See `Engine.truncate`. A state beside the cache goes back by reading again."""
        check_length(length, self.position)
        if not self.rewinds and length < self.position:
            kept = self.held[:length]
            self._context.c.llama_memory_clear(self._context.memory, True)
            super().truncate(0)
            if kept:
                self.prefill(kept)
            return
        if not self._context.c.llama_memory_seq_rm(self._context.memory, self._sequence, length, -1):
            raise EdgestillError(f"llama.cpp cannot forget what it read behind token {length}",
                                 "truncate to 0 and give the prompt again")
        super().truncate(length)

    def saved(self) -> list[NDArray[Any]]:
        """See `Engine.saved`."""
        import numpy as np

        c, pointer = self._context.c, self._context.pointer
        state = np.empty(c.llama_state_seq_get_size(pointer, self._sequence), np.uint8)
        c.llama_state_seq_get_data(pointer, _bytes(state), state.nbytes, self._sequence)
        return [state]

    def restore(self, ids: Sequence[int], arrays: Sequence[NDArray[Any]]) -> None:
        """See `Engine.restore`."""
        check_ids(ids, 0, self.context_length, self.vocabulary_size)
        self.truncate(0)
        self._restore(ids, arrays)

    def _restore(self, ids: Sequence[int], arrays: Sequence[NDArray[Any]]) -> None:
        """Fill the empty cache."""
        c, context = self._context.c, self._context
        state = arrays[0] if len(arrays) == 1 and arrays[0].dtype == "uint8" else None
        read = 0 if state is None else c.llama_state_seq_set_data(context.pointer, _bytes(state), state.nbytes,
                                                                  self._sequence)
        if state is None or read != state.nbytes or \
                c.llama_memory_seq_pos_max(context.memory, self._sequence) != len(ids) - 1:
            c.llama_memory_seq_rm(context.memory, self._sequence, -1, -1)
            raise ArtifactError(f"llama.cpp cannot restore a state of {len(ids)} tokens: "
                                f"{'; '.join(MESSAGES) or 'it gives no reason'}", "compute the state again")
        self._note(ids)

    def reserve(self, length: int) -> None:
        """See `Engine.reserve`. llama.cpp takes the whole context's memory when it opens the file."""

    def close(self) -> None:
        """See `Engine.close`."""
        if self.use.end():
            self._context.close()

    def tokenize(self, text: str, special: bool = False) -> list[int]:
        """llama.cpp's own ids of a text, to compare with `Codec.encode(text, add_special_tokens=special)`."""
        return tokenize(self._context.c, self._context.vocabulary, text, special)

    def text_of(self, ids: Sequence[int]) -> bytes:
        """llama.cpp's own text of ids, special tokens included: what a stream of them shows, as UTF-8 bytes."""
        for token in set(ids) - self._pieces.keys():
            self._pieces[token] = piece(self._context.c, self._context.vocabulary, token)
        return b"".join(self._pieces[token] for token in ids)

    def is_stop(self, token: int) -> bool:
        """Whether llama.cpp ends generation at this token."""
        return bool(self._context.c.llama_vocab_is_eog(self._context.vocabulary, token))

    def special(self) -> dict[str, int]:
        """The ids of the tokens that a template in the file may print, by their names there: bos_token, eos_token."""
        return special(self._context.c, self._context.vocabulary)

    def chat_template(self) -> str | None:
        """The chat template in the file, which every other program will use; None without one."""
        text = self._context.c.llama_model_chat_template(self._context.model, None)
        return None if text is None else str(text.decode())

    def _pass(self, ids: Sequence[int], wanted: bool = True, last: bool = True) -> None:
        """Run up to one batch of tokens after what the cache holds, for the logits of all, of the last, or of none."""
        self._batch.fill(ids, self.position, wanted)
        self._batch.wanted[len(ids) - 1] = last
        self._context.run(self._batch, self.position)
        self._note(ids)


def _bytes(array: NDArray[Any]) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
