"""Vectors of texts from an encoder: alike texts point the same way.

An ONNX graph gives the last hidden state of every token and the pooling is done here, as sentence-transformers and
transformers.js (pipeline "feature-extraction") do it; llama.cpp pools by itself as the GGUF says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...models.errors import DataError
from .encoder import Graph, TextEncoder, finite

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ...models.artifact import Artifact
    from ..data.reader import Row
    from ..text.codec import Codec

ROWS_AT_ONCE = 1024
"""Rows whose similarities to all others are held at once."""


class Embedder(TextEncoder):
    """A loaded encoder without a head."""

    def __init__(self, artifact: Artifact, codec: Codec, threads: int = 0) -> None:
        """Load the file; `threads` 0 means the physical cores.

        Raises ArtifactError when the file is no encoder without a head, MissingExtra without its engine.
        """
        super().__init__(artifact, codec, threads)
        self._task = artifact.manifest.task
        self._pools = artifact.manifest.scheme.startswith("onnx")
        if self._pools:
            self._model = Graph(artifact.model_path, self.threads, "last_hidden_state")
        else:
            from ..engines._gguf_encoder import GgufEncoder

            self._model = GgufEncoder(artifact.model_path, self.threads, self._task.pooling)
        self.dimensions: int = self._model.width or artifact.manifest.dimensions["hidden"]
        """Length of a vector."""

    def embed(self, text: str) -> NDArray[np.float32]:
        """The vector [dimensions] of one text; a text beyond the artifact's context loses its end."""
        result: NDArray[np.float32] = self.embed_all([text])[0]
        return result

    def embed_all(self, texts: Sequence[str], batch: int = 1) -> NDArray[np.float32]:
        """The vectors [n, dimensions] of texts, in their order; of length 1 where the task says `normalise`.

        Larger batches are faster on many cores, with texts of like length together. In an int8 graph the scale of
        the activations spans the batch, so vectors then differ slightly from those of each text by itself.
        """
        result = np.empty((len(texts), self.dimensions), np.float32)
        for chosen, encodings in self.batches(texts, batch):
            result[chosen] = self.vectors([encoding.ids for encoding in encodings])
        return result

    def vectors(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """The vectors [n, dimensions] of a batch of token ids; EdgestillError for some that are no numbers."""
        if self._pools:
            hidden, mask = self._model.run(ids, self.codec.pad_id or 0)
            found = hidden[:, 0] if self._task.pooling == "cls" else _mean(hidden, mask)
        else:
            found = self._model.vectors(ids)
        finite(found, self.artifact.model_path)
        return unit(found) if self._task.normalise else found


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors [n, d] divided by their length."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    result: NDArray[np.float32] = vectors / np.maximum(lengths, np.float32(1e-12))
    return result


def nearest_answers(embed_all: Callable[[list[str]], NDArray[np.float32]], rows: Sequence[Row]) -> list[str]:
    """What an embedder answers to rows: the label of the nearest other row, or of all rows' answers the nearest.

    Exact match of these answers is a nearest-neighbour classifier's accuracy, or retrieval's accuracy at 1. Raises
    DataError for fewer than two rows, or rows with neither a label nor an answer.
    """
    if len(rows) < 2 or any(row.kind == "text" for row in rows):
        raise DataError(f"{len(rows)} {rows[0].kind if rows else ''} rows cannot measure an embedder",
                        "give two or more rows with text and label, or with prompt and completion")
    questions = unit(embed_all([row.question for row in rows]))
    if rows[0].kind == "label":
        found = _nearest(questions, questions, leave_out_self=True)
        return [rows[index].label for index in found]
    answers = list(dict.fromkeys(row.answer for row in rows))
    return [answers[index] for index in _nearest(questions, unit(embed_all(answers)), leave_out_self=False)]


def _nearest(vectors: NDArray[np.float32], others: NDArray[np.float32], leave_out_self: bool) -> list[int]:
    found: list[int] = []
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        likeness = vectors[start:start + ROWS_AT_ONCE] @ others.T
        if leave_out_self:
            places = np.arange(len(likeness))
            likeness[places, start + places] = -np.inf
        found += likeness.argmax(axis=1).tolist()
    return found


def _mean(hidden: NDArray[np.float32], mask: NDArray[np.int64]) -> NDArray[np.float32]:
    weights = mask.astype(np.float32)[..., None]
    result: NDArray[np.float32] = (hidden * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1)
    return result
