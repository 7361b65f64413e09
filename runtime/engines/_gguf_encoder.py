"""llama.cpp over an encoder in a GGUF file: it pools the tokens' states by itself."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...models.errors import ArtifactError, EdgestillError
from ._gguf_context import Batch, GgufModel
from ._llama import MESSAGES

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


class GgufEncoder:
    """A loaded encoder without a head."""

    def __init__(self, path: Path, threads: int, pooling: str) -> None:
        """Load `path`; `pooling` is `mean` or `cls`. ArtifactError when llama.cpp refuses it or it is no encoder."""
        self._passing = threading.Lock()
        self._loaded = loaded = GgufModel(path)
        self.width = int(loaded.c.llama_model_n_embd(loaded.model))
        """Length of a vector."""
        limit = int(loaded.c.llama_model_n_ctx_train(loaded.model))  # a text is read in one pass, or not at all
        loaded.begin(threads, n_ctx=limit, n_batch=limit, n_ubatch=limit, n_seq_max=1, embeddings=True,
                     flash_attn_type=loaded.c.LLAMA_FLASH_ATTN_TYPE_DISABLED,  # the fused kernel rounds keys and values
                     pooling_type=getattr(loaded.c, f"LLAMA_POOLING_TYPE_{pooling.upper()}"))
        self._batch = Batch(loaded.c, [0] * limit)
        if loaded.c.llama_get_memory(loaded.pointer):
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
            self._loaded.close()

    def _vector(self, ids: Sequence[int]) -> NDArray[np.float32]:
        import numpy as np

        c, pointer = self._loaded.c, self._loaded.pointer
        encode = c.llama_encode  # first: it says when the model is closed
        self._batch.fill(ids, 0)
        if encode(pointer, self._batch.whole):
            raise EdgestillError(f"llama.cpp failed on a text of {len(ids)} tokens: "
                                 f"{'; '.join(MESSAGES) or 'it gives no reason'}", "report it with the text")
        return np.ctypeslib.as_array(c.llama_get_embeddings_seq(pointer, 0), (self.width,))
