"""llama.cpp over an encoder in a GGUF file: it pools the tokens' states by itself."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...models.errors import ArtifactError, EdgestillError
from ._exclusive_use import CLOSED
from ._llama import MESSAGES, library

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


class GgufEncoder:
    """A loaded encoder without a head."""

    def __init__(self, path: Path, threads: int, pooling: str) -> None:
        """Load `path`; `pooling` is `mean` or `cls`. ArtifactError when llama.cpp refuses it or it is no encoder."""
        self._c = c = library()
        self._passing = threading.Lock()
        MESSAGES.clear()
        model_options = c.llama_model_default_params()
        model_options.n_gpu_layers = 0
        model = c.llama_model_load_from_file(str(path).encode(), model_options)
        if not model:
            raise _refused(path)
        self._free: Any = weakref.finalize(self, c.llama_model_free, model)
        self.width = int(c.llama_model_n_embd(model))
        """Length of a vector."""
        options = c.llama_context_default_params()
        self._limit = int(c.llama_model_n_ctx_train(model))
        options.n_ctx = options.n_batch = options.n_ubatch = self._limit  # a text is read in one pass, or not at all
        options.n_seq_max = 1
        options.n_threads = options.n_threads_batch = threads
        options.flash_attn_type = c.LLAMA_FLASH_ATTN_TYPE_DISABLED  # the fused kernel rounds keys and values
        options.embeddings = True
        options.pooling_type = {"mean": c.LLAMA_POOLING_TYPE_MEAN, "cls": c.LLAMA_POOLING_TYPE_CLS}[pooling]
        options.offload_kqv = options.op_offload = False
        options.no_perf = True
        context = c.llama_init_from_model(model, options)
        if not context:
            raise _refused(path)
        self._free.detach()
        self._batch, self._context = c.llama_batch_init(self._limit, 0, 1), context
        self._free = weakref.finalize(self, _free, c, self._batch, context, model)
        if c.llama_get_memory(context):
            raise ArtifactError(f"{path}: a decoder, which gives no vectors of texts",
                                "export an encoder without a head, such as a sentence-transformers model")

    def vectors(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """The pooled states [n, width] of token ids, one text after the other."""
        import numpy as np

        result = np.zeros((len(ids), self.width), np.float32)
        for index, row in enumerate(ids):
            if row:
                with self._passing:  # there is one batch, for whatever thread
                    result[index] = self._vector(row)
        return result

    def close(self) -> None:
        """Free the model once the text it reads is read; whatever is asked of it then is a UsageError."""
        with self._passing:
            self._c = CLOSED
            self._free()

    def _vector(self, ids: Sequence[int]) -> NDArray[np.float32]:
        import numpy as np

        encode, batch = self._c.llama_encode, self._batch  # the library first: it says when the model is closed
        batch.n_tokens = len(ids)
        for place, token in enumerate(ids):
            batch.token[place], batch.pos[place], batch.logits[place] = token, place, 1
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
        if encode(self._context, batch):
            raise EdgestillError(f"llama.cpp failed on a text of {len(ids)} tokens: "
                                 f"{'; '.join(MESSAGES) or 'it gives no reason'}", "report it with the text")
        return np.ctypeslib.as_array(self._c.llama_get_embeddings_seq(self._context, 0), (self.width,))


def _refused(path: Path) -> ArtifactError:
    return ArtifactError(f"{path}: llama.cpp cannot load it: {'; '.join(MESSAGES) or 'it gives no reason'}",
                         "copy the artifact again, or export it again")


def _free(c: Any, batch: Any, context: Any, model: Any) -> None:
    c.llama_batch_free(batch)
    c.llama_free(context)
    c.llama_model_free(model)
