"""llama.cpp over a GGUF file, driven through its C interface with a batch of our own."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...models.errors import ArtifactError, EdgestillError
from ..machine.busy_cores import Width
from ._base import Cache, check_ids, check_length, chosen_context, rows_per_pass
from ._exclusive_use import CLOSED
from ._llama import MESSAGES, library, piece, tokenize

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

_BATCH = 512
SHARED_TOKENS = 256
"""From somewhere above (448 in a model of 135M parameters) llama.cpp's fused attention shares a cache out among the
threads and adds up what each found: the last bits depend on how many there are, so it is always the same number."""


class GgufEngine(Cache):
    """See `Engine`."""

    block = 64
    """From this many rows on llama.cpp attends in tiles; below, its kernels compute the same bits for any number."""

    def __init__(self, path: Path, threads: int, context: int, exact: bool, sequences: int = 1) -> None:
        """Load `path`; `context` tokens for each of `sequences`, 0 for the default length."""
        super().__init__()
        self._c = c = library()
        MESSAGES.clear()
        model_options = c.llama_model_default_params()
        model_options.n_gpu_layers = 0
        if not path.is_file():
            raise ArtifactError(f"{path}: no such file", "copy the artifact again, whole")
        model = c.llama_model_load_from_file(str(path).encode(), model_options)
        if not model:
            raise _refused(path)
        self._free: Any = weakref.finalize(self, c.llama_model_free, model)
        self._vocabulary = c.llama_model_get_vocab(model)
        self.vocabulary_size = int(c.llama_vocab_n_tokens(self._vocabulary))
        self.context_length = chosen_context(context, int(c.llama_model_n_ctx_train(model)))
        self.threads = threads
        self.rewinds = not (c.llama_model_is_recurrent(model) or c.llama_model_is_hybrid(model))
        self._rows = rows_per_pass(self.vocabulary_size, _BATCH)
        options = c.llama_context_default_params()
        options.n_ctx = self.context_length * sequences
        options.n_batch = options.n_ubatch = _BATCH
        options.n_seq_max = sequences
        options.kv_unified = False  # what one sequence attends to must not lie among the others' tokens
        options.n_outputs_max = max(self._rows, sequences)
        options.n_threads = options.n_threads_batch = threads
        options.offload_kqv = options.op_offload = False
        options.no_perf = True
        if exact:  # the fused kernel rounds keys and values
            options.flash_attn_type = c.LLAMA_FLASH_ATTN_TYPE_DISABLED
            options.type_k = options.type_v = c.GGML_TYPE_F32
        context_pointer = c.llama_init_from_model(model, options)
        if not context_pointer:
            raise _refused(path)
        self._free.detach()
        self._free = weakref.finalize(self, _free, c, context_pointer, model)
        self._context, self._memory = context_pointer, c.llama_get_memory(context_pointer)
        self._width = Width(threads, lambda count: c.llama_set_n_threads(context_pointer, count, count))
        self._tokens = (ctypes.c_int32 * _BATCH)()
        self._places = (ctypes.c_int32 * _BATCH)()
        self._wanted = (ctypes.c_int8 * _BATCH)()
        self._sequence = 0
        self._batch = batch_of(c, self._tokens, self._places, self._wanted, [0] * _BATCH)
        self._address = 0
        self._view: Any = None

    def prefill(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """See `Engine.prefill`."""
        check_ids(ids, self.position, self.context_length, self.vocabulary_size)
        last = len(self.held) + len(ids)
        for part in self._passes(ids, _BATCH):
            ctypes.memset(self._wanted, 0, len(part))
            self._wanted[len(part) - 1] = len(self.held) + len(part) == last
            self._pass(part)
        return self._last()

    def decode(self, token: int) -> NDArray[np.float32]:
        """See `Engine.decode`."""
        position = len(self.held)
        if position >= self.context_length or not 0 <= token < self.vocabulary_size:
            check_ids([token], position, self.context_length, self.vocabulary_size)
        self._tokens[0] = token
        self._places[0] = position
        self._wanted[0] = 1
        self._batch.n_tokens = 1
        self._width.fit(position < SHARED_TOKENS)
        if self._c.llama_decode(self._context, self._batch):
            raise failed(self)
        self.held.append(token)
        return self._last()

    def extend(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """See `Engine.extend`."""
        check_ids(ids, self.position, self.context_length, self.vocabulary_size)
        ctypes.memset(self._wanted, 1, len(ids))
        self._pass(ids)
        return self._rows_of(len(ids))

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
            ctypes.memset(self._wanted, 1, len(part))
            self._pass(part)
            result[start:start + len(part)] = self._rows_of(len(part))
        return result

    def truncate(self, length: int) -> None:
        """See `Engine.truncate`. A state beside the cache goes back by reading again."""
        check_length(length, self.position)
        if not self.rewinds and length < self.position:
            kept = self.held[:length]
            self._c.llama_memory_clear(self._memory, True)
            super().truncate(0)
            if kept:
                self.prefill(kept)
            return
        if not self._c.llama_memory_seq_rm(self._memory, self._sequence, length, -1):
            raise EdgestillError(f"llama.cpp cannot forget what it read behind token {length}",
                                 "truncate to 0 and give the prompt again")
        super().truncate(length)

    def saved(self) -> list[NDArray[Any]]:
        """See `Engine.saved`."""
        import numpy as np

        state = np.empty(self._c.llama_state_seq_get_size(self._context, self._sequence), np.uint8)
        self._c.llama_state_seq_get_data(self._context, _bytes(state), state.nbytes, self._sequence)
        return [state]

    def restore(self, ids: Sequence[int], arrays: Sequence[NDArray[Any]]) -> None:
        """See `Engine.restore`."""
        check_ids(ids, 0, self.context_length, self.vocabulary_size)
        self.truncate(0)
        self._restore(ids, arrays)

    def _restore(self, ids: Sequence[int], arrays: Sequence[NDArray[Any]]) -> None:
        """Fill the empty cache."""
        state = arrays[0] if len(arrays) == 1 else None
        if state is None or not self._c.llama_state_seq_set_data(self._context, _bytes(state), state.nbytes,
                                                                 self._sequence):
            raise ArtifactError(f"llama.cpp cannot restore a state of {len(ids)} tokens: "
                                f"{'; '.join(MESSAGES) or 'it gives no reason'}", "compute the state again")
        self._note(ids)

    def reserve(self, length: int) -> None:
        """See `Engine.reserve`. llama.cpp takes the whole context's memory when it opens the file."""

    def close(self) -> None:
        """See `Engine.close`."""
        if self.use.end():
            self._c = CLOSED
            self._free()

    def tokenize(self, text: str, special: bool = False) -> list[int]:
        """llama.cpp's own ids of a text, to compare with `Codec.encode(text, add_special_tokens=special)`."""
        return tokenize(self._c, self._vocabulary, text, special)

    def text_of(self, ids: Sequence[int]) -> bytes:
        """llama.cpp's own text of ids, special tokens included: what a stream of them shows, as UTF-8 bytes."""
        return b"".join(piece(self._c, self._vocabulary, token) for token in ids)

    def is_stop(self, token: int) -> bool:
        """Whether llama.cpp ends generation at this token."""
        return bool(self._c.llama_vocab_is_eog(self._vocabulary, token))

    def chat_template(self) -> str | None:
        """The chat template in the file, which every other program will use; None without one."""
        model = self._c.llama_get_model(self._context)
        text = self._c.llama_model_chat_template(model, None)
        return None if text is None else str(text.decode())

    def _pass(self, ids: Sequence[int]) -> None:
        """Run up to one batch of tokens after what the cache holds."""
        count = len(ids)
        self._tokens[:count] = list(ids)
        self._places[:count] = list(range(self.position, self.position + count))
        self._batch.n_tokens = count
        self._width.fit(self.position < SHARED_TOKENS)
        if self._c.llama_decode(self._context, self._batch):
            raise failed(self)
        self._note(ids)

    def _rows_of(self, count: int) -> NDArray[np.float32]:
        """A view of the logits of a pass whose tokens all asked for them."""
        import numpy as np

        pointer = self._c.llama_get_logits(self._context)
        return np.ctypeslib.as_array(pointer, (count, self.vocabulary_size))

    def _last(self) -> NDArray[np.float32]:
        """A view of the logits of the one token that asked for them."""
        pointer = self._c.llama_get_logits(self._context)
        address = ctypes.cast(pointer, ctypes.c_void_p).value or 0
        if address != self._address:  # the buffer moves when it grows
            import numpy as np

            self._address = address
            self._view = np.ctypeslib.as_array(pointer, (self.vocabulary_size,))
        return self._view  # type: ignore[no-any-return]


