"""A GGUF file as llama.cpp has loaded it, and the context that computes with it, for one engine or several streams."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...models.errors import ArtifactError, EdgestillError
from ..machine.busy_cores import Width
from ._base import chosen_context, rows_per_pass
from ._exclusive_use import CLOSED
from ._llama import MESSAGES, library

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

BATCH = 512
"""Most tokens of a pass."""
SHARED_TOKENS = 256
"""From somewhere above (448 in a model of 135M parameters) llama.cpp's fused attention shares a cache out among the
threads and adds up what each found: the last bits depend on how many there are, so it is always the same number."""


class GgufModel:
    """A loaded file and the one context over it."""

    def __init__(self, path: Path) -> None:
        """ArtifactError when llama.cpp refuses the file, MissingExtra without llama-cpp-python."""
        self.c: Any = library()
        """llama.cpp's functions; once the model is closed, CLOSED."""
        self._path = path
        MESSAGES.clear()
        options = self.c.llama_model_default_params()
        options.n_gpu_layers = 0
        if not path.is_file():
            raise ArtifactError(f"{path}: no such file", "copy the artifact again, whole")
        self.model = self._given(self.c.llama_model_load_from_file(str(path).encode(), options))
        self._free: Any = weakref.finalize(self, self.c.llama_model_free, self.model)

    def begin(self, threads: int, **chosen: Any) -> None:
        """Make the context, `pointer`; `chosen` are fields of llama_context_params."""
        options = self.c.llama_context_default_params()
        options.n_threads = options.n_threads_batch = threads
        options.offload_kqv = options.op_offload = False
        options.no_perf = True
        for name, value in chosen.items():
            setattr(options, name, value)
        self.pointer = self._given(self.c.llama_init_from_model(self.model, options))
        self._free.detach()
        self._free = weakref.finalize(self, _free, self.c, self.pointer, self.model)

    def close(self) -> None:
        """Free both; whatever is asked of `c` then is a UsageError."""
        self.c = CLOSED
        self._free()

    def _given(self, pointer: Any) -> Any:
        if not pointer:
            reason = "; ".join(MESSAGES) or "it gives no reason"
            raise ArtifactError(f"{self._path}: llama.cpp cannot load it: {reason}",
                                "copy the artifact again, or export it again")
        return pointer


class GgufContext(GgufModel):
    """A decoder, and caches of one or several sequences; one thread at a time computes with it."""

    def __init__(self, path: Path, threads: int, context: int, cache: str, sequences: int = 1) -> None:
        """Load `path`; `context` tokens for each of `sequences`, 0 for the default length. `cache` is the type of keys
        and values, a key of kv_cache.BYTES."""
        super().__init__(path)
        c, self.threads = self.c, threads
        self.vocabulary = c.llama_model_get_vocab(self.model)
        self.vocabulary_size = int(c.llama_vocab_n_tokens(self.vocabulary))
        self.context_length = chosen_context(context, int(c.llama_model_n_ctx_train(self.model)))
        self.rewinds = not (c.llama_model_is_recurrent(self.model) or c.llama_model_is_hybrid(self.model))
        self.rows = rows_per_pass(self.vocabulary_size, BATCH)
        """Most tokens of a pass whose logits are all wanted."""
        # The fused kernel rounds keys and values of floats; without it, values in blocks are refused.
        fused = c.LLAMA_FLASH_ATTN_TYPE_DISABLED if cache == "f32" else c.LLAMA_FLASH_ATTN_TYPE_AUTO
        kept = getattr(c, f"GGML_TYPE_{cache.upper()}")
        self.begin(threads, n_ctx=self.context_length * sequences, n_batch=BATCH, n_ubatch=BATCH, n_seq_max=sequences,
                   kv_unified=False,  # what one sequence attends to must not lie among the others' tokens
                   n_outputs_max=max(self.rows, sequences), type_k=kept, type_v=kept, flash_attn_type=fused)
        pointer = self.pointer
        self.memory = c.llama_get_memory(pointer)
        self.width = Width(threads, lambda count: c.llama_set_n_threads(pointer, count, count))
        self._address = 0
        self._view: Any = None

    def run(self, batch: Batch, place: int) -> None:
        """A pass; `place`, of its first token or the furthest of several sequences, says whether the number of threads
        is free. EdgestillError where llama.cpp fails."""
        decode = self.c.llama_decode
        self.width.fit(place < SHARED_TOKENS)
        if decode(self.pointer, batch.whole):
            raise EdgestillError(f"llama.cpp failed at token {place}: {'; '.join(MESSAGES) or 'it gives no reason'}",
                                 "truncate to 0 and try again; report it if it stays")

    def logits(self, count: int) -> NDArray[np.float32]:
        """A view [count, vocabulary] of the logits of the last pass, all of whose tokens asked for them."""
        import numpy as np

        return np.ctypeslib.as_array(self.c.llama_get_logits(self.pointer), (count, self.vocabulary_size))

    def last(self) -> NDArray[np.float32]:
        """A view [vocabulary] of the logits of the one token that asked for them."""
        pointer = self.c.llama_get_logits(self.pointer)
        address = ctypes.cast(pointer, ctypes.c_void_p).value or 0
        if address != self._address:  # the buffer moves when it grows
            import numpy as np

            self._address = address
            self._view = np.ctypeslib.as_array(pointer, (self.vocabulary_size,))
        return self._view  # type: ignore[no-any-return]


class Batch:
    """A llama_batch over our own arrays."""

    def __init__(self, c: Any, sequences: Sequence[int]) -> None:
        """`sequences` says which one each token belongs to."""
        size = len(sequences)
        self.sequences = (ctypes.c_int32 * size)(*sequences)
        self.tokens, self.places = (ctypes.c_int32 * size)(), (ctypes.c_int32 * size)()
        self.wanted = (ctypes.c_int8 * size)()
        """Whether a token's logits are computed."""
        first = ctypes.addressof(self.sequences)
        self.whole = c.llama_batch()
        self.whole.n_tokens, self.whole.embd = 0, None
        for name, array in (("token", self.tokens), ("pos", self.places), ("logits", self.wanted)):
            setattr(self.whole, name, ctypes.cast(array, ctypes.POINTER(array._type_)))
        self.whole.n_seq_id = ctypes.cast((ctypes.c_int32 * size)(*[1] * size), ctypes.POINTER(ctypes.c_int32))
        self.whole.seq_id = ctypes.cast((ctypes.c_void_p * size)(*range(first, first + 4 * size, 4)),
                                        ctypes.POINTER(ctypes.POINTER(ctypes.c_int32)))

    def fill(self, ids: Sequence[int], place: int, wanted: bool = True) -> None:
        """Tokens that follow each other from `place` on, with or without their logits."""
        count = len(ids)
        self.tokens[:count] = list(ids)
        self.places[:count] = list(range(place, place + count))
        ctypes.memset(self.wanted, wanted, count)
        self.whole.n_tokens = count


def _free(c: Any, context: Any, model: Any) -> None:
    c.llama_free(context)
    c.llama_model_free(model)
