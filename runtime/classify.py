"""Labels from an ONNX encoder: one forward pass, calibrated probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..models.errors import ArtifactError
from .configs import labels_of
from .encoder import Graph, TextEncoder

if TYPE_CHECKING:

    from numpy.typing import NDArray

    from ..models.artifact import Artifact
    from .text import Codec


@dataclass(frozen=True)
class Classification:
    """The likeliest label of a text."""

    label: str
    probability: float
    probabilities: dict[str, float]
    truncated: bool = False
    """Whether the text was longer than the model can read and its end was left out."""


class Classifier(TextEncoder):
    """A loaded encoder with a classification head."""

    def __init__(self, artifact: Artifact, codec: Codec, threads: int = 0) -> None:
        """Load the graph; `threads` 0 means the physical cores.

        Raises ArtifactError when the graph is no classifier, or has another number of labels than the task.
        """
        super().__init__(artifact, codec, threads)
        self._model = Graph(artifact.model_path, self.threads, "logits")
        self.labels = list(artifact.manifest.task.labels) or labels_of(artifact.folder)
        given = self._model.width
        if given is not None and given != len(self.labels):
            raise ArtifactError(f"{artifact.model_path}: {given} labels, the task has {len(self.labels)}",
                                "export the classifier again")
        self.temperature = float(artifact.manifest.settings.get("temperature", 1.0))

    def classify(self, text: str) -> Classification:
        """The label of one text."""
        return self.classify_all([text])[0]

    def classify_all(self, texts: Sequence[str], batch: int = 1) -> list[Classification]:
        """The labels of texts, in their order.

        Larger batches are faster on many cores, with texts of like length together. In an int8 graph the scale of
        the activations spans the batch, so probabilities then differ slightly from those of each text by itself.
        """
        found: dict[int, Classification] = {}
        for chosen, encodings in self.batches(texts, batch):
            probabilities = self._probabilities([encoding.ids for encoding in encodings])
            for index, encoding, row in zip(chosen, encodings, probabilities, strict=True):
                found[index] = self._classification(row, bool(encoding.overflowing))
        return [found[index] for index in range(len(texts))]

    def logits(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Logits [n, labels] of a batch of token ids, padded to the longest."""
        result: NDArray[np.float32] = self._model.run(ids, self.codec.pad_id or 0)[0]
        return result

    def _probabilities(self, ids: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        scores = self.logits(ids).astype(np.float64) / self.temperature
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        probabilities: NDArray[np.float64] = scores / scores.sum(axis=1, keepdims=True)
        return probabilities

    def _classification(self, row: NDArray[np.float64], truncated: bool) -> Classification:
        best = int(row.argmax())
        return Classification(self.labels[best], float(row[best]),
                              {label: float(value) for label, value in zip(self.labels, row, strict=True)}, truncated)