def batch_of(c: Any, tokens: Any, places: Any, wanted: Any, sequences: Sequence[int]) -> Any:
    """A llama_batch over our arrays; `sequences` says which one each token belongs to."""
    size = len(sequences)
    owners = [ctypes.pointer(ctypes.c_int32(sequence)) for sequence in sequences]
    batch = c.llama_batch()
    batch.n_tokens, batch.embd = 0, None
    for name, array in (("token", tokens), ("pos", places), ("logits", wanted)):
        setattr(batch, name, ctypes.cast(array, ctypes.POINTER(array._type_)))
    batch.n_seq_id = ctypes.cast((ctypes.c_int32 * size)(*[1] * size), ctypes.POINTER(ctypes.c_int32))
    batch.seq_id = ctypes.cast((ctypes.POINTER(ctypes.c_int32) * size)(*owners),
                               ctypes.POINTER(ctypes.POINTER(ctypes.c_int32)))
    return batch


def _bytes(array: NDArray[Any]) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))


def _refused(path: Path) -> ArtifactError:
    reason = "; ".join(MESSAGES) or "it gives no reason"
    return ArtifactError(f"{path}: llama.cpp cannot load it: {reason}", "copy the artifact again, or export it again")


def failed(engine: GgufEngine) -> EdgestillError:
    """What llama.cpp said when a pass failed."""
    return EdgestillError(f"llama.cpp failed at token {engine.position}: {'; '.join(MESSAGES) or 'it gives no reason'}",
                          "truncate to 0 and try again; report it if it stays")


def _free(c: Any, context: Any, model: Any) -> None:
    c.llama_free(context)
    c.llama_model_free(model)
