"""onnxruntime over decoder graphs whose attention is left in pieces, as optimum exports them for transformers.js.

Such a graph appends to the cache by copying it: what a run gives back is what the next one takes. Slower than
`OnnxEngine`, and only met in files made elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...models.errors import ArtifactError
from ._base import Cache, check_ids, rows_per_pass
from ._exclusive_use import CLOSED

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ...models.artifact import Artifact

_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16"}


class ConcatEngine(Cache):
    """See `Engine`."""

    block = 16

    def __init__(self, artifact: Artifact, session: Any, threads: int, context_length: int) -> None:
        """Take a loaded `session` for at most `context_length` tokens; ArtifactError when it is no decoder."""
        import numpy as np

        super().__init__()
        self.threads, self.context_length, self._session = threads, context_length, session
        self._inputs = {item.name: item for item in session.get_inputs()}
        outputs = {item.name: item for item in session.get_outputs()}
        self._past = [name for name in self._inputs if name.startswith("past_key_values.")]
        self._present = [name.replace("past_key_values.", "present.") for name in self._past]
        optional = {"position_ids", "num_logits_to_keep"}
        unknown = self._inputs.keys() - {"input_ids", "attention_mask", *optional, *self._past}
        missing = {"logits", *self._present} - outputs.keys()
        width = outputs["logits"].shape[-1] if "logits" in outputs else None
        width = width if isinstance(width, int) else artifact.manifest.dimensions.get("vocabulary")
        shapes = {tuple(self._inputs[name].shape[axis] for axis in (1, 3)) for name in self._past}
        sized = len(shapes) == 1 and all(isinstance(size, int) for size in next(iter(shapes)))
        if not sized or unknown or missing or not width:
            raise ArtifactError(f"{artifact.model_path}: no decoder graph with a cache of keys and values of one size "
                                f"(unknown inputs: {sorted(unknown) or 'none'}, missing: {sorted(missing) or 'none'})",
                                "export the model with edgestill, or with onnxruntime_genai's builder")
        self.vocabulary_size = int(width)
        self._rows = rows_per_pass(self.vocabulary_size)
        heads, size = next(iter(shapes))
        dtype = _DTYPES[self._inputs[self._past[0]].type]
        self._cache = [np.zeros((1, heads, 0, size), dtype) for _ in self._past]

    def prefill(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """See `Engine.prefill`."""
        check_ids(ids, self.position, self.context_length, self.vocabulary_size)
        logits = [self._pass(part) for part in self._passes(ids, self._rows)][-1]
        last: NDArray[np.float32] = logits[-1]
        return last

    def decode(self, token: int) -> NDArray[np.float32]:
        """See `Engine.decode`."""
        return self.prefill([token])

    def extend(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """See `Engine.extend`."""
        check_ids(ids, self.position, self.context_length, self.vocabulary_size)
        return self._pass(ids)

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """See `Engine.logits`."""
        import numpy as np

        check_ids(ids, 0, self.context_length, self.vocabulary_size)
        self.truncate(0)
        return np.concatenate([self._pass(ids[start : start + self._rows]) for start in range(0, len(ids), self._rows)])

    def truncate(self, length: int) -> None:
        """See `Engine.truncate`."""
        super().truncate(length)
        self._cache = [array[:, :, :length] for array in self._cache]

    def saved(self) -> list[NDArray[Any]]:
        """See `Engine.saved`."""
        return [array.copy() for array in self._cache]

    def restore(self, ids: Sequence[int], arrays: Sequence[NDArray[Any]]) -> None:
        """See `Engine.restore`."""
        check_ids(ids, 0, self.context_length, self.vocabulary_size)
        self.truncate(0)
        wanted = [(1, array.shape[1], len(ids), array.shape[3]) for array in self._cache]
        if [array.shape for array in arrays] != wanted or arrays[0].dtype != self._cache[0].dtype:
            raise ArtifactError(f"a state of {len(ids)} tokens does not fit this model's {len(wanted)} caches",
                                "compute the state again with this model")
        self._cache = list(arrays)
        self._note(ids)

    def reserve(self, length: int) -> None:
        """See `Engine.reserve`. Every run makes its own room."""

    def close(self) -> None:
        """See `Engine.close`."""
        if self.use.end():
            self._cache = self._session = CLOSED

    def _pass(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Run tokens after what the cache holds; their logits [n, vocabulary]."""
        import numpy as np

        start, total = self.position, self.position + len(ids)
        feeds = {"input_ids": np.array([ids], np.int64), "attention_mask": np.ones((1, total), np.int64),
                 "position_ids": np.arange(start, total, dtype=np.int64)[None],
                 "num_logits_to_keep": np.array(len(ids), np.int64), **dict(zip(self._past, self._cache, strict=True))}
        found, *self._cache = self._session.run(
            ["logits", *self._present], {name: value for name, value in feeds.items() if name in self._inputs})
        self._note(ids)
        logits: NDArray[np.float32] = found[0].astype(np.float32, copy=False)
        return logits
